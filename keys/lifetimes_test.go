package keys

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPreviousKeyStaysForWhatItSigned(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		settings := defaults()
		settings.TokenLifetime = 10 * time.Hour
		w := newWorld(t, settings)
		w.options.PollEvery = 2 * time.Minute
		node := w.open(t)
		defer run(t, node)()
		time.Sleep(48 * time.Hour)
		first := current(t, node, ES256)
		token := sign(t, node, ES256, "JWT", "{}")

		// Shrinking the lifetime must not shorten what was promised.
		settings.TokenLifetime = time.Minute
		node.Reload(settings)
		time.Sleep(2 * time.Minute)
		if err := node.Rotate(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if current(t, node, ES256) == first {
			t.Fatal("not rotated")
		}
		time.Sleep(10*time.Hour - 3*time.Minute)
		if _, err := node.Verify(token, "JWT"); err != nil {
			t.Errorf("token signed under the longer lifetime: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := node.Verify(token, "JWT"); !errors.Is(err, ErrInvalidToken) || !strings.Contains(err.Error(), "unknown kid") {
			t.Errorf("long after its last token expired the key still verifies: %v", err)
		}

		// Growing it counts for the keys that sign now.
		settings.TokenLifetime = 20 * time.Hour
		node.Reload(settings)
		time.Sleep(30 * time.Hour)
		token = sign(t, node, ES256, "JWT", "{}")
		if err := node.Rotate(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Hour)
		if _, err := node.Verify(token, "JWT"); err != nil {
			t.Errorf("token signed under the grown lifetime: %v", err)
		}
	})
}

func TestMACKeysStayForRefreshLifetime(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaults())
		w.options.PollEvery = time.Hour
		node := w.open(t)
		defer run(t, node)()
		first := node.MACKey()
		if first.ID != 1 || first.Key == [32]byte{} {
			t.Fatalf("first MAC key has id %d", first.ID)
		}
		time.Sleep(725 * time.Hour)
		second := node.MACKey()
		if second.ID != 2 || second.Key == first.Key {
			t.Fatalf("after RotateEvery the MAC key has id %d", second.ID)
		}
		time.Sleep(4300 * time.Hour)
		if got, ok := node.MACKeyByID(1); !ok || got != first {
			t.Error("a retired MAC key is gone before RefreshLifetime")
		}
		time.Sleep(40 * time.Hour)
		if _, ok := node.MACKeyByID(1); ok {
			t.Error("a retired MAC key is still there after RefreshLifetime")
		}
		if got, ok := node.MACKeyByID(2); !ok || got != second {
			t.Error("MAC key 2 is gone")
		}
		if _, ok := node.MACKeyByID(99); ok {
			t.Error("MAC key 99 was found")
		}
	})
}

// A refresh token made by one node must be known to another at once.
func TestMACKeysAreKnownEverywhereBeforeUse(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		settings := Settings{10 * time.Minute, time.Minute, time.Minute, time.Hour, false}
		w := newWorld(t, settings)
		a, b := w.open(t), w.open(t)
		defer run(t, a)()
		time.Sleep(2300 * time.Millisecond)
		defer run(t, b)()
		used := map[uint32]bool{}
		for i := range 7200 {
			time.Sleep(time.Second)
			if i < 300 { // an operator in a hurry
				var scheduled *ScheduledError
				if err := a.Rotate(t.Context(), MAC); err != nil && !errors.As(err, &scheduled) {
					t.Fatal(err)
				}
			}
			for _, pair := range [][2]*Ring{{a, b}, {b, a}} {
				mac := pair[0].MACKey()
				if got, ok := pair[1].MACKeyByID(mac.ID); !ok || got != mac {
					t.Fatalf("%v: MAC key %d is in use and unknown to the other node", time.Now(), mac.ID)
				}
				used[mac.ID] = true
			}
		}
		if len(used) < 11 {
			t.Errorf("%d MAC keys used in two hours of rotating every ten minutes", len(used))
		}
	})
}

func TestEdDSAEnabledAndDisabledLater(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		settings := defaults()
		settings.EdDSA = false
		w := newWorld(t, settings)
		w.options.PollEvery = 10 * time.Minute
		node := w.open(t)
		defer run(t, node)()
		m := newModel(time.Hour, node)
		m.within(t, time.Hour, 10*time.Minute)
		if _, err := node.Sign(EdDSA, "JWT", []byte("{}")); !errors.Is(err, ErrNoKey) {
			t.Fatalf("Sign with EdDSA disabled: %v", err)
		}

		settings.EdDSA = true
		node.Reload(settings)
		m.within(t, 24*time.Hour-10*time.Minute, 10*time.Minute)
		if got := node.Algorithms(); !slices.Equal(got, []string{ES256, RS256}) {
			t.Fatalf("algorithms %v before the EdDSA key was published long enough", got)
		}
		m.within(t, time.Hour, 10*time.Minute)
		if got := node.Algorithms(); !slices.Equal(got, []string{ES256, RS256, EdDSA}) {
			t.Fatalf("algorithms %v", got)
		}

		token := sign(t, node, EdDSA, "at+jwt", "{}")
		settings.EdDSA = false
		node.Reload(settings)
		if _, err := node.Sign(EdDSA, "JWT", []byte("{}")); !errors.Is(err, ErrNoKey) {
			t.Errorf("Sign right after EdDSA was disabled: %v", err)
		}
		m.within(t, time.Hour, 10*time.Minute)
		if _, err := node.Verify(token, "at+jwt"); err != nil {
			t.Errorf("token made before EdDSA was disabled: %v", err)
		}
		m.within(t, 800*time.Hour, 10*time.Hour)
		for _, info := range node.List() {
			if info.Alg == EdDSA {
				t.Errorf("EdDSA key %s is still %s", info.ID, info.State)
			}
		}
	})
}

// Lowering publish_ahead lowers max-age, but sets fetched before are cached for
// the old one.
func TestLoweredPublishAheadRespectsOldCaches(t *testing.T) {
	rsaPool()
	synctest.Test(t, func(t *testing.T) {
		settings := defaults()
		settings.EdDSA = false
		w := newWorld(t, settings)
		node := w.open(t)
		stop := run(t, node)
		defer func() { stop() }()
		m := newModel(time.Hour, node)
		m.within(t, 30*time.Hour, 10*time.Minute)
		if got := node.JWKS().MaxAge; got != time.Hour {
			t.Fatalf("max-age %s", got)
		}

		settings.PublishAhead, settings.RotateEvery = 10*time.Second, 20*time.Second
		settings.TokenLifetime = 20 * time.Second
		node.Reload(settings)
		if got := node.JWKS().MaxAge; got != 5*time.Second {
			t.Fatalf("max-age %s right after Reload", got)
		}
		m.life = settings.TokenLifetime
		m.within(t, 30*time.Minute, 10*time.Second)
		// A restart must not forget it.
		stop()
		w.options.Settings = settings
		node = w.open(t)
		m.nodes = []*Ring{node}
		stop = run(t, node)
		m.within(t, time.Hour, 5*time.Second)
		if m.rotations[ES256] < 50 {
			t.Errorf("%d rotations", m.rotations[ES256])
		}

		// Raised again: a longer max-age is sent only when the document knows.
		settings.PublishAhead = 24 * time.Hour
		node.Reload(settings)
		if got := node.JWKS().MaxAge; got > 5*time.Second {
			t.Errorf("max-age %s before the document allows it", got)
		}
		m.within(t, 10*time.Minute, 5*time.Second)
		if got := node.JWKS().MaxAge; got != time.Hour {
			t.Errorf("max-age %s", got)
		}
	})
}
