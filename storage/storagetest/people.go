package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// check runs the backend's own check of what belongs together.
func (s *suite) check() {
	s.Helper()
	if s.Check != nil {
		s.Check(s.T, s.store)
	}
}

func (s *suite) updateProfile() {
	f := s.family("o1")
	before := s.user(f.UserID)
	time.Sleep(2 * time.Millisecond)
	nick, picture := "小明", "https://example.com/new.png"
	user, err := s.store.UpdateProfile(s.Context(), f.UserID, storage.ProfileChange{Nickname: &nick})
	s.must(err)
	if user.Profile.Nickname != nick || user.Profile.Picture != before.Profile.Picture || !user.UpdatedAt.After(before.UpdatedAt) {
		s.Errorf("user %+v", user)
	}
	if user, err = s.store.UpdateProfile(s.Context(), f.UserID, storage.ProfileChange{Picture: &picture}); err != nil ||
		user.Profile != (storage.Profile{Nickname: nick, Picture: picture}) {
		s.Errorf("user %+v, %v", user, err)
	}
	if got := s.user(f.UserID); !reflect.DeepEqual(got, user) {
		s.Errorf("stored user %+v, want %+v", got, user)
	}
	commits := s.store.Stats().Commits
	for _, change := range []storage.ProfileChange{{}, {Nickname: &nick}} {
		if got, err := s.store.UpdateProfile(s.Context(), f.UserID, change); err != nil || !reflect.DeepEqual(got, user) {
			s.Errorf("nothing new: %+v, %v", got, err)
		}
	}
	if after := s.store.Stats().Commits; after != commits {
		s.Errorf("nothing new took %d commits", after-commits)
	}
	huge := strings.Repeat("x", storage.MaxValueSize)
	if _, err := s.store.UpdateProfile(s.Context(), f.UserID, storage.ProfileChange{Nickname: &huge}); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("huge nickname: %v", err)
	}
	empty := ""
	if user, err := s.store.UpdateProfile(s.Context(), f.UserID, storage.ProfileChange{Picture: &empty}); err != nil || user.Profile.Picture != "" {
		s.Errorf("emptied picture: %+v, %v", user, err)
	}
	if _, err := s.store.UpdateProfile(s.Context(), storage.NewUserID(), storage.ProfileChange{Nickname: &nick}); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("unknown user: %v", err)
	}
}

func (s *suite) createAccount() {
	create := func(username, externalID string) storage.AccountResult {
		s.Helper()
		res, err := s.store.CreateAccount(s.Context(), storage.NewAccount{
			Username: username, PasswordHash: "hash", ExternalID: externalID, Profile: storage.Profile{Nickname: "nick"},
		})
		s.must(err)
		return res
	}
	ids := map[string]string{}
	for _, c := range []struct {
		username, externalID string
		want                 storage.AccountVerdict
		same                 string // the account that exists
	}{
		{"ming", "x-1", storage.AccountCreated, ""},
		{"ming", "x-1", storage.AccountExists, "ming/x-1"},
		{"ming", "x-2", storage.AccountUsernameTaken, ""},
		{"ming", "", storage.AccountUsernameTaken, ""},
		{"li", "x-1", storage.AccountExternalIDTaken, ""},
		{"", "x-1", storage.AccountExternalIDTaken, ""},
		{"li", "", storage.AccountCreated, ""},
		{"li", "", storage.AccountUsernameTaken, ""},
		{"li", "x-1", storage.AccountUsernameTaken, ""},
		{"", "x-3", storage.AccountCreated, ""},
		{"", "x-3", storage.AccountExists, "/x-3"},
		{"wang", "x-3", storage.AccountExternalIDTaken, ""},
	} {
		commits := s.store.Stats().Commits
		res := create(c.username, c.externalID)
		if res.Verdict != c.want {
			s.Errorf("%q, %q: verdict %d, want %d", c.username, c.externalID, res.Verdict, c.want)
			continue
		}
		wrote := s.store.Stats().Commits - commits
		switch c.want {
		case storage.AccountCreated:
			ids[c.username+"/"+c.externalID] = res.UserID
			user := s.user(res.UserID)
			if user.Username != c.username || user.ExternalID != c.externalID || !user.HasPassword || user.Profile.Nickname != "nick" || wrote != 1 {
				s.Errorf("%q, %q: user %+v after %d commits", c.username, c.externalID, user, wrote)
			}
		default:
			if res.UserID != ids[c.same] || wrote != 0 {
				s.Errorf("%q, %q: user %q, want %q; %d commits", c.username, c.externalID, res.UserID, ids[c.same], wrote)
			}
		}
	}
	if _, err := s.store.CreateAccount(s.Context(), storage.NewAccount{PasswordHash: "hash"}); err == nil {
		s.Error("an account without a name")
	}
	s.check()
}

func (s *suite) passwords() {
	id := s.account("ming")
	want := func(hash string) {
		s.Helper()
		account, err := s.store.AccountByUsername(s.Context(), "ming")
		if err != nil || account.UserID != id || account.PasswordHash != hash || account.Disabled {
			s.Errorf("account %+v, %v", account, err)
		}
	}
	set := func(oldHash, newHash string, end, ok bool) {
		s.Helper()
		if swapped, err := s.store.SetPassword(s.Context(), id, oldHash, newHash, end); err != nil || swapped != ok {
			s.Errorf("SetPassword(%q, %q) = %v, %v", oldHash, newHash, swapped, err)
		}
	}
	want("hash of ming")
	f := s.wantOK(bound(request("o1"), id)).Family
	set("another", "new", true, false)
	set("", "new", true, false)
	want("hash of ming")
	s.wantAccess(f.ID, "", storage.AccessActive)
	set("hash of ming", "upgraded", false, true)
	want("upgraded")
	s.wantRotate(f.ID, 0, 0, storage.RotateOK)
	set("upgraded", "changed", true, true) // threat 23
	s.wantRotate(f.ID, 1, 0, storage.RotateRevoked)
	s.wantAccess(f.ID, "", storage.AccessFamilyRevoked)
	if stored, err := s.store.Family(s.Context(), f.ID); err != nil || stored.RevokedFor != storage.RevokedForPassword {
		s.Errorf("family %+v, %v", stored, err)
	}
	set("changed", "", false, true)
	want("")
	if s.user(id).HasPassword {
		s.Error("the password is still there")
	}
	set("", "first", false, true)
	want("first")
	s.must(s.store.SetUserDisabled(s.Context(), id, true))
	if account, err := s.store.AccountByUsername(s.Context(), "ming"); err != nil || !account.Disabled {
		s.Errorf("disabled account %+v, %v", account, err)
	}
	for _, name := range []string{"", "Ming", "li"} {
		if _, err := s.store.AccountByUsername(s.Context(), name); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("username %q: %v", name, err)
		}
	}
	if _, err := s.store.SetPassword(s.Context(), storage.NewUserID(), "", "x", false); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("SetPassword of an unknown user: %v", err)
	}
	won := 0
	for _, swapped := range collect(s, callers, func(i int) (bool, error) {
		return s.store.SetPassword(s.Context(), id, "first", fmt.Sprint("hash", i), false)
	}) {
		if swapped {
			won++
		}
	}
	if won != 1 {
		s.Errorf("%d changes of one hash", won)
	}
}

func (s *suite) concurrentAccounts() {
	won := 0
	for _, res := range collect(s, callers, func(i int) (storage.AccountResult, error) {
		return s.store.CreateAccount(s.Context(), storage.NewAccount{Username: "ming", PasswordHash: fmt.Sprint(i)})
	}) {
		if res.Verdict == storage.AccountCreated {
			won++
		} else if res.Verdict != storage.AccountUsernameTaken {
			s.Errorf("%+v", res)
		}
	}
	if won != 1 {
		s.Errorf("%d accounts with one username", won)
	}
	ids := map[string]int{}
	for _, res := range collect(s, callers, func(int) (storage.AccountResult, error) {
		return s.store.CreateAccount(s.Context(), storage.NewAccount{Username: "li", ExternalID: "x-1"})
	}) {
		ids[res.UserID]++
	}
	if len(ids) != 1 {
		s.Errorf("%d users of one import", len(ids))
	}
	s.check()
}
