package accounts

import (
	"context"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/internal/secret"
)

// Hashes that other implementations have made: those of the argon2 reference
// implementation's tests and of crypt_blowfish's.
var foreignHashes = []struct{ name, password, encoded string }{
	{"argon2id", "password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"},
	{"argon2id two lanes", "password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"},
	{"argon2id 64 MiB", "password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
	{"argon2i", "password", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"},
	{"bcrypt 2a", "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
	{"bcrypt 2b", "U*U", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
	{"bcrypt 2y", "U*U*", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"},
	// bcrypt sees the first 72 bytes.
	{"bcrypt 72 bytes", "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
		"$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"},
}

func TestForeignHashes(t *testing.T) {
	p := NewPasswords(PasswordOptions{})
	for _, c := range foreignHashes {
		t.Run(c.name, func(t *testing.T) {
			if err := CheckHash(c.encoded); err != nil {
				t.Fatal(err)
			}
			match, err := p.Verify(context.Background(), c.encoded, secret.New(c.password))
			if err != nil || !match.OK || match.Unusable {
				t.Fatalf("the right password: %+v, %v", match, err)
			}
			if !match.Upgrade {
				t.Error("a hash that is not one of ours needs no upgrade")
			}
			match, err = p.Verify(context.Background(), c.encoded, secret.New("x"+c.password))
			if err != nil || match != (Match{}) {
				t.Fatalf("a wrong password: %+v, %v", match, err)
			}
		})
	}
}

func TestRefusedHashes(t *testing.T) {
	const salt, key = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	ok := "$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + key
	for _, costs := range []string{"m=256,t=2", "m=8,t=16", "m=16384,t=16", "m=65536,t=4", "m=131072,t=2", "m=262144,t=1"} {
		if err := CheckHash(strings.Replace(ok, "m=256,t=2", costs, 1)); err != nil {
			t.Errorf("%s: %v", costs, err)
		}
	}
	if err := CheckHash("$2a$12$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"); err != nil {
		t.Error(err)
	}
	for _, encoded := range []string{
		"", "x", "$", "$$$$$", "plain text", ok + "$", ok + "\n", " " + ok,
		strings.Replace(ok, "argon2id", "argon2d", 1),
		strings.Replace(ok, "argon2id", "ARGON2ID", 1),
		strings.Replace(ok, "v=19", "v=16", 1),
		strings.Replace(ok, "v=19$", "", 1),
		strings.Replace(ok, "m=256,t=2", "m=262145,t=1", 1), // 256 MiB and 1 KiB
		strings.Replace(ok, "m=256,t=2", "m=131073,t=2", 1), // 256 MiB and 2 KiB passed over
		strings.Replace(ok, "m=256,t=2", "m=65537,t=4", 1),
		strings.Replace(ok, "m=256,t=2", "m=262144,t=16", 1),
		strings.Replace(ok, "m=256", "m=4294967552", 1),
		strings.Replace(ok, "m=256", "m=0256", 1),
		strings.Replace(ok, "m=256", "m=+256", 1),
		strings.Replace(ok, "m=256", "m=7", 1), // less than 8 per lane
		strings.Replace(ok, "m=256", "m=", 1),
		strings.Replace(ok, "t=2", "t=0", 1),
		strings.Replace(ok, "t=2", "t=17", 1),
		strings.Replace(ok, "p=1", "p=17", 1),
		strings.Replace(ok, "p=1", "p=0", 1),
		strings.Replace(ok, "p=1", "p=257", 1), // 1 in eight bits
		strings.Replace(ok, "m=256,t=2", "t=2,m=256", 1),
		strings.Replace(ok, "p=1", "p=1,data=AAAA", 1),
		strings.Replace(ok, salt, "c2FsdA", 1),        // 4 bytes
		strings.Replace(ok, salt, salt+"==", 1),       // padded
		strings.Replace(ok, salt, "c29tZXNhb\nHQ", 1), // which Go's decoder would skip
		strings.Replace(ok, salt, "c29tZXNhbHR", 1),   // trailing bits
		strings.Replace(ok, salt, strings.Repeat("A", 88), 1),
		strings.Replace(ok, key, "AAAA", 1),
		strings.Replace(ok, key, strings.Repeat("A", 200), 1),
		strings.Replace(ok, "$"+key, "", 1),
		ok + strings.Repeat("A", 1000),
		"$2a$", "$2",
		"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2a$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2a$13$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2a$+5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2a$05$CCCCCCCCCCCCCCCCCCCC!.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWW",
		"$1$abcdefgh$0123456789012345678901",
		"$6$saltsalt$" + strings.Repeat("a", 86),
		"e10adc3949ba59abbe56e057f20f883e", // MD5
	} {
		err := CheckHash(encoded)
		if err == nil {
			t.Errorf("%q is accepted", encoded)
			continue
		}
		if len(encoded) > 4 && strings.Contains(err.Error(), encoded) {
			t.Errorf("the error repeats the hash: %v", err)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	for _, c := range foreignHashes {
		f.Add(c.encoded)
	}
	f.Add("$argon2id$v=19$m=262144,t=1,p=16$" + strings.Repeat("A", 86) + "$" + strings.Repeat("A", 86))
	f.Add("$argon2id$v=19$m=99999999999999999999,t=1,p=1$AAAA$AAAA")
	f.Add("$2b$10$")
	f.Fuzz(func(t *testing.T, encoded string) {
		h, err := parseHash(encoded)
		if err != nil {
			return
		}
		switch h.algorithm {
		case algBcrypt:
			if h.encoded != encoded || len(encoded) != 60 {
				t.Fatalf("%q became %+v", encoded, h)
			}
		case algArgon2id, algArgon2i:
			if uint64(h.memory)*uint64(h.passes) > 256<<10 || h.passes < 1 || h.passes > 16 || h.lanes < 1 || h.lanes > 16 ||
				len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64 {
				t.Fatalf("%q is out of bounds: %+v", encoded, h)
			}
			// There is one spelling only.
			again := encodePHC(h.argon2Params, h.salt, h.key)
			if want := strings.Replace(encoded, "argon2i$", "argon2id$", 1); again != want {
				t.Fatalf("%q is written as %q", encoded, again)
			}
		default:
			t.Fatalf("%q has algorithm %q", encoded, h.algorithm)
		}
	})
}
