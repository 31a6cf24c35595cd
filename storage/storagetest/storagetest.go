// Package storagetest holds the contract of storage.Store as tests. A backend
// is whatever passes them.
package storagetest

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Options say how a backend is tested.
type Options struct {
	// Open returns a new, empty store. It registers what closes it with
	// t.Cleanup.
	Open func(t *testing.T) storage.Store

	// Reopen closes a store of Open and opens what it holds anew. Optional; a
	// backend without it is not tested to be moved.
	Reopen func(t *testing.T, s storage.Store) storage.Store

	// Other is another backend, for moves there and back. Optional.
	Other *Options

	// Bubble runs every test in a bubble of testing/synctest, where days pass
	// at once. A backend with a clock or sockets of its own cannot do that; its
	// tests use lifetimes of fractions of a second.
	Bubble bool

	// Rows returns how many records of all kinds a store holds. Optional.
	Rows func(t *testing.T, s storage.Store) int

	// Dump returns all bytes that a store holds on disk. Optional.
	Dump func(t *testing.T, s storage.Store) []byte

	// Check looks whether all rows about people fit together; it is called
	// after every test, too. Optional.
	Check func(t *testing.T, s storage.Store)

	// ModelSteps is the length of the random run against a model, which needs a
	// Bubble; 0 means 20,000.
	ModelSteps int
}

// Run runs the contract against stores from open in real time.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	RunOptions(t, Options{Open: open})
}

// RunOptions runs the contract.
func RunOptions(t *testing.T, opts Options) {
	for name, test := range map[string]func(s *suite){
		"SignIn/New":                        (*suite).signInNew,
		"SignIn/Again":                      (*suite).signInAgain,
		"SignIn/Threat65OpenIDPerApp":       (*suite).signInOpenIDPerApp,
		"SignIn/Threat66Union":              (*suite).signInUnion,
		"SignIn/Threat66UnionLater":         (*suite).signInUnionLater,
		"SignIn/Threat66UnionConflict":      (*suite).signInUnionConflict,
		"SignIn/Threat66UnionOtherPlatform": (*suite).signInUnionOtherPlatform,
		"SignIn/Threat66UnionSameApp":       (*suite).signInUnionSameApp,
		"SignIn/Idempotency":                (*suite).signInIdempotency,
		"SignIn/Disabled":                   (*suite).signInDisabled,
		"SignIn/FamilyIDTaken":              (*suite).signInFamilyIDTaken,
		"SignIn/Threat72BindNew":            (*suite).bindNew,
		"SignIn/Threat72BindMovesBareUser":  (*suite).bindMovesBareUser,
		"SignIn/Threat72BindMovesUnion":     (*suite).bindMovesUnion,
		"SignIn/Threat72BindRefusals":       (*suite).bindRefusals,
		"SignIn/BindExternal":               (*suite).bindExternal,
		"SignIn/Threat66BindUnionConflict":  (*suite).bindUnionConflict,
		"SignIn/RequireKnown":               (*suite).requireKnown,
		"SignIn/PhoneStepUp":                (*suite).phoneStepUp,
		"SignIn/Phone":                      (*suite).phoneSignIn,
		"SignIn/Threat70PhoneIsWeak":        (*suite).phoneIsWeak,
		"People/UpdateProfile":              (*suite).updateProfile,
		"People/CreateAccount":              (*suite).createAccount,
		"People/Threat23Passwords":          (*suite).passwords,
		"People/Threat72Unbind":             (*suite).unbind,
		"People/Threat72UnbindWays":         (*suite).unbindWays,
		"People/Threat72UnbindEndsAll":      (*suite).unbindEndsAll,
		"People/Threat23WithdrawEndsAll":    (*suite).withdrawEndsAll,
		"People/WithdrawErasesAll":          (*suite).withdrawErasesAll,
		"People/Threat71Merge":              (*suite).merge,
		"People/MergeRefusals":              (*suite).mergeRefusals,
		"People/Threat67ForgetSessionKeys":  (*suite).forgetSessionKeys,
		"People/Erase":                      (*suite).erase,
		"People/Import":                     (*suite).imports,
		"People/ImportAccounts":             (*suite).importAccounts,
		"People/Threat67SessionKeys":        (*suite).sessionKeys,
		"People/SessionKeysExpire":          (*suite).sessionKeysExpire,
		"People/Withdraw":                   (*suite).withdraw,
		"People/WithdrawAccount":            (*suite).withdrawAccount,
		"People/Unknown":                    (*suite).unknownPeople,
		"Revoke/Threat23Client":             (*suite).revokeClient,
		"Revoke/Threat23ClientGrants":       (*suite).clientVoidsGrants,
		"Concurrent/Threat72Bind":           (*suite).concurrentBind,
		"Concurrent/Threat72Unbind":         (*suite).concurrentUnbind,
		"Concurrent/Threat70Phone":          (*suite).concurrentPhone,
		"Concurrent/Accounts":               (*suite).concurrentAccounts,
		"Concurrent/Withdraw":               (*suite).concurrentWithdraw,
		"Concurrent/Threat21End":            (*suite).concurrentEnd,
		"Rotate/Threats16To19Table":         (*suite).rotateTable,
		"Rotate/ManyGenerations":            (*suite).rotateManyGenerations,
		"Rotate/Threat17GraceEnds":          (*suite).rotateGraceEnds,
		"Rotate/Threat30Expiry":             (*suite).rotateExpiry,
		"Access/Threat44JTI":                (*suite).access,
		"Access/Expiry":                     (*suite).accessExpiry,
		"Revoke/Threat44Family":             (*suite).revokeFamily,
		"Revoke/Threat23User":               (*suite).revokeUser,
		"Revoke/Threat23DisabledUser":       (*suite).disabledUser,
		"Concurrent/FirstSignIn":            (*suite).concurrentFirstSignIn,
		"Concurrent/FirstUnion":             (*suite).concurrentFirstUnion,
		"Concurrent/Idempotency":            (*suite).concurrentIdempotency,
		"Concurrent/Single":                 (*suite).concurrentSingle,
		"Concurrent/Threat20Rotate":         (*suite).concurrentRotate,
		"Concurrent/Threat20RotateStrict":   (*suite).concurrentRotateStrict,
		"Concurrent/Threat21RotateRevoke":   (*suite).concurrentRotateRevoke,
		"Login/Start":                       (*suite).loginStartFresh,
		"Login/StartRefusals":               (*suite).loginStartRefusals,
		"Login/Threat51Replace":             (*suite).loginReplace,
		"Login/End":                         (*suite).loginEnd,
		"Login/Threat23UserEnds":            (*suite).loginUserEnds,
		"Login/Expiry":                      (*suite).loginExpiry,
		"Login/Participants":                (*suite).participants,
		"Login/ToldParticipants":            (*suite).toldParticipants,
		"Code/Redeem":                       (*suite).redeemOK,
		"Code/Threats6And8Wrong":            (*suite).redeemWrong,
		"Code/Threat9Replay":                (*suite).redeemReplay,
		"Code/Device":                       (*suite).redeemDevice,
		"Code/Expiry":                       (*suite).codeExpiry,
		"Concurrent/Threat10Redeem":         (*suite).concurrentRedeem,
		"Concurrent/LoginEnd":               (*suite).concurrentLoginEnd,
		"Concurrent/State":                  (*suite).concurrentState,
		"Consents":                          (*suite).consents,
		"Consents/Relied":                   (*suite).reliedConsents,
		"Consents/United":                   (*suite).consentsUnited,
		"Consents/Bounded":                  (*suite).consentsBounded,
		"Consents/NamesBounded":             (*suite).consentNamesBounded,
		"Consents/Threat23Grants":           (*suite).consentVoidsGrants,
		"Consents/Threat23ManyFamilies":     (*suite).consentOfMany,
		"States":                            (*suite).states,
		"Logouts":                           (*suite).logouts,
		"Paging/Logins":                     (*suite).pagingLogins,
		"Paging/RecentFamilies":             (*suite).recentFamilies,
		"GC/Logins":                         (*suite).gcLogins,
		"Restore/Threat88Undecided":         (*suite).restoreUndecided,
		"Restore/Threat88RevokeAll":         (*suite).restoreRevokeAll,
		"Restore/Threat88Accept":            (*suite).restoreAccept,
		"Restore/Steps":                     (*suite).restoreSteps,
		"Restore/Begun":                     (*suite).restoreBegun,
		"Restore/Threat88Ahead":             (*suite).restoreAhead,
		"Concurrent/Threat88Settle":         (*suite).concurrentSettle,
		"Items":                             (*suite).items,
		"Items/Expiry":                      (*suite).itemsExpiry,
		"Items/Big":                         (*suite).itemsBig,
		"Records":                           (*suite).records,
		"Claims":                            (*suite).claims,
		"Paging/Users":                      (*suite).pagingUsers,
		"Paging/Threat86Families":           (*suite).pagingFamilies,
		"Rewrap":                            (*suite).rewrapNothing,
		"Unknown":                           (*suite).unknown,
		"Cancelled":                         (*suite).cancelled,
		"Closed":                            (*suite).closed,
		"Stats":                             (*suite).stats,
		"Move":                              (*suite).move,
		"Move/Expiry":                       (*suite).moveAll,
		"Move/ImportRows":                   (*suite).importRows,
		"GC":                                (*suite).gc,
		"GC/MovedOn":                        (*suite).gcMovedOn,
		"Threat88Personal":                  (*suite).personal,
		"Model":                             (*suite).model,
	} {
		t.Run(name, func(t *testing.T) {
			run := func(t *testing.T) {
				s := &suite{T: t, Options: opts, store: opts.Open(t)}
				if test(s); name != "Closed" {
					s.check()
				}
			}
			if opts.Bubble {
				synctest.Test(t, run)
			} else {
				run(t)
			}
		})
	}
}

// suite is one test with its store.
type suite struct {
	*testing.T
	Options
	store storage.Store
}

const (
	appID    = "wx0123456789abcdef"
	otherApp = "wxfedcba9876543210"
	platform = "main"
	clientID = "shop-mini"
	long     = 1000 * time.Hour // outlasts every test that is not about expiry
	callers  = 64
)

// short is a lifetime whose end the tests wait for. Of what lasts so long they
// look at nothing before: a busy machine may take longer for that.
func (s *suite) short() time.Duration {
	if s.Bubble {
		return time.Minute
	}
	return 100 * time.Millisecond
}

// outlive waits until what lasts for short has surely ended.
func (s *suite) outlive() { time.Sleep(s.short() + s.short()/2) }

// seen is a lifetime that lasts while a test does a few things with what it
// then outlasts.
func (s *suite) seen() time.Duration {
	if s.Bubble {
		return s.short()
	}
	return 3 * time.Second
}

// outlast waits until what lasts for seen has surely ended.
func (s *suite) outlast() { time.Sleep(s.seen() + s.short()/2) }

func request(openID string) storage.SignIn {
	return storage.SignIn{
		AppID:        appID,
		WeChatOpenID: openID,
		NewProfile:   storage.Profile{Nickname: "nick of " + openID, Picture: "https://example.com/" + openID + ".png"},
		Family: storage.Family{
			ID:        storage.NewFamilyID(),
			ClientID:  clientID,
			Scope:     []string{"openid", "profile"},
			Audience:  []string{"https://api.shop.example"},
			AuthTime:  time.Now(),
			AMR:       []string{"wechat"},
			MACKeyID:  1,
			Secret:    storage.NewFamilySecret(),
			RevokedAt: time.Now(), // not the caller's to say
		},
		Idle:     long,
		Absolute: long,
	}
}

func (s *suite) signIn(in storage.SignIn) storage.SignInResult {
	s.Helper()
	res, err := s.store.SignIn(s.Context(), in)
	if err != nil {
		s.Fatalf("SignIn: %v", err)
	}
	return res
}

// family signs the nth person in and returns the family.
func (s *suite) family(openID string) storage.Family {
	s.Helper()
	res := s.signIn(request(openID))
	if res.Verdict != storage.SignInOK {
		s.Fatalf("SignIn verdict %d", res.Verdict)
	}
	return res.Family
}

func (s *suite) rotate(id storage.FamilyID, generation uint32, grace time.Duration) storage.RotateResult {
	s.Helper()
	res, err := s.store.Rotate(s.Context(), storage.Rotation{
		FamilyID: id, ClientID: clientID, Generation: generation, MACKeyID: generation + 10, Grace: grace, Idle: long,
	})
	if err != nil {
		s.Fatalf("Rotate: %v", err)
	}
	return res
}

func (s *suite) wantRotate(id storage.FamilyID, generation uint32, grace time.Duration, want storage.RotateVerdict) storage.RotateResult {
	s.Helper()
	res := s.rotate(id, generation, grace)
	if res.Verdict != want {
		s.Fatalf("Rotate of generation %d: verdict %d, want %d", generation, res.Verdict, want)
	}
	return res
}

func (s *suite) wantAccess(id storage.FamilyID, jti string, want storage.AccessVerdict) {
	s.Helper()
	res, err := s.store.CheckAccess(s.Context(), storage.AccessCheck{FamilyID: id, JTI: jti})
	if err != nil {
		s.Fatalf("CheckAccess: %v", err)
	}
	if res.Verdict != want {
		s.Fatalf("CheckAccess: verdict %d, want %d", res.Verdict, want)
	}
	if want == storage.AccessActive && res.Family.ID != id {
		s.Fatalf("CheckAccess: family %v, want %v", res.Family.ID, id)
	}
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// collect runs n calls at once and returns their results.
func collect[R any](s *suite, n int, call func(i int) (R, error)) []R {
	s.Helper()
	results := make([]R, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			results[i], errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			s.Fatalf("call %d of %d: %v", i, n, err)
		}
	}
	return results
}

func digest(parts ...any) (d storage.Digest) {
	copy(d[:], fmt.Sprint(parts...))
	return d
}

// collectGarbage deletes all that has expired, in batches of limit.
func (s *suite) collectGarbage(limit int) (deleted int) {
	s.Helper()
	for range 100_000 {
		n, more, err := s.store.DeleteExpired(s.Context(), limit)
		s.must(err)
		if n > limit {
			s.Fatalf("DeleteExpired deleted %d, limit %d", n, limit)
		}
		deleted += n
		if !more {
			return deleted
		}
	}
	s.Fatal("DeleteExpired finds no end")
	return 0
}
