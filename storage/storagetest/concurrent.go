package storagetest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/wxidp/wxidp/storage"
)

func (s *suite) concurrentFirstSignIn() {
	results := collect(s, callers, func(int) (storage.SignInResult, error) {
		return s.store.SignIn(s.Context(), request("o-same"))
	})
	s.oneUser(results)
}

func (s *suite) concurrentFirstUnion() {
	results := collect(s, callers, func(i int) (storage.SignInResult, error) {
		return s.store.SignIn(s.Context(), union(fmt.Sprint("wx", i%4), fmt.Sprint("o", i%4), platform, "u-same"))
	})
	s.oneUser(results)
}

func (s *suite) oneUser(results []storage.SignInResult) {
	s.Helper()
	created := 0
	for _, res := range results {
		if res.Verdict != storage.SignInOK || res.Conflict || res.UserID != results[0].UserID {
			s.Fatalf("%+v beside %+v", res, results[0])
		}
		if res.Created {
			created++
		}
		s.wantAccess(res.Family.ID, "", storage.AccessActive)
	}
	if created != 1 {
		s.Errorf("%d callers created the user", created)
	}
	if users, _, err := s.store.PageUsers(s.Context(), "", 10); err != nil || len(users) != 1 {
		s.Errorf("%d users, %v", len(users), err)
	}
	page, _, err := s.store.PageFamilies(s.Context(), results[0].UserID, "", callers+1)
	if err != nil || len(page) != len(results) {
		s.Errorf("%d families, want %d, %v", len(page), len(results), err)
	}
}

func (s *suite) concurrentIdempotency() {
	results := collect(s, callers, func(int) (storage.SignInResult, error) {
		in := request("o-same")
		in.Idempotency = &storage.Idempotency{Key: digest("key"), Form: digest("form"), Lifetime: long}
		return s.store.SignIn(s.Context(), in)
	})
	won := 0
	for _, res := range results {
		switch res.Verdict {
		case storage.SignInOK:
			won++
		case storage.SignInIdempotencyTaken:
		default:
			s.Fatalf("%+v", res)
		}
	}
	if won != 1 {
		s.Errorf("%d sign-ins with one idempotency key", won)
	}
}

// concurrentSingle has many callers ask for what only one can get.
func (s *suite) concurrentSingle() {
	for name, call := range map[string]func(i int) (bool, error){
		"PutIfAbsent": func(i int) (bool, error) {
			return s.store.PutIfAbsent(s.Context(), storage.ItemClientAssertion, []byte("jti"), []byte{byte(i)}, long)
		},
		"Consume": func(int) (bool, error) {
			value, verdict, err := s.store.Consume(s.Context(), storage.ItemClientAssertion, []byte("code"))
			if verdict == storage.ConsumeOK && string(value) != "value" {
				return false, fmt.Errorf("value %q", value)
			}
			if verdict != storage.ConsumeOK && (verdict != storage.ConsumeUsed || value != nil) {
				return false, fmt.Errorf("verdict %d with %q", verdict, value)
			}
			return verdict == storage.ConsumeOK, err
		},
		"Claim": func(int) (bool, error) {
			return s.store.Claim(s.Context(), digest("js_code"), long)
		},
		"SwapRecord": func(i int) (bool, error) {
			return s.store.SwapRecord(s.Context(), "doc", 0, []byte{byte(i)})
		},
	} {
		if name == "Consume" {
			_, err := s.store.PutIfAbsent(s.Context(), storage.ItemClientAssertion, []byte("code"), []byte("value"), long)
			s.must(err)
		}
		won := 0
		for _, ok := range collect(s, callers, call) {
			if ok {
				won++
			}
		}
		if won != 1 {
			s.Errorf("%s: %d winners", name, won)
		}
	}
}

// Threat 20: parallel refreshes of one token have one successor.
func (s *suite) concurrentRotate() {
	f := s.family("o1")
	for generation := range uint32(5) {
		results := collect(s, callers, func(i int) (storage.RotateResult, error) {
			return s.store.Rotate(s.Context(), storage.Rotation{
				FamilyID: f.ID, ClientID: clientID, Generation: generation, MACKeyID: uint32(i + 1), Grace: long, Idle: long,
			})
		})
		won := 0
		for _, res := range results {
			switch res.Verdict {
			case storage.RotateOK:
				won++
			case storage.RotateRepeated:
			default:
				s.Fatalf("verdict %d", res.Verdict)
			}
			if res.Family.Generation != generation+1 || res.Family.MACKeyID != results[0].Family.MACKeyID {
				s.Fatalf("two successors: %+v and %+v", res.Family, results[0].Family)
			}
		}
		if won != 1 {
			s.Fatalf("%d rotations of one generation", won)
		}
	}
}

func (s *suite) concurrentRotateStrict() {
	f := s.family("o1")
	results := collect(s, callers, func(int) (storage.RotateResult, error) {
		return s.store.Rotate(s.Context(), storage.Rotation{FamilyID: f.ID, ClientID: clientID, Idle: long})
	})
	count := map[storage.RotateVerdict]int{}
	for _, res := range results {
		count[res.Verdict]++
	}
	if count[storage.RotateOK] != 1 || count[storage.RotateReused] != 1 || count[storage.RotateRevoked] != callers-2 {
		s.Errorf("verdicts %v", count)
	}
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
}

// Threat 21: once a revocation is acknowledged, no refresh succeeds.
func (s *suite) concurrentRotateRevoke() {
	const rounds = 200
	for round := range rounds {
		f := s.family("o1")
		var acknowledged atomic.Bool
		var started, wg sync.WaitGroup
		for range 4 {
			started.Add(1)
			wg.Go(func() {
				for generation := uint32(0); ; {
					late := acknowledged.Load()
					res, err := s.store.Rotate(s.Context(), storage.Rotation{FamilyID: f.ID, ClientID: clientID, Generation: generation, Grace: long, Idle: long})
					if generation == 0 {
						started.Done()
					}
					if err != nil {
						s.Errorf("Rotate: %v", err)
						return
					}
					good := res.Verdict == storage.RotateOK || res.Verdict == storage.RotateRepeated
					if good && late {
						s.Errorf("round %d: verdict %d after the revocation", round, res.Verdict)
					}
					if !good {
						return
					}
					generation = res.Family.Generation
				}
			})
		}
		started.Wait()
		var err error
		if round%2 == 0 {
			_, err = s.store.RevokeFamily(s.Context(), f.ID, "logout")
		} else {
			err = s.store.RevokeUser(s.Context(), f.UserID, "logout everywhere")
		}
		acknowledged.Store(true)
		s.must(err)
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		wg.Wait()
		s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
		if s.Failed() {
			return
		}
	}
}

func (s *suite) stats() {
	before := s.store.Stats()
	const n = 10
	for range n {
		s.family("o1")
	}
	after := s.store.Stats()
	if after.Operations-before.Operations != n || after.Commits-before.Commits != n {
		s.Errorf("%d sign-ins one after another: %d operations in %d commits", n, after.Operations-before.Operations, after.Commits-before.Commits)
	}
	results := collect(s, callers, func(i int) (storage.SignInResult, error) {
		return s.store.SignIn(s.Context(), request(fmt.Sprint("o", i)))
	})
	last := s.store.Stats()
	if ops := last.Operations - after.Operations; ops != uint64(len(results)) {
		s.Errorf("%d operations counted of %d", ops, len(results))
	}
	if commits := last.Commits - after.Commits; commits == 0 || commits > callers {
		s.Errorf("%d commits for %d operations", commits, callers)
	}
}
