package storagetest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// pastSecond waits until what expired is surely deleted, too: an engine may
// keep expiry to the second.
func (s *suite) pastSecond() {
	s.outlive()
	time.Sleep(1100 * time.Millisecond)
}

// brief signs somebody in for a short time and returns the family.
func (s *suite) brief(openID string) storage.Family {
	in := request(openID)
	in.Absolute = s.short()
	in.Idempotency = &storage.Idempotency{Key: digest(in.Family.ID), Lifetime: s.short()}
	return s.signIn(in).Family
}

func (s *suite) gc() {
	live := s.family("o-live")
	s.put(kindA, "live", "v", long)
	s.must(s.store.DenyJTI(s.Context(), "live", time.Now().Add(long)))
	in := request("o-live")
	in.Idempotency = &storage.Idempotency{Key: digest("live"), Lifetime: long}
	s.signIn(in)
	if n := s.collectGarbage(100); n != 0 {
		s.Fatalf("%d live records were deleted", n)
	}
	base := s.rows()

	const each = 15
	var expiring []storage.Family
	for i := range each {
		expiring = append(expiring, s.brief("o-live"))
		s.put(kindA, fmt.Sprint("brief", i), "v", s.short())
		s.must(s.store.DenyJTI(s.Context(), fmt.Sprint("brief", i), time.Now().Add(s.short())))
	}
	s.consume(kindA, "brief3")
	if found, err := s.store.RevokeFamily(s.Context(), expiring[4].ID, "logout"); err != nil {
		s.Fatal(found, err)
	}
	s.pastSecond()
	n, more, err := s.store.DeleteExpired(s.Context(), 7)
	s.must(err)
	if n > 7 || !more {
		s.Errorf("first batch of 7: %d deleted, more %v", n, more)
	}
	if total := n + s.collectGarbage(7); total != 4*each {
		s.Errorf("%d records deleted, want %d", total, 4*each)
	}
	commits := s.store.Stats().Commits
	if n := s.collectGarbage(100); n != 0 {
		s.Errorf("%d records deleted when all was done", n)
	}
	if got := s.store.Stats().Commits - commits; got != 0 {
		s.Errorf("looking for nothing took %d commits", got)
	}
	if rows := s.rows(); rows != base {
		s.Errorf("%d rows are left, %d before", rows, base)
	}
	for _, f := range expiring {
		if _, err := s.store.Family(s.Context(), f.ID); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("expired family: %v", err)
		}
		s.wantAccess(f.ID, "", storage.AccessFamilyMissing)
	}
	if got := s.familyPages(live.UserID, 100); len(got) != 2 {
		s.Errorf("%d families are listed, want 2", len(got))
	}
	s.wantAccess(live.ID, "live", storage.AccessDenied)
	s.wantRotate(live.ID, 0, 0, storage.RotateOK)
	if _, verdict := s.consume(kindA, "live"); verdict != storage.ConsumeOK {
		s.Errorf("live item: %d", verdict)
	}
	if _, ok, err := s.store.Idempotency(s.Context(), digest("live")); !ok || err != nil {
		s.Errorf("live idempotency record: %v, %v", ok, err)
	}
}

func (s *suite) rows() int {
	if s.Rows == nil {
		return 0
	}
	return s.Rows(s.T, s.store)
}

// gcMovedOn holds that a family that was refreshed outlives the time at which
// it would otherwise have expired, and is deleted in the end.
func (s *suite) gcMovedOn() {
	in := request("o1")
	in.Idle = s.short()
	if !s.Bubble {
		in.Idle = 5 * time.Second // must not expire before the rotation
	}
	base := s.rows()
	f := s.signIn(in).Family
	res, err := s.store.Rotate(s.Context(), storage.Rotation{FamilyID: f.ID, ClientID: clientID, Idle: 10 * in.Idle})
	s.must(err)
	if res.Verdict != storage.RotateOK {
		s.Fatalf("verdict %d", res.Verdict)
	}
	time.Sleep(in.Idle + 1100*time.Millisecond)
	if n := s.collectGarbage(10); n != 0 {
		s.Fatalf("%d records deleted", n)
	}
	s.wantAccess(f.ID, "", storage.AccessActive)
	if !s.Bubble {
		return
	}
	time.Sleep(9*in.Idle + 1100*time.Millisecond)
	if n := s.collectGarbage(10); n != 1 {
		s.Errorf("%d records deleted at the end, want the family", n)
	}
	if s.Rows != nil && s.rows() != base+2 {
		s.Errorf("%d rows, want user and identity above %d", s.rows(), base)
	}
}

// personal holds that nothing personal lies open on disk.
func (s *suite) personal() {
	if s.Dump == nil {
		s.Skip("the backend has no dump to search")
	}
	in := Canary(appID)
	res := s.wantOK(in)
	s.signIn(union(otherApp, in.WeChatOpenID+"other", platform, in.UnionID))
	s.signIn(union(otherApp, in.WeChatOpenID+"later", platform, ""))
	s.signIn(union(otherApp, in.WeChatOpenID+"later", platform, in.UnionID+"later"))
	s.wantRotate(res.Family.ID, 0, 0, storage.RotateOK)
	account, err := s.store.CreateAccount(s.Context(), storage.NewAccount{Username: canaryUsername, PasswordHash: canaryHash})
	s.must(err)
	if account.Verdict != storage.AccountCreated {
		s.Fatalf("CreateAccount = %+v", account)
	}
	merged, err := s.store.Merge(s.Context(), account.UserID, res.UserID, false)
	if err != nil || merged.Verdict != storage.MergeOK {
		s.Fatalf("Merge = %+v, %v", merged, err)
	}
	dump := s.Dump(s.T, s.store)
	if !bytes.Contains(dump, []byte(res.UserID)) {
		s.Fatal("the dump does not show what it should, such as the user's id")
	}
	for _, canary := range Canaries() {
		for _, form := range []string{canary, url.QueryEscape(canary), base64.StdEncoding.EncodeToString([]byte(canary))} {
			if bytes.Contains(dump, []byte(form)) {
				s.Errorf("%q lies open", form)
			}
		}
	}
	user := s.user(res.UserID)
	if user.Profile != in.Bind.Profile || user.Username != canaryUsername || user.Phone != in.Phone.E164 || user.ExternalID != in.Bind.ExternalID ||
		!reflect.DeepEqual(user.Attributes, in.Bind.Attributes) {
		s.Errorf("user %+v", user)
	}
	if keys, err := s.store.SessionKeys(s.Context(), res.Family.Identity); err != nil || len(keys) != 1 || keys[0].Value.Reveal() != in.SessionKey.Reveal() {
		s.Errorf("session_keys %v, %v", keys, err)
	}
	if text := fmt.Sprintf("%+v %#v", in, in); strings.Contains(text, in.SessionKey.Reveal()) {
		s.Error("a SignIn prints its session_key")
	}
}

const (
	canaryUsername = "canary-username-000000001"
	canaryHash     = "$argon2id$v=19$m=19456,t=2,p=1$Y2FuYXJ5LXNhbHQ$CANARYhash"
)

// Canary is a sign-in whose personal values can be told from all else.
func Canary(app string) storage.SignIn {
	in := union(app, "oCANARYopenid000000000000001", platform, "uCANARYunionid0000000000001")
	in.SessionKey, in.SessionKeyLifetime = secret.New("CANARYsessionkey00000=="), long
	in.Phone = &storage.PhoneProof{E164: "+8613812340000"}
	in.Bind = &storage.Binding{
		ExternalID: "external-canary-0000001",
		Profile:    storage.Profile{Nickname: "CANARY小明", Picture: "https://canary.example/picture.png"},
		Attributes: storage.Attributes{Roles: []string{"canary-role-00001"}, Claims: map[string]string{"canary-claim-00001": `"canary-value-00001"`}},
	}
	return in
}

// Canaries are the values of Canary and of the account beside it.
func Canaries() []string {
	in := Canary(appID)
	return []string{
		in.WeChatOpenID, in.UnionID, in.SessionKey.Reveal(), in.Phone.E164, in.Phone.E164[1:], in.Bind.ExternalID, in.Bind.Profile.Nickname,
		in.Bind.Profile.Picture, "canary-role", "canary-claim", "canary-value", canaryUsername, canaryHash, "CANARYhash",
	}
}
