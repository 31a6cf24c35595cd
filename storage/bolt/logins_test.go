//go:build unix

package bolt

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxidp/wxidp/storage"
)

func tokenOf(name string) (d storage.Digest) {
	copy(d[:], name)
	return d
}

// browserRows are what a test left behind of a browser's sign-in.
type browserRows struct {
	login  storage.LoginSession
	family storage.Family // what the code named "code" was exchanged for
	ended  storage.Family // of another login session, whose client is to be told
}

func startLogin(t *testing.T, s *Store, user storage.User, token string) storage.LoginSession {
	t.Helper()
	res, err := s.StartLogin(t.Context(), storage.LoginStart{
		Account: storage.Binding{UserID: user.ID, Epoch: user.Epoch}, Session: storage.LoginSession{Token: tokenOf(token), Browser: "Firefox, Linux"},
		Idle: time.Hour, Absolute: 24 * time.Hour,
	})
	if err != nil || res.Verdict != storage.LoginOK {
		t.Fatalf("StartLogin = %+v, %v", res, err)
	}
	return res.Session
}

func redeemFor(t *testing.T, s *Store, login storage.LoginSession, code string, remember bool) storage.RedeemResult {
	t.Helper()
	verdict, err := s.IssueCode(t.Context(), storage.CodeIssue{
		Code: tokenOf(code), Lifetime: time.Minute, Remember: remember,
		Grant: storage.Grant{UserID: login.UserID, UserEpoch: login.UserEpoch, ClientID: "shop-web", LoginID: login.ID, Scope: []string{"openid"}},
	})
	if err != nil || verdict != storage.CodeOK {
		t.Fatal(verdict, err)
	}
	return redeemAgain(t, s, code)
}

func redeemAgain(t *testing.T, s *Store, code string) storage.RedeemResult {
	t.Helper()
	res, err := s.Redeem(t.Context(), storage.Redemption{
		Code: tokenOf(code), ClientID: "shop-web", Idle: time.Hour, Absolute: time.Hour, Remember: time.Hour,
	})
	must(t, err)
	return res
}

// browse leaves a row of every kind that browsers need.
func browse(t *testing.T, s *Store, username string) (b browserRows) {
	t.Helper()
	account, err := s.CreateAccount(t.Context(), storage.NewAccount{Username: username})
	must(t, err)
	user := storage.User{ID: account.UserID}
	b.login = startLogin(t, s, user, "token of "+username)
	b.family = redeemFor(t, s, b.login, "code", true).Family
	over := startLogin(t, s, user, "over")
	b.ended = redeemFor(t, s, over, "another code", false).Family
	if found, err := s.EndLogin(t.Context(), over.ID, []string{"shop-web"}); !found || err != nil {
		t.Fatal(found, err)
	}
	if stored, err := s.PutState(t.Context(), storage.StateTicket, tokenOf("ticket"), []byte("value"), time.Hour); !stored || err != nil {
		t.Fatal(stored, err)
	}
	return b
}

// check holds that all of it is there.
func (b *browserRows) check(t *testing.T, s *Store) {
	t.Helper()
	login, err := s.Login(t.Context(), b.login.Token)
	if err != nil || login.ID != b.login.ID || login.Browser != b.login.Browser || len(login.Participants) != 1 {
		t.Errorf("login session %+v, %v", login, err)
	}
	if f, err := s.Family(t.Context(), b.family.ID); err != nil || !reflect.DeepEqual(f, b.family) {
		t.Errorf("family %+v, %v, want %+v", f, err, b.family)
	}
	if f, err := s.Family(t.Context(), b.ended.ID); err != nil || f.RevokedFor != storage.RevokedForLogout {
		t.Errorf("family %+v, %v", f, err)
	}
	if due, err := s.DueLogouts(t.Context(), 10); err != nil || len(due) != 1 || due[0].FamilyID != b.ended.ID {
		t.Errorf("notices %+v, %v", due, err)
	}
	if state, err := s.State(t.Context(), storage.StateTicket, tokenOf("ticket")); err != nil || string(state.Value) != "value" || state.Version != 1 {
		t.Errorf("document %+v, %v", state, err)
	}
	if list, err := s.Consents(t.Context(), b.login.UserID); err != nil || len(list) != 1 || list[0].ClientID != "shop-web" {
		t.Errorf("consents %+v, %v", list, err)
	}
	checkPeople(t, s)
}

// What was acknowledged is there after a restart, and in every copy.
func TestBrowserRowsAreDurable(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s := openStore(t, Options{Path: path, Keyring: ring})
	b := browse(t, s, "ming")
	b.check(t, s)
	must(t, s.Close())
	s = openStore(t, Options{Path: path, Keyring: ring})
	b.check(t, s)
	must(t, s.Compact(t.Context()))
	b.check(t, s)
	restored := openStore(t, Options{Path: backup(t, s), Keyring: ring})
	b.check(t, restored)
	for _, s := range []*Store{s, restored} {
		if res := redeemAgain(t, s, "code"); res.Verdict != storage.RedeemUsed || res.Family.ID != b.family.ID {
			t.Errorf("a replay after a restart: %+v", res)
		}
	}
}

// A file from before there were browsers opens, and learns of them.
func TestOpenMakesMissingBuckets(t *testing.T) {
	ring, path := newKeyring(t), newPath(t)
	s := openStore(t, Options{Path: path, Keyring: ring})
	res, err := s.SignIn(t.Context(), signInRequest("o1"))
	must(t, err)
	must(t, s.Close())
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets[16:] {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, db.Close())
	s = openStore(t, Options{Path: path, Keyring: ring})
	if f, err := s.Family(t.Context(), res.Family.ID); err != nil || !reflect.DeepEqual(f, res.Family) {
		t.Errorf("family %+v, %v", f, err)
	}
	b := browse(t, s, "ming")
	b.check(t, s)
}

// Of an erased user's browsers nothing is left in the file but ids.
func TestThreat88ErasedBrowsersAreGone(t *testing.T) {
	s := openStore(t, Options{})
	b := browse(t, s, "ming")
	if !bytes.Contains(fileBytes(t, s), []byte(b.login.Browser)) {
		t.Fatal("the search does not find the browser")
	}
	if found, err := s.Erase(t.Context(), b.login.UserID); !found || err != nil {
		t.Fatal(found, err)
	}
	must(t, s.Compact(t.Context()))
	checkPeople(t, s)
	rows := dumpRows(t, s)
	for _, bucket := range [][]byte{bucketLogins, bucketLoginsByUser, bucketLoginTokens, bucketConsents} {
		if left := rows[string(bucket)]; len(left) > 0 {
			t.Errorf("%s: %d rows are left", bucket, len(left))
		}
	}
	for _, value := range []string{b.login.Browser, string(b.login.Token[:])} {
		if bytes.Contains(fileBytes(t, s), []byte(value)) {
			t.Errorf("%q is still there", value)
		}
	}
}

// Tokens and codes are found by digests, which is all that the file has.
func TestBrowserOperationsWriteLittle(t *testing.T) {
	s := openStore(t, Options{})
	b := browse(t, s, "ming")
	changes := func(name, want string, do func(ctx context.Context) error) {
		t.Helper()
		before, commits := dumpRows(t, s), s.Stats().Commits
		must(t, do(t.Context()))
		if got := strings.Join(changedBuckets(before, dumpRows(t, s)), " "); got != want {
			t.Errorf("%s changed %q, want %q", name, got, want)
		}
		if n := s.Stats().Commits - commits; n > 1 || (n == 1) != (want != "") {
			t.Errorf("%s took %d commits", name, n)
		}
	}
	grant := storage.Grant{UserID: b.login.UserID, ClientID: "shop-web", LoginID: b.login.ID}
	changes("a code", "codes expiry", func(ctx context.Context) error {
		_, err := s.IssueCode(ctx, storage.CodeIssue{Code: tokenOf("c"), Grant: grant, Lifetime: time.Minute})
		return err
	})
	changes("a redemption", "codes expiry families families_by_user logins", func(context.Context) error {
		redeemAgain(t, s, "c")
		return nil
	})
	changes("a replay", "families", func(context.Context) error { redeemAgain(t, s, "c"); return nil })
	changes("another replay", "", func(context.Context) error { redeemAgain(t, s, "c"); return nil })
	changes("a touch", "logins", func(ctx context.Context) error { return s.TouchLogin(ctx, b.login.ID, 2*time.Hour) })
	changes("a refresh", "families", func(ctx context.Context) error {
		_, err := s.Rotate(ctx, storage.Rotation{FamilyID: b.family.ID, ClientID: "shop-web", Idle: time.Hour})
		return err
	})
	changes("a swap", "states", func(ctx context.Context) error {
		_, err := s.SwapState(ctx, storage.StateTicket, tokenOf("ticket"), 1, []byte("x"))
		return err
	})
	changes("the end", "login_tokens logins logouts logouts_due", func(ctx context.Context) error {
		_, err := s.EndLogin(ctx, b.login.ID, []string{"shop-web"})
		return err
	})
	changes("no end", "", func(ctx context.Context) error {
		_, err := s.EndLogin(ctx, b.login.ID, []string{"shop-web"})
		return err
	})
}

// A login session whose row is damaged lets nobody in, and what it should have
// ended is not taken for alive; other notices are still delivered beside a
// damaged one.
func TestDamagedBrowserRows(t *testing.T) {
	s := openStore(t, Options{Keyring: newKeyring(t), Path: filepath.Join(t.TempDir(), "data", "wxidp.db")})
	b := browse(t, s, "ming")
	damaged := storage.NewLogoutID()
	damaged[0] = 0 // the first one
	must(t, s.QueueLogouts(t.Context(), []storage.LogoutNotice{{ID: damaged, ClientID: "x"}}))
	must(t, s.write(t.Context(), func(tx txn) (bool, error) {
		var w writes
		w.put(tx, bucketLogins, b.login.ID[:], []byte{99})
		w.put(tx, bucketLogouts, damaged[:], []byte{99})
		code := tokenOf("code")
		w.put(tx, bucketCodes, code[:], []byte{99})
		return true, w.err
	}))
	_, login := s.Login(t.Context(), b.login.Token)
	_, access := s.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: b.family.ID})
	_, rotate := s.Rotate(t.Context(), storage.Rotation{FamilyID: b.family.ID, ClientID: "shop-web"})
	_, redeem := s.Redeem(t.Context(), storage.Redemption{Code: tokenOf("code"), ClientID: "shop-web"})
	for name, err := range map[string]error{"Login": login, "CheckAccess": access, "Rotate": rotate, "Redeem": redeem} {
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if due, err := s.DueLogouts(t.Context(), 10); err != nil || len(due) != 1 || due[0].FamilyID != b.ended.ID {
		t.Errorf("notices %+v, %v", due, err)
	}
}

// A user's listing of login sessions looks at a bounded number of rows in one
// go, and shows none that only seems to be the user's.
func TestPageLoginsIsBounded(t *testing.T) {
	s := openStore(t, Options{Path: fastPath(t)})
	var users [2]storage.User
	for i, name := range []string{"ming", "li"} {
		account, err := s.CreateAccount(t.Context(), storage.NewAccount{Username: name})
		must(t, err)
		users[i].ID = account.UserID
	}
	first, stranger := startLogin(t, s, users[0], "1"), startLogin(t, s, users[1], "2")
	shard, mark := userShard(users[0].ID)
	foreign := make([]byte, len(mark))
	must(t, s.write(t.Context(), func(tx txn) (bool, error) {
		var w writes
		for n := range maxScan + 10 {
			id := storage.NewLoginID()
			id[15], id[14], id[13] = byte(n), byte(n>>8), byte(n>>16)
			w.put(tx, bucketLoginsByUser, append([]byte{shard}, id[:]...), foreign)
		}
		w.put(tx, bucketLoginsByUser, append([]byte{shard}, stranger.ID[:]...), mark) // the same mark by chance
		return true, w.err
	}))
	second := startLogin(t, s, users[0], "3")
	page, next, err := s.PageLogins(t.Context(), users[0].ID, "", 10)
	if err != nil || next == "" || len(page) != 1 || page[0].ID != first.ID {
		t.Fatalf("first page %+v, %q, %v", page, next, err)
	}
	page, next, err = s.PageLogins(t.Context(), users[0].ID, next, 10)
	if err != nil || next != "" || len(page) != 1 || page[0].ID != second.ID {
		t.Errorf("second page %+v, %q, %v", page, next, err)
	}
}
