package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wxidp/wxidp/storage"
)

const (
	kindA = storage.ItemClientAssertion
	kindB = storage.ItemKind(200) // a kind that later versions may have
)

func (s *suite) put(kind storage.ItemKind, key, value string, lifetime time.Duration) bool {
	s.Helper()
	stored, err := s.store.PutIfAbsent(s.Context(), kind, []byte(key), []byte(value), lifetime)
	s.must(err)
	return stored
}

func (s *suite) consume(kind storage.ItemKind, key string) (string, storage.ConsumeVerdict) {
	s.Helper()
	value, verdict, err := s.store.Consume(s.Context(), kind, []byte(key))
	s.must(err)
	return string(value), verdict
}

func (s *suite) items() {
	if !s.put(kindA, "k", "v", long) || s.put(kindA, "k", "w", long) {
		s.Fatal("an item must be stored once")
	}
	if !s.put(kindB, "k", "other kind", long) {
		s.Fatal("one kind took another's key")
	}
	if value, verdict := s.consume(kindA, "k"); verdict != storage.ConsumeOK || value != "v" {
		s.Fatalf("Consume = %q, %d", value, verdict)
	}
	if value, verdict := s.consume(kindA, "k"); verdict != storage.ConsumeUsed || value != "" {
		s.Errorf("second Consume = %q, %d", value, verdict)
	}
	if s.put(kindA, "k", "again", long) {
		s.Error("a consumed key was free")
	}
	if value, verdict := s.consume(kindB, "k"); verdict != storage.ConsumeOK || value != "other kind" {
		s.Errorf("Consume of the other kind = %q, %d", value, verdict)
	}
	if _, verdict := s.consume(kindA, "missing"); verdict != storage.ConsumeMissing {
		s.Errorf("Consume of a missing key: %d", verdict)
	}
	for _, key := range []string{"", "\x00", "k\x00", "Kk", "k ", "'; DROP TABLE items; --", string(bytes.Repeat([]byte{0xff}, 5000))} {
		if !s.put(kindA, key, key, long) {
			s.Errorf("key %.20q is taken", key)
		}
		if value, verdict := s.consume(kindA, key); verdict != storage.ConsumeOK || value != key {
			s.Errorf("key %.20q: %.20q, %d", key, value, verdict)
		}
	}
}

func (s *suite) itemsExpiry() {
	s.put(kindA, "k", "v", s.short())
	s.put(kindA, "used", "v", s.short())
	s.consume(kindA, "used")
	s.outlive()
	for _, key := range []string{"k", "used"} {
		if value, verdict := s.consume(kindA, key); verdict != storage.ConsumeMissing || value != "" {
			s.Errorf("Consume of expired %q = %q, %d", key, value, verdict)
		}
		if !s.put(kindA, key, "fresh", long) {
			s.Errorf("expired key %q is taken", key)
		}
	}
	// The old lifetime's end must not take the new item away.
	s.collectGarbage(10)
	if value, verdict := s.consume(kindA, "k"); verdict != storage.ConsumeOK || value != "fresh" {
		s.Errorf("Consume = %q, %d", value, verdict)
	}
	for _, lifetime := range []time.Duration{0, -time.Second} {
		s.put(kindA, "never", "v", lifetime)
		if _, verdict := s.consume(kindA, "never"); verdict != storage.ConsumeMissing {
			s.Errorf("lifetime %v: verdict %d", lifetime, verdict)
		}
	}
}

func (s *suite) itemsBig() {
	for _, size := range []int{0, 1, 5000, 100_000, storage.MaxValueSize} {
		key, value := fmt.Sprint(size), string(bytes.Repeat([]byte{'x'}, size))
		if !s.put(kindA, key, value, long) {
			s.Fatalf("%d bytes: taken", size)
		}
		if got, verdict := s.consume(kindA, key); verdict != storage.ConsumeOK || got != value {
			s.Errorf("%d bytes: got %d bytes, %d", size, len(got), verdict)
		}
		swapped, err := s.store.SwapRecord(s.Context(), key, 0, []byte(value))
		s.must(err)
		got, version, err := s.store.Record(s.Context(), key)
		s.must(err)
		if !swapped || version != 1 || string(got) != value {
			s.Errorf("record of %d bytes: %v, version %d, %d bytes", size, swapped, version, len(got))
		}
	}
	big := make([]byte, storage.MaxValueSize+1)
	if _, err := s.store.PutIfAbsent(s.Context(), kindA, []byte("big"), big, long); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("PutIfAbsent of too much: %v", err)
	}
	if _, err := s.store.SwapRecord(s.Context(), "big", 0, big); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("SwapRecord of too much: %v", err)
	}
	in := request("o-big")
	in.Family.Scope = []string{string(big)}
	if _, err := s.store.SignIn(s.Context(), in); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("SignIn with too much: %v", err)
	}
	f := s.family("o1")
	reason := string(big[:storage.MaxReason+1])
	if _, err := s.store.RevokeFamily(s.Context(), f.ID, reason); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("RevokeFamily with too much: %v", err)
	}
	if err := s.store.RevokeUser(s.Context(), f.UserID, reason); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("RevokeUser with too much: %v", err)
	}
	s.wantAccess(f.ID, string(big), storage.AccessActive)
}

func (s *suite) records() {
	swap := func(version uint64, value string) bool {
		s.Helper()
		swapped, err := s.store.SwapRecord(s.Context(), "keys", version, []byte(value))
		s.must(err)
		return swapped
	}
	want := func(value string, version uint64) {
		s.Helper()
		got, at, err := s.store.Record(s.Context(), "keys")
		s.must(err)
		if string(got) != value || at != version {
			s.Fatalf("Record = %q, %d; want %q, %d", got, at, value, version)
		}
	}
	want("", 0)
	if swap(1, "no") {
		s.Fatal("an absent document was replaced")
	}
	if !swap(0, "one") || swap(0, "no") || swap(2, "no") {
		s.Fatal("first version")
	}
	want("one", 1)
	if !swap(1, "") || swap(1, "no") {
		s.Fatal("second version")
	}
	want("", 2)
	if !swap(2, "three") {
		s.Fatal("third version")
	}
	want("three", 3)
	if _, version, err := s.store.Record(s.Context(), "other"); version != 0 || err != nil {
		s.Errorf("another document: %d, %v", version, err)
	}
}

func (s *suite) claims() {
	take := func(key string, lifetime time.Duration) bool {
		s.Helper()
		taken, err := s.store.Claim(s.Context(), digest(key), lifetime)
		s.must(err)
		return taken
	}
	commits := s.store.Stats().Commits
	if !take("a", long) || take("a", long) || !take("b", long) {
		s.Fatal("a claim must be taken once")
	}
	s.must(s.store.Release(s.Context(), digest("a")))
	s.must(s.store.Release(s.Context(), digest("never taken")))
	if !take("a", long) {
		s.Error("a released claim is taken")
	}
	take("c", s.short())
	s.outlive()
	if !take("c", long) {
		s.Error("a claim outlived its lifetime")
	}
	if take("b", long) {
		s.Error("a live claim was forgotten")
	}
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("claims cost %d commits", n)
	}
}

func (s *suite) unknown() {
	ctx := s.Context()
	_, family := s.store.Family(ctx, storage.NewFamilyID())
	_, user := s.store.User(ctx, storage.NewUserID())
	_, odd := s.store.User(ctx, "")
	_, identity := s.store.Identity(ctx, digest("nobody"))
	for name, err := range map[string]error{
		"Family": family, "User": user, "User without id": odd, "Identity": identity,
		"RevokeUser":      s.store.RevokeUser(ctx, storage.NewUserID(), "x"),
		"SetUserDisabled": s.store.SetUserDisabled(ctx, storage.NewUserID(), true),
	} {
		if !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%s: %v", name, err)
		}
	}
	if found, err := s.store.RevokeFamily(ctx, storage.NewFamilyID(), "x"); found || err != nil {
		s.Errorf("RevokeFamily: %v, %v", found, err)
	}
	if page, next, err := s.store.PageFamilies(ctx, storage.NewUserID(), "", 10); len(page) != 0 || next != "" || err != nil {
		s.Errorf("PageFamilies: %v, %q, %v", page, next, err)
	}
	if err := s.store.Ping(ctx); err != nil {
		s.Errorf("Ping: %v", err)
	}
}

// calls are all calls of a store that take a context.
func (s *suite) calls(ctx context.Context, f storage.Family) map[string]func() error {
	st := s.store
	return map[string]func() error{
		"SignIn":      func() error { _, err := st.SignIn(ctx, request("o-late")); return err },
		"Idempotency": func() error { _, _, err := st.Idempotency(ctx, digest("k")); return err },
		"Rotate": func() error {
			_, err := st.Rotate(ctx, storage.Rotation{FamilyID: f.ID, ClientID: clientID})
			return err
		},
		"Family":          func() error { _, err := st.Family(ctx, f.ID); return err },
		"CheckAccess":     func() error { _, err := st.CheckAccess(ctx, storage.AccessCheck{FamilyID: f.ID}); return err },
		"RevokeFamily":    func() error { _, err := st.RevokeFamily(ctx, f.ID, "x"); return err },
		"RevokeUser":      func() error { return st.RevokeUser(ctx, f.UserID, "x") },
		"SetUserDisabled": func() error { return st.SetUserDisabled(ctx, f.UserID, true) },
		"User":            func() error { _, err := st.User(ctx, f.UserID); return err },
		"Identity":        func() error { _, err := st.Identity(ctx, f.Identity); return err },
		"PageUsers":       func() error { _, _, err := st.PageUsers(ctx, "", 1); return err },
		"PageFamilies":    func() error { _, _, err := st.PageFamilies(ctx, "", "", 1); return err },
		"DenyJTI":         func() error { return st.DenyJTI(ctx, "jti", time.Now().Add(long)) },
		"PutIfAbsent":     func() error { _, err := st.PutIfAbsent(ctx, kindA, []byte("k"), nil, long); return err },
		"Consume":         func() error { _, _, err := st.Consume(ctx, kindA, []byte("there")); return err },
		"Record":          func() error { _, _, err := st.Record(ctx, "doc"); return err },
		"SwapRecord":      func() error { _, err := st.SwapRecord(ctx, "doc", 0, nil); return err },
		"Claim":           func() error { _, err := st.Claim(ctx, digest("k"), long); return err },
		"Release":         func() error { return st.Release(ctx, digest("k")) },
		"DeleteExpired":   func() error { _, _, err := st.DeleteExpired(ctx, 1); return err },
		"Rewrap":          func() error { _, _, err := st.Rewrap(ctx, "", 1); return err },
		"EndRestored":     func() error { _, err := st.EndRestored(ctx, storage.RestoreStep{}); return err },
		"Ping":            func() error { return st.Ping(ctx) },

		"StartLogin": func() error {
			_, err := st.StartLogin(ctx, storage.LoginStart{
				Account: storage.Binding{UserID: f.UserID}, Session: storage.LoginSession{Token: digest("t")}, Absolute: long,
			})
			return err
		},
		"Login":      func() error { _, err := st.Login(ctx, digest("t")); return err },
		"TouchLogin": func() error { return st.TouchLogin(ctx, storage.NewLoginID(), long) },
		"EndLogin":   func() error { _, err := st.EndLogin(ctx, storage.NewLoginID(), nil); return err },
		"PageLogins": func() error { _, _, err := st.PageLogins(ctx, f.UserID, "", 1); return err },
		"IssueCode": func() error {
			_, err := st.IssueCode(ctx, storage.CodeIssue{Code: digest("c"), Grant: storage.Grant{UserID: f.UserID}, Lifetime: long})
			return err
		},
		"Redeem": func() error {
			_, err := st.Redeem(ctx, storage.Redemption{Code: digest("c"), Grant: &storage.Grant{UserID: f.UserID}})
			return err
		},
		"Consents":       func() error { _, err := st.Consents(ctx, f.UserID); return err },
		"RecentFamilies": func() error { _, err := st.RecentFamilies(ctx, f.UserID, 1); return err },
		"RevokeConsent":  func() error { _, err := st.RevokeConsent(ctx, f.UserID, clientID, nil); return err },
		"PutState":       func() error { _, err := st.PutState(ctx, storage.StateTicket, digest("k"), nil, long); return err },
		"State":          func() error { _, err := st.State(ctx, storage.StateTicket, digest("k")); return err },
		"SwapState":      func() error { _, err := st.SwapState(ctx, storage.StateTicket, digest("k"), 1, nil); return err },
		"DueLogouts":     func() error { _, err := st.DueLogouts(ctx, 1); return err },
		"SettleLogouts":  func() error { return st.SettleLogouts(ctx, nil) },
		"QueueLogouts":   func() error { return st.QueueLogouts(ctx, make([]storage.LogoutNotice, 1)) },
	}
}

func (s *suite) cancelled() {
	f := s.family("o1")
	s.put(kindA, "there", "v", long)
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	for name, call := range s.calls(ctx, f) {
		if err := call(); !errors.Is(err, context.Canceled) {
			s.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
	s.wantRotate(f.ID, 0, 0, storage.RotateOK) // nothing has happened
	if _, verdict := s.consume(kindA, "there"); verdict != storage.ConsumeOK {
		s.Errorf("a cancelled Consume consumed: %d", verdict)
	}
}

func (s *suite) closed() {
	f := s.family("o1")
	s.must(s.store.Close())
	for name, call := range s.calls(s.Context(), f) {
		if err := call(); !errors.Is(err, storage.ErrClosed) {
			s.Errorf("%s after Close: %v", name, err)
		}
	}
	s.must(s.store.Close())
}
