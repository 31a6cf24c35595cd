package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wxidp/wxidp/storage"
)

func (s *suite) imports() {
	row := func(app, openID, unionID, externalID string) storage.ImportRow {
		return storage.ImportRow{AppID: app, WeChatOpenID: openID, UnionID: unionID, OpenPlatform: platform, ExternalID: externalID,
			Profile: storage.Profile{Nickname: "nick of " + externalID}}
	}
	run := func(rows ...storage.ImportRow) []storage.ImportVerdict {
		s.Helper()
		verdicts, err := s.store.ImportUsers(s.Context(), rows, false)
		s.must(err)
		s.check()
		return verdicts
	}
	signedIn := s.wantOK(union(appID, "o-signed-in", platform, "u-signed-in"))
	disabled := s.wantOK(external(inApp(otherApp, "o-disabled"), "x-disabled"))
	s.must(s.store.SetUserDisabled(s.Context(), disabled.UserID, true))
	rows := []storage.ImportRow{
		row(appID, "o1", "u1", "x-1"),
		row(otherApp, "o2", "u1", "x-1"),
		row(appID, "o1", "u1", "x-1"),
		row(appID, "o1", "u1", "x-2"),
		row("wx3", "o3", "u1", "x-2"),
		row(appID, "o4", "", "x-1"),
		row(appID, "o-signed-in", "", "x-3"),
		row(otherApp, "o5", "u-signed-in", "x-3"),
		row(appID, "o6", "", "x-disabled"),
		row(appID, "o7", "", "x-4"),
		row(appID, "o7", "u7", "x-4"),
		row(appID, "o7", "u8", "x-4"),
		row("wx4", "o10", "u-signed-in", "x-1"),
	}
	want := []storage.ImportVerdict{
		storage.ImportCreated, storage.ImportLinked, storage.ImportUnchanged, storage.ImportIdentityTaken, storage.ImportUnionIDTaken, storage.ImportSameApp,
		storage.ImportLinked, storage.ImportLinked, storage.ImportDisabled, storage.ImportCreated, storage.ImportLinked, storage.ImportUnionIDTaken,
		storage.ImportUnionIDTaken,
	}
	commits, none := s.store.Stats().Commits, s.rows()
	if got, err := s.store.ImportUsers(s.Context(), rows, true); err != nil || !slices.Equal(got, want) {
		s.Errorf("rehearsed verdicts %v, %v, want %v", got, err, want)
	}
	if s.store.Stats().Commits != commits || s.rows() != none {
		s.Error("a rehearsal wrote")
	}
	if got := run(rows...); !slices.Equal(got, want) {
		s.Errorf("verdicts %v, want %v", got, want)
	}
	if n := s.store.Stats().Commits - commits; n != 1 {
		s.Errorf("%d commits", n)
	}
	again := slices.Clone(want)
	for _, i := range []int{0, 1, 6, 7, 9, 10} {
		again[i] = storage.ImportUnchanged
	}
	count := s.rows()
	if got := run(rows...); !slices.Equal(got, again) {
		s.Errorf("verdicts again %v, want %v", got, again)
	}
	if n := s.store.Stats().Commits - commits; n != 1 || s.rows() != count {
		s.Errorf("the same import again wrote: %d commits", n-1)
	}
	res := s.wantOK(union("wx3", "o3", platform, "u1"))
	user := s.user(res.UserID)
	if res.Created || user.ExternalID != "x-1" || user.Profile.Nickname != "nick of x-1" {
		s.Errorf("sign-in after the import %+v, %+v", res, user)
	}
	s.wantIdentities(res.UserID, "o1", "o2", "o3")
	s.wantIdentities(signedIn.UserID, "o-signed-in", "o5")
	if user := s.user(signedIn.UserID); user.ExternalID != "x-3" || user.Profile.Nickname != "nick of o-signed-in" {
		s.Errorf("who signed in before the import is %+v", user)
	}

	// Two who signed in before the import, of whom a row makes one.
	for _, in := range []storage.SignIn{request("o-a"), union(otherApp, "o-b", platform, "u-b")} {
		s.wantOK(in)
	}
	if got := run(row(appID, "o-a", "u-b", "x-9")); got[0] != storage.ImportUnionIDTaken {
		s.Errorf("verdict %d", got[0])
	}
	if user, err := s.store.UserBy(s.Context(), storage.IndexExternalID, "x-9"); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("%+v, %v", user, err)
	}
	if _, err := s.store.ImportUsers(s.Context(), make([]storage.ImportRow, storage.MaxImport+1), false); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("too many rows: %v", err)
	}
	commits = s.store.Stats().Commits
	if _, err := s.store.ImportUsers(s.Context(), []storage.ImportRow{row(appID, "o8", "", "x-8"), row(appID, "o9", "", "")}, false); err == nil {
		s.Error("a row without an external id was taken")
	}
	if verdicts := run(); len(verdicts) != 0 || s.store.Stats().Commits != commits {
		s.Errorf("an empty import: %v", verdicts)
	}
	many := make([]storage.ImportRow, storage.MaxImport)
	for i := range many {
		many[i] = row(appID, fmt.Sprint("many", i), "", fmt.Sprint("many", i))
	}
	for i, verdict := range run(many...) {
		if verdict != storage.ImportCreated {
			s.Fatalf("row %d: %d", i, verdict)
		}
	}
}

func (s *suite) importAccounts() {
	row := func(username, hash, externalID, openID string) storage.ImportRow {
		r := storage.ImportRow{Username: username, PasswordHash: hash, ExternalID: externalID, Profile: storage.Profile{Nickname: "nick of " + username}}
		if openID != "" {
			r.AppID, r.WeChatOpenID = appID, openID
		}
		return r
	}
	upgraded := s.account("upgraded")
	rows := []storage.ImportRow{
		row("ming", "h1", "x-1", "o1"),
		row("ming", "h2", "x-1", "o1"),
		row("ming", "h1", "x-2", ""),
		row("ming", "h1", "", ""),
		row("li", "h1", "x-1", ""),
		row("wang", "h3", "", ""),
		row("wang", "h3", "", ""),
		row("wang", "h4", "", ""),    // as after h3 was replaced
		row("wang", "h3", "x-5", ""), // nobody says that they are one
		row("", "", "x-3", "o3"),
		row("zhao", "h5", "x-3", ""),
		row("zhao", "h5", "x-4", "o4"),
		row("upgraded", "another hash", "", ""),
	}
	want := []storage.ImportVerdict{
		storage.ImportCreated, storage.ImportUnchanged, storage.ImportUsernameTaken, storage.ImportUsernameTaken, storage.ImportOtherUsername,
		storage.ImportCreated, storage.ImportUnchanged, storage.ImportUnchanged, storage.ImportUsernameTaken,
		storage.ImportCreated, storage.ImportLinked, storage.ImportUsernameTaken, storage.ImportUnchanged,
	}
	for _, again := range []bool{false, true} {
		if again {
			for i, verdict := range want {
				if verdict == storage.ImportCreated || verdict == storage.ImportLinked {
					want[i] = storage.ImportUnchanged
				}
			}
		}
		got, err := s.store.ImportUsers(s.Context(), rows, false)
		s.must(err)
		s.check()
		if !slices.Equal(got, want) {
			s.Errorf("again %v: verdicts %v, want %v", again, got, want)
		}
	}
	for username, hash := range map[string]string{"ming": "h1", "wang": "h3", "zhao": "h5", "upgraded": "hash of upgraded"} {
		if account, err := s.store.AccountByUsername(s.Context(), username); err != nil || account.PasswordHash != hash {
			s.Errorf("%s: %+v, %v", username, account, err)
		}
	}
	for _, by := range []struct {
		kind         storage.IndexKind
		value, other string
	}{{storage.IndexUsername, "zhao", "zha"}, {storage.IndexExternalID, "x-3", "x-4"}} {
		user, err := s.store.UserBy(s.Context(), by.kind, by.value)
		if err != nil || user.Username != "zhao" || user.ExternalID != "x-3" || user.Identities != 1 || !user.HasPassword || user.Profile.Nickname != "nick of " {
			s.Errorf("%d %q: %+v, %v", by.kind, by.value, user, err)
		}
		if user, err := s.store.UserBy(s.Context(), by.kind, by.other); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%d %q: %+v, %v", by.kind, by.other, user, err)
		}
	}
	if user := s.user(upgraded); user.Identities != 0 || !user.HasPassword {
		s.Errorf("%+v", user)
	}
	// A number leads to its user, and no other value does.
	in := request("o-phone")
	in.Phone = &storage.PhoneProof{E164: "+8613800138000", VerifiedAt: time.Now(), SignIn: true}
	res := s.wantOK(in)
	if user, err := s.store.UserBy(s.Context(), storage.IndexPhone, "+8613800138000"); err != nil || user.ID != res.UserID || user.Identities != 1 {
		s.Errorf("by phone: %+v, %v", user, err)
	}
	for kind, value := range map[storage.IndexKind]string{
		storage.IndexPhone: "", storage.IndexUnionID: "u1", storage.IndexUsername: "+8613800138000", storage.IndexExternalID: "", 0: "x-1", 99: "x-1",
	} {
		if user, err := s.store.UserBy(s.Context(), kind, value); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%d %q: %+v, %v", kind, value, user, err)
		}
	}
	for _, bad := range []storage.ImportRow{{}, {Username: "a"}, {PasswordHash: "h"}, {AppID: appID, ExternalID: "x"}, {AppID: appID, WeChatOpenID: "o"},
		{WeChatOpenID: "o", ExternalID: "x"}, {Username: "a", PasswordHash: "h", AppID: appID, WeChatOpenID: "o9"}} {
		if _, err := s.store.ImportUsers(s.Context(), []storage.ImportRow{row("sound", "h", "", ""), bad}, false); err == nil {
			s.Errorf("%+v was taken", bad)
		}
	}
	if _, err := s.store.AccountByUsername(s.Context(), "sound"); !errors.Is(err, storage.ErrNotFound) {
		s.Errorf("a row beside one that cannot be: %v", err)
	}
}
