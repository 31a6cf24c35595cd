package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// moveTo copies everything to a new store of a backend, in pages of pageSize
// rows, and returns that store opened anew.
func (s *suite) moveTo(to *Options, pageSize int) *suite {
	s.Helper()
	next := &suite{T: s.T, Options: *to, store: to.Open(s.T)}
	for _, kind := range storage.RowKinds() {
		for _, page := range s.rowPages(kind, pageSize) {
			s.must(next.movable().ImportRows(s.Context(), page))
		}
	}
	next.store = to.Reopen(s.T, next.store)
	next.wantRows(s.allRows())
	return next
}

func (s *suite) movable() storage.Movable {
	movable, ok := s.store.(storage.Movable)
	if !ok {
		s.Fatal("the store cannot be moved")
	}
	return movable
}

// rowPages returns all rows of a kind in pages of up to limit.
func (s *suite) rowPages(kind storage.RowKind, limit int) (pages [][]storage.Row) {
	s.Helper()
	var after []byte
	for {
		rows, next, err := s.movable().ExportRows(s.Context(), kind, after, limit)
		s.must(err)
		if len(rows) > limit || next != nil && (len(rows) == 0 || !bytes.Equal(next, rows[len(rows)-1].Key)) {
			s.Fatalf("a page of %d %s, limit %d, next %x", len(rows), kind, limit, next)
		}
		pages = append(pages, rows)
		if next == nil {
			return pages
		}
		after = next
	}
}

// allRows returns all rows in the order of kinds and keys.
func (s *suite) allRows() (all []storage.Row) {
	s.Helper()
	for _, kind := range storage.RowKinds() {
		rows := slices.Concat(s.rowPages(kind, 1000)...)
		for i, row := range rows {
			if row.Kind != kind || i > 0 && bytes.Compare(rows[i-1].Key, row.Key) >= 0 {
				s.Errorf("row %d of %s is out of order: %x", i, kind, row.Key)
			}
			if _, err := row.Decode(); err != nil {
				s.Errorf("a row that cannot be read: %v", err)
			}
		}
		if n, err := s.movable().CountRows(s.Context(), kind); err != nil || n != int64(len(rows)) {
			s.Errorf("%d %s are counted, and there are %d; %v", n, kind, len(rows), err)
		}
		all = append(all, rows...)
	}
	return all
}

func (s *suite) wantRows(want []storage.Row) {
	s.Helper()
	got := s.allRows()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			s.Fatalf("%s: row %x is missing", want[i].Kind, want[i].Key)
		case i >= len(want):
			s.Fatalf("%s: row %x is too much", got[i].Kind, got[i].Key)
		case !reflect.DeepEqual(got[i], want[i]):
			s.Fatalf("%s: row %x is\n%x, want %s: row %x\n%x", got[i].Kind, got[i].Key, got[i].Value, want[i].Kind, want[i].Key, want[i].Value)
		}
	}
}

// household is what a store was filled with, to be found again after a move.
type household struct {
	shopper, joined, disabled, withKeys storage.Family
	ended                               storage.Family // revoked, and another one of a client that has ended
	ofEndedClient                       storage.Family
	ming                                string // has an account, login sessions and consents
	retired                             string
	login                               storage.LoginSession
	offline, online                     storage.Family // signed in through login
	fresh, spent                        storage.Redemption
	idempotency                         storage.Idempotency
}

// furnish puts something of every kind into the store.
func (s *suite) furnish() (h household) {
	s.Helper()
	in := union(appID, "o1", platform, "u1")
	h.idempotency = storage.Idempotency{Key: digest("idempotency"), Form: digest("form"), Lifetime: long}
	in.Idempotency = &h.idempotency
	in.Phone = &storage.PhoneProof{E164: "+8613800000001", VerifiedAt: time.Now()}
	h.shopper = s.wantOK(external(in, "x-1")).Family
	s.wantRotate(h.shopper.ID, 0, 0, storage.RotateOK)
	h.joined = s.wantOK(union(otherApp, "o1", platform, "u1")).Family
	h.disabled = s.family("o-disabled")
	s.must(s.store.SetUserDisabled(s.Context(), h.disabled.UserID, true))
	h.ended = s.family("o-ended")
	_, err := s.store.RevokeFamily(s.Context(), h.ended.ID, "ended")
	s.must(err)
	in = request("o-keys")
	in.SessionKey, in.SessionKeyLifetime = secret.New("wechat's key"), long
	h.withKeys = s.wantOK(in).Family
	in = request("o-client")
	in.Family.ClientID = "ended-client"
	h.ofEndedClient = s.wantOK(in).Family
	s.must(s.store.RevokeClient(s.Context(), "ended-client", "ended"))
	h.retired = s.family("o-erased").UserID
	_, err = s.store.Erase(s.Context(), h.retired)
	s.must(err)

	h.ming = s.account("ming")
	h.login = s.login(h.ming, "a")
	s.endLogin(s.login(h.ming, "ended").ID, true)
	grant := s.grant(h.login)
	h.online = s.redeemed(grant)
	grant.Offline = true
	h.offline = s.redeemed(grant)
	h.fresh = s.issue("fresh", s.grant(h.login))
	h.spent = s.issue("spent", s.grant(h.login))
	s.wantRedeem(h.spent, storage.RedeemOK)
	s.consent(h.login, otherClient, []string{"openid"}, []string{"nickname"})

	s.put(storage.ItemPushedRequest, "kept", "value", long)
	s.put(storage.ItemPushedRequest, "brief", "value", s.short())
	s.put(storage.ItemClientAssertion, "used", "", long)
	s.consume(storage.ItemClientAssertion, "used")
	s.must(s.store.DenyJTI(s.Context(), "jti", time.Now().Add(long)))
	s.putState(storage.StateTicket, "ticket", "one", long)
	s.swapState(storage.StateTicket, "ticket", 1, "two")
	s.putState(storage.StateTicketName, "empty", "", long)
	s.must(s.store.QueueLogouts(s.Context(), []storage.LogoutNotice{{ClientID: otherClient, UserID: h.ming, FamilyID: h.ended.ID}}))
	for version := range uint64(3) {
		if swapped, err := s.store.SwapRecord(s.Context(), "document", version, fmt.Append(nil, "v", version)); err != nil || !swapped {
			s.Fatal(swapped, err)
		}
	}
	_, err = s.store.SwapRecord(s.Context(), storage.MoveRecord, 0, []byte("stays"))
	s.must(err)
	for _, kind := range storage.RowKinds() {
		if n, err := s.movable().CountRows(s.Context(), kind); err != nil || n == 0 {
			s.Errorf("%d %s, %v", n, kind, err)
		}
	}
	return h
}

// inhabit holds that everything that was put into a store works, in whatever
// store it is now. It uses much of it up.
func (s *suite) inhabit(h household) {
	s.Helper()
	if rec, ok, err := s.store.Idempotency(s.Context(), h.idempotency.Key); err != nil || !ok || rec.FamilyID != h.shopper.ID || rec.Form != h.idempotency.Form {
		s.Errorf("idempotency: %+v, %v, %v", rec, ok, err)
	}
	s.wantRotate(h.shopper.ID, 0, time.Hour, storage.RotateRepeated)
	s.wantRotate(h.shopper.ID, 1, 0, storage.RotateOK)
	s.wantRotate(h.shopper.ID, 0, 0, storage.RotateReused)
	s.wantRotate(h.joined.ID, 0, 0, storage.RotateOK)
	s.wantRotate(h.ended.ID, 0, 0, storage.RotateRevoked)
	s.wantRotate(h.disabled.ID, 0, 0, storage.RotateUserDisabled)
	s.wantAccess(h.ofEndedClient.ID, "", storage.AccessFamilyRevoked)
	s.wantAccess(h.joined.ID, "jti", storage.AccessDenied)
	s.wantAccess(h.joined.ID, "another", storage.AccessActive)
	if f, err := s.store.Family(s.Context(), h.ended.ID); err != nil || f.RevokedFor != "ended" || f.UserID != h.ended.UserID {
		s.Errorf("the family that ended: %+v, %v", f, err)
	}

	// Whoever signs in again is the user they were.
	for _, again := range []storage.SignIn{union(appID, "o1", platform, "u1"), union("wx-third", "o1", platform, "u1"), external(inApp("wx-fourth", "o9"), "x-1")} {
		if res := s.wantOK(again); res.UserID != h.shopper.UserID || res.Created {
			s.Errorf("signed in again: %+v", res)
		}
	}
	user := s.user(h.shopper.UserID)
	if user.Phone != "+8613800000001" || user.ExternalID != "x-1" || user.Profile.Nickname != "nick of x-1" || h.joined.UserID != user.ID {
		s.Errorf("user %+v", user)
	}
	s.wantRetired(h.retired)
	keys, err := s.store.SessionKeys(s.Context(), h.withKeys.Identity)
	if err != nil || len(keys) != 1 || keys[0].Value.Reveal() != "wechat's key" {
		s.Errorf("session_keys: %d, %v", len(keys), err)
	}
	if got := s.familyPages(h.withKeys.UserID, 10); !slices.Equal(got, []string{string(h.withKeys.ID[:])}) {
		s.Errorf("families by user: %v", got)
	}

	s.wantLogin("ended", storage.LoginID{})
	s.wantLogin("a", h.login.ID)
	if got := s.loginPages(h.ming, 10); !slices.Equal(got, []storage.LoginID{h.login.ID}) {
		s.Errorf("login sessions by user: %v", got)
	}
	if list, err := s.store.Consents(s.Context(), h.ming); err != nil || len(list) != 1 || list[0].ClientID != otherClient {
		s.Errorf("consents: %+v, %v", list, err)
	}
	s.wantRedeem(h.fresh, storage.RedeemOK)
	s.wantRedeem(h.fresh, storage.RedeemUsed)
	s.wantRedeem(h.spent, storage.RedeemUsed)
	due, err := s.store.DueLogouts(s.Context(), 0)
	if err != nil || len(due) != 1 || due[0].FamilyID != h.ended.ID {
		s.Errorf("notices: %+v, %v", due, err)
	}
	s.endLogin(h.login.ID, true)
	s.wantAccess(h.online.ID, "", storage.AccessFamilyRevoked)
	s.wantAccess(h.offline.ID, "", storage.AccessActive)

	if value, verdict := s.consume(storage.ItemPushedRequest, "kept"); value != "value" || verdict != storage.ConsumeOK {
		s.Errorf("item: %q, %d", value, verdict)
	}
	if _, verdict := s.consume(storage.ItemClientAssertion, "used"); verdict != storage.ConsumeUsed {
		s.Errorf("used item: %d", verdict)
	}
	s.wantState(storage.StateTicket, "ticket", "two", 2)
	s.wantState(storage.StateTicketName, "empty", "", 1)
	if value, version, err := s.store.Record(s.Context(), "document"); err != nil || string(value) != "v2" || version != 3 {
		s.Errorf("document: %q, %d, %v", value, version, err)
	}
	if value, version, err := s.store.Record(s.Context(), storage.MoveRecord); err != nil || version != 0 {
		s.Errorf("the record of the move moved: %q, %v", value, err)
	}
	s.check()
}

// move holds that a store's rows make the same store elsewhere.
func (s *suite) move() {
	if s.Reopen == nil {
		s.Skip("the backend's tests open no store twice")
	}
	h := s.furnish()
	places := []*Options{&s.Options}
	if s.Other != nil {
		places = append(places, s.Other)
	}
	for _, place := range places {
		s.T.Logf("to %T", s.store)
		there := s.moveTo(place, 3)
		there.check()
		there.moveTo(&s.Options, 1000).inhabit(h) // and back
		if s.Bubble {                             // elsewhere the brief item expires within the second, or after it
			there.outlive()
			before := there.rows()
			if deleted := there.collectGarbage(100); deleted != 1 {
				s.Errorf("%d rows expired", deleted)
			}
			if place.Rows != nil && there.rows() != before-2 {
				s.Errorf("%d rows after expiry, before %d", there.rows(), before)
			}
		}
		there.inhabit(h)
	}
}

// moveAll holds that everything that a moved store has expires in time.
func (s *suite) moveAll() {
	if s.Reopen == nil || !s.Bubble {
		s.Skip("it takes days")
	}
	s.furnish()
	there := s.moveTo(&s.Options, 1000)
	time.Sleep(3 * long)
	there.collectGarbage(100)
	for _, kind := range []storage.RowKind{storage.RowFamily, storage.RowLogin, storage.RowCode, storage.RowIdempotency,
		storage.RowItem, storage.RowDeniedJTI, storage.RowState, storage.RowSessionKeys} {
		if n, err := there.movable().CountRows(s.Context(), kind); err != nil || n != 0 {
			s.Errorf("%d %s are left, %v", n, kind, err)
		}
	}
}

// importRows holds what an import makes of rows that are there already, and
// that it takes no others than those of this version.
func (s *suite) importRows() {
	h := s.furnish()
	all, count := s.allRows(), s.rows()
	s.must(s.movable().ImportRows(s.Context(), nil))
	s.must(s.movable().ImportRows(s.Context(), all))
	s.wantRows(all)
	if s.rows() != count {
		s.Errorf("%d rows, before %d", s.rows(), count)
	}

	// The last one of a key counts, and nothing leads to those before.
	moved := storage.LoginRecord{LoginSession: h.login}
	var rows []storage.Row
	for _, token := range []string{"b", "c"} {
		moved.Token = digest("cookie", token)
		moved.Participants = nil
		rows = append(rows, storage.Row{Kind: storage.RowLogin, Key: h.login.ID[:], Value: storage.EncodeLogin(&moved)})
	}
	rows = append(rows, storage.Row{Kind: storage.RowDeniedJTI, Key: all[0].Key[:0:0], Value: nil})
	if err := s.movable().ImportRows(s.Context(), rows); !errors.Is(err, storage.ErrCorrupt) {
		s.Fatalf("a row without a key: %v", err)
	}
	s.wantRows(all)
	s.must(s.movable().ImportRows(s.Context(), rows[:2]))
	s.wantLogin("a", storage.LoginID{})
	s.wantLogin("b", storage.LoginID{})
	s.wantLogin("c", h.login.ID)
	s.check()

	if err := s.movable().ImportRows(s.Context(), make([]storage.Row, storage.MaxRows+1)); !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("too many rows: %v", err)
	}
	for name, row := range map[string]storage.Row{
		"no kind":            {Kind: 0, Key: []byte("k"), Value: []byte("v")},
		"another kind":       {Kind: storage.RowLogout + 1, Key: []byte("k"), Value: []byte("v")},
		"the move's record":  {Kind: storage.RowRecord, Key: []byte(storage.MoveRecord), Value: make([]byte, 8)},
		"a short key":        {Kind: storage.RowFamily, Key: []byte("k"), Value: storage.EncodeFamily(&h.shopper)},
		"a short value":      {Kind: storage.RowFamily, Key: h.shopper.ID[:], Value: []byte{1}},
		"a name of no text":  {Kind: storage.RowClient, Key: []byte("a\x00"), Value: storage.EncodeClient(&storage.ClientState{Epoch: 1})},
		"an unknown index":   {Kind: storage.RowOwner, Key: storage.OwnerKey(9, digest("a")), Value: []byte("ming")},
		"an index of nobody": {Kind: storage.RowOwner, Key: storage.OwnerKey(storage.IndexPhone, digest("a"))},
	} {
		if err := s.movable().ImportRows(s.Context(), []storage.Row{row}); !errors.Is(err, storage.ErrCorrupt) {
			s.Errorf("%s: %v", name, err)
		}
	}
	if rows, next, err := s.movable().ExportRows(s.Context(), storage.RowFamily, bytes.Repeat([]byte{0xff}, 16), 10); len(rows) > 0 || next != nil || err != nil {
		s.Errorf("behind the end: %d rows, %x, %v", len(rows), next, err)
	}
}
