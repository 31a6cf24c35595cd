package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func (s *suite) putState(kind storage.StateKind, key, value string, lifetime time.Duration) bool {
	s.Helper()
	stored, err := s.store.PutState(s.Context(), kind, digest(key), []byte(value), lifetime)
	s.must(err)
	return stored
}

func (s *suite) swapState(kind storage.StateKind, key string, version uint64, value string) bool {
	s.Helper()
	swapped, err := s.store.SwapState(s.Context(), kind, digest(key), version, []byte(value))
	s.must(err)
	return swapped
}

// wantState compares a document; version 0: there is none.
func (s *suite) wantState(kind storage.StateKind, key, value string, version uint64) storage.State {
	s.Helper()
	got, err := s.store.State(s.Context(), kind, digest(key))
	if version == 0 && !errors.Is(err, storage.ErrNotFound) || version > 0 && (err != nil || string(got.Value) != value || got.Version != version) {
		s.Fatalf("State = %q, %d, %v; want %q, %d", got.Value, got.Version, err, value, version)
	}
	return got
}

func (s *suite) states() {
	const ticket, name = storage.StateTicket, storage.StateTicketName
	s.wantState(ticket, "a", "", 0)
	if s.swapState(ticket, "a", 0, "no") || s.swapState(ticket, "a", 1, "no") {
		s.Error("an absent document was replaced")
	}
	if !s.putState(ticket, "a", "one", long) || s.putState(ticket, "a", "no", long) {
		s.Error("a document must be stored once")
	}
	if !s.putState(name, "a", "", long) {
		s.Error("kinds are not apart")
	}
	before := s.wantState(ticket, "a", "one", 1)
	if left := time.Until(before.ExpiresAt); left > long || left < long-time.Minute {
		s.Errorf("expires in %v", left)
	}
	s.wantState(name, "a", "", 1)
	s.wantState(ticket, "b", "", 0)
	if s.swapState(ticket, "a", 0, "no") || s.swapState(ticket, "a", 2, "no") || !s.swapState(ticket, "a", 1, "two") || s.swapState(ticket, "a", 1, "no") {
		s.Error("second version")
	}
	if after := s.wantState(ticket, "a", "two", 2); !after.ExpiresAt.Equal(before.ExpiresAt) {
		s.Error("a swap moved the expiry")
	}
	if !s.putState(ticket, "never", "v", 0) {
		s.Error("a document without a lifetime is refused")
	}
	s.wantState(ticket, "never", "", 0)

	big := make([]byte, storage.MaxValueSize+1)
	if _, err := s.store.PutState(s.Context(), ticket, digest("big"), big, long); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("PutState of too much: %v", err)
	}
	if _, err := s.store.SwapState(s.Context(), ticket, digest("a"), 2, big); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("SwapState of too much: %v", err)
	}
	if !s.putState(ticket, "big", string(big[1:]), long) {
		s.Error("as much as may be is refused")
	}

	s.putState(ticket, "brief", "v", s.short())
	s.outlive()
	s.wantState(ticket, "brief", "", 0)
	if s.swapState(ticket, "brief", 1, "no") {
		s.Error("an expired document was replaced")
	}
	if !s.putState(ticket, "brief", "again", long) {
		s.Error("an expired document is in the way")
	}
	time.Sleep(1100 * time.Millisecond)
	s.collectGarbage(10)
	s.wantState(ticket, "brief", "again", 1) // what was noted of the first one does not count
}

// concurrentState holds that of many who change one version one succeeds.
func (s *suite) concurrentState() {
	const kind = storage.StateTicket
	won := 0
	for _, stored := range collect(s, callers, func(i int) (bool, error) {
		return s.store.PutState(s.Context(), kind, digest("a"), []byte("0"), long)
	}) {
		if stored {
			won++
		}
	}
	if won != 1 {
		s.Fatalf("%d callers stored one document", won)
	}
	// Everybody adds one, again and again until it succeeds.
	collect(s, 8, func(int) (bool, error) {
		for done := 0; done < 10; {
			state, err := s.store.State(s.Context(), kind, digest("a"))
			if err != nil {
				return false, err
			}
			var n int
			if _, err := fmt.Sscan(string(state.Value), &n); err != nil {
				return false, err
			}
			swapped, err := s.store.SwapState(s.Context(), kind, digest("a"), state.Version, fmt.Append(nil, n+1))
			if err != nil {
				return false, err
			}
			if swapped {
				done++
			}
		}
		return true, nil
	})
	s.wantState(kind, "a", "80", 81)
}

func (s *suite) logouts() {
	s.wantDue()
	s.must(s.store.QueueLogouts(s.Context(), nil))
	families := make([]storage.Family, 5)
	notices := make([]storage.LogoutNotice, len(families))
	for i := range families {
		families[i] = storage.Family{ID: storage.NewFamilyID(), ClientID: fmt.Sprint("client", i), UserID: "ming"}
		notices[i] = storage.LogoutNotice{ClientID: families[i].ClientID, UserID: "ming", FamilyID: families[i].ID}
	}
	s.must(s.store.QueueLogouts(s.Context(), notices))
	due := s.wantDue(families...)
	if first, err := s.store.DueLogouts(s.Context(), 2); err != nil || !reflect.DeepEqual(first, due[:2]) {
		s.Errorf("limit 2: %+v, %v", first, err)
	}
	time.Sleep(time.Millisecond)
	s.must(s.store.QueueLogouts(s.Context(), due[:1])) // is there already
	s.wantDue(families...)

	// Two are delivered; the others are put off, the last one least.
	now := time.Now()
	for i := range due {
		due[i].Attempts = uint32(i)
		due[i].Next = now.Add(s.seen() - time.Duration(i)*time.Millisecond)
	}
	due[0].Next, due[1].Next = time.Time{}, time.Time{}
	s.must(s.store.SettleLogouts(s.Context(), due))
	s.wantDue()
	s.outlast()
	later, err := s.store.DueLogouts(s.Context(), 0)
	s.must(err)
	if len(later) != 3 || later[0].ID != due[4].ID || later[1].ID != due[3].ID || later[2].ID != due[2].ID || later[0].Attempts != 4 ||
		later[0].ClientID != due[4].ClientID || later[0].FamilyID != due[4].FamilyID || !later[0].Next.Equal(storage.RoundTime(due[4].Next)) {
		s.Fatalf("due later: %+v", later)
	}
	commits := s.store.Stats().Commits
	due[0].Next = now
	s.must(s.store.SettleLogouts(s.Context(), due[:2])) // they do not come back
	if n := s.store.Stats().Commits - commits; n != 0 {
		s.Errorf("%d commits", n)
	}
	for i := range later {
		later[i].Next = time.Time{}
	}
	s.must(s.store.SettleLogouts(s.Context(), later))
	s.wantDue()
	many := make([]storage.LogoutNotice, storage.MaxPage+1)
	for name, err := range map[string]error{
		"QueueLogouts": s.store.QueueLogouts(s.Context(), many), "SettleLogouts": s.store.SettleLogouts(s.Context(), many),
	} {
		if !errors.Is(err, storage.ErrTooLarge) {
			s.Errorf("%s of too many: %v", name, err)
		}
	}
}
