package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
)

// movers are two stores that a test moves between.
type movers struct {
	t        *testing.T
	keyring  *seal.Keyring
	from, to *bolt.Store
}

func newMovers(t *testing.T) *movers {
	t.Helper()
	keyring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
	if err != nil {
		t.Fatal(err)
	}
	m := &movers{t: t, keyring: keyring}
	m.from, m.to = m.open("from.db"), m.open("to.db")
	rows := []storage.Row{{Kind: storage.RowClient, Key: []byte("shop-mini"), Value: storage.EncodeClient(&storage.ClientState{Epoch: 1})}}
	for i := range 10 {
		user := storage.UserRecord{CreatedAt: time.Now(), Epoch: uint32(i), Retired: true}
		rows = append(rows, storage.Row{Kind: storage.RowUser, Key: fmt.Append(nil, "user", i), Value: storage.EncodeUser(&user)})
	}
	m.must(m.from.ImportRows(t.Context(), rows))
	return m
}

func (m *movers) open(name string) *bolt.Store {
	m.t.Helper()
	s, err := bolt.Open(m.t.Context(), bolt.Options{Path: filepath.Join(m.t.TempDir(), "data", name), Keyring: m.keyring})
	m.must(err)
	m.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (m *movers) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *movers) move() *storage.Move {
	return &storage.Move{From: storage.MoveEnd{Store: m.from, Name: "there"}, To: storage.MoveEnd{Store: m.to, Name: "here"}, PageSize: 3}
}

// wantServed looks which of the two stores may be served.
func (m *movers) wantServed(from, to bool) {
	m.t.Helper()
	for name, end := range map[string]struct {
		store *bolt.Store
		want  bool
	}{"source": {m.from, from}, "destination": {m.to, to}} {
		err := storage.MoveUnfinished(m.t.Context(), end.store)
		if err != nil && !errors.Is(err, storage.ErrMoved) || (err == nil) != end.want {
			m.t.Errorf("the %s: %v, want to be served: %v", name, err, end.want)
		}
	}
}

func rowsOf(t *testing.T, store storage.Movable) (all []storage.Row) {
	t.Helper()
	for _, kind := range storage.RowKinds() {
		rows, next, err := store.ExportRows(t.Context(), kind, nil, 0)
		if err != nil || next != nil {
			t.Fatal(next, err)
		}
		all = append(all, rows...)
	}
	return all
}

// failing fails at one of its calls, and at all after it: as a process that
// ends there.
type failing struct {
	storage.Movable
	left *int
	err  error
}

func (f *failing) spend() error {
	if *f.left--; *f.left < 0 {
		return f.err
	}
	return nil
}

func (f *failing) ImportRows(ctx context.Context, rows []storage.Row) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.Movable.ImportRows(ctx, rows)
}

func (f *failing) SwapRecord(ctx context.Context, name string, version uint64, value []byte) (bool, error) {
	if err := f.spend(); err != nil {
		return false, err
	}
	return f.Movable.SwapRecord(ctx, name, version, value)
}

// TestMoveGoesOn ends a move at each of its writes, on both sides, and runs it
// again: it completes, and at no time are both stores served.
func TestMoveGoesOn(t *testing.T) {
	for writes := range 30 {
		m := newMovers(t)
		broken := errors.New("the process ended")
		left := writes
		move := m.move()
		move.From.Store, move.To.Store = &failing{m.from, &left, broken}, &failing{m.to, &left, broken}
		_, err := move.Run(t.Context())
		switch {
		case err == nil:
			if writes < 8 {
				t.Fatalf("a move of %d writes", writes)
			}
			m.wantServed(false, true)
			return
		case !errors.Is(err, broken):
			t.Fatal(err)
		case writes == 0: // nothing was marked
			m.wantServed(true, true)
		case writes == 1: // only the destination
			m.wantServed(true, false)
		default:
			m.wantServed(false, false)
		}
		report, err := m.move().Run(t.Context())
		if err != nil || report.Resumed != (writes > 1) {
			t.Fatalf("after %d writes: %+v, %v", writes, report, err)
		}
		m.wantServed(false, true)
		if got, want := rowsOf(t, m.to), rowsOf(t, m.from); !reflect.DeepEqual(got, want) {
			t.Fatalf("after %d writes: %d rows, want %d", writes, len(got), len(want))
		}
	}
	t.Error("the move never ends")
}

// TestMoveIsCancelled: a reader that is told to stop in the middle does not
// pass for one that has come to the end.
func TestMoveIsCancelled(t *testing.T) {
	m := newMovers(t)
	ctx, cancel := context.WithCancel(t.Context())
	move := m.move()
	move.Observe = func(p storage.MoveProgress) {
		if p.Kind == storage.RowUser && p.Rows > 4 {
			cancel()
		}
	}
	if _, err := move.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	report, err := m.move().Run(t.Context())
	if err != nil || !report.Resumed {
		t.Fatalf("%+v, %v", report, err)
	}
	var total int64
	for _, kind := range report.Kinds {
		total += kind.Rows
	}
	if total != 12 { // with the vault
		t.Errorf("%d rows moved", total)
	}
}

// TestMoveInsists: a database that is away for a moment does not end a move.
func TestMoveInsists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMovers(t)
		move := m.move()
		move.To.Store = &flaky{Movable: m.to}
		if _, err := move.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.wantServed(false, true)
		m.must(m.from.Close())
		m.must(m.to.Close())
	})
}

// flaky answers every other import that it is not available.
type flaky struct {
	storage.Movable
	calls int
}

func (f *flaky) ImportRows(ctx context.Context, rows []storage.Row) error {
	if f.calls++; f.calls%2 == 1 {
		return fmt.Errorf("%w: it restarts", storage.ErrUnavailable)
	}
	return f.Movable.ImportRows(ctx, rows)
}

// TestMoveFindsDamage: a destination that lacks a row, has one too many or
// another one is never served.
func TestMoveFindsDamage(t *testing.T) {
	other := func(key string) storage.Row {
		user := storage.UserRecord{CreatedAt: time.Now(), Epoch: 77, Retired: true}
		return storage.Row{Kind: storage.RowUser, Key: []byte(key), Value: storage.EncodeUser(&user)}
	}
	for name, test := range map[string]struct {
		spoil func(m *movers) error
		says  string
	}{
		"another":             {func(m *movers) error { return m.to.ImportRows(t.Context(), []storage.Row{other("user3")}) }, "row 7573657233 differs"},
		"one too many":        {func(m *movers) error { return m.to.ImportRows(t.Context(), []storage.Row{other("user33")}) }, "a row 757365723333 too much"},
		"one behind":          {func(m *movers) error { return m.to.ImportRows(t.Context(), []storage.Row{other("v")}) }, "a row 76 too much"},
		"one less":            {func(m *movers) error { return m.from.ImportRows(t.Context(), []storage.Row{other("user33")}) }, "row 757365723333 is missing"},
		"one less at the end": {func(m *movers) error { return m.from.ImportRows(t.Context(), []storage.Row{other("v")}) }, "row 76 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMovers(t)
			move := m.move()
			spoilt := false
			move.Observe = func(p storage.MoveProgress) {
				if p.Stage == storage.MoveCopying && p.Kind == storage.RowLogout && !spoilt {
					spoilt = true
					m.must(test.spoil(m))
				}
			}
			for range 2 { // it is found again by whoever tries again
				_, err := move.Run(t.Context())
				if !errors.Is(err, storage.ErrMismatch) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%v, want %q", err, test.says)
				}
				m.wantServed(false, false)
			}
		})
	}
}

// TestMoveRefuses what would lose something.
func TestMoveRefuses(t *testing.T) {
	m := newMovers(t)
	want := func(move *storage.Move, says string) {
		t.Helper()
		if _, err := move.Run(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	m.must(m.to.DenyJTI(t.Context(), "jti", time.Now().Add(time.Hour)))
	want(m.move(), "it holds denied tokens")
	m.wantServed(true, true)
	m.to = m.open("empty.db")

	// A server at either end: both stay as they were.
	for _, end := range []string{"source", "destination"} {
		move := m.move()
		idle := func(context.Context) error { return errors.New("a server runs") }
		if end == "source" {
			move.From.Idle = idle
		} else {
			move.To.Idle = idle
		}
		want(move, "a server runs")
		m.wantServed(true, true)
	}

	// A source that was served again, after its move had begun.
	broken := errors.New("the process ended")
	left := 5 // marks, the vault, a client, and some users
	move := m.move()
	move.From.Store, move.To.Store = &failing{m.from, &left, broken}, &failing{m.to, &left, broken}
	want(move, broken.Error())
	if _, _, err := storage.UndoMove(t.Context(), m.to); !errors.Is(err, storage.ErrMoved) {
		t.Errorf("undone at the destination: %v", err)
	}
	if peer, done, err := storage.UndoMove(t.Context(), m.from); peer != "here" || done || err != nil {
		t.Errorf("undone: %s, %v, %v", peer, done, err)
	}
	m.wantServed(true, false)
	want(m.move(), "or its source was served since")
	if _, _, err := storage.UndoMove(t.Context(), m.from); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("undone twice: %v", err)
	}

	// Another destination takes the place of one that was given up.
	left, move = 3, m.move()
	move.To.Store = m.open("another.db")
	move.From.Store = &failing{m.from, &left, broken}
	if _, err := move.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(m.move(), "has been moved already")
	if peer, done, err := storage.UndoMove(t.Context(), m.from); peer != "here" || !done || err != nil {
		t.Errorf("undone: %s, %v, %v", peer, done, err)
	}
}

// TestMoveChecksums are the same wherever rows are, and others for others.
func TestMoveChecksums(t *testing.T) {
	m := newMovers(t)
	there, err := m.move().Run(t.Context())
	m.must(err)
	onward := &storage.Move{From: storage.MoveEnd{Store: m.to, Name: "here"}, To: storage.MoveEnd{Store: m.open("next.db"), Name: "next"}}
	here, err := onward.Run(t.Context())
	m.must(err)
	if !reflect.DeepEqual(there.Kinds, here.Kinds) {
		t.Error("checksums changed on the way")
	}
	user := storage.UserRecord{CreatedAt: time.Now(), Retired: true}
	m.must(onward.To.Store.ImportRows(t.Context(), []storage.Row{{Kind: storage.RowUser, Key: []byte("one more"), Value: storage.EncodeUser(&user)}}))
	last := &storage.Move{From: onward.To, To: storage.MoveEnd{Store: m.open("last.db"), Name: "last"}}
	others, err := last.Run(t.Context())
	m.must(err)
	for i, kind := range others.Kinds {
		if same := kind == here.Kinds[i]; same == (kind.Kind == storage.RowUser) {
			t.Errorf("%s: %+v, before %+v", kind.Kind, kind, here.Kinds[i])
		}
	}
}

// FuzzRowDecode: what is read is exactly what is written, for every kind.
func FuzzRowDecode(f *testing.F) {
	id := storage.NewFamilyID()
	now := time.UnixMicro(1_700_000_000_123_456)
	key := bytes.Repeat([]byte{7}, 32)
	for _, row := range []storage.Row{
		{Kind: storage.RowRecord, Key: []byte("vault"), Value: storage.EncodeDocument(&storage.Document{Version: 1, Value: []byte("v")})},
		{Kind: storage.RowClient, Key: []byte("shop"), Value: storage.EncodeClient(&storage.ClientState{Epoch: 1, EndedAt: now, EndedReason: "r"})},
		{Kind: storage.RowUser, Key: []byte("ming"), Value: storage.EncodeUser(&storage.UserRecord{CreatedAt: now, Key: key, Identities: storage.DigestList(key)})},
		{Kind: storage.RowIdentity, Key: key, Value: storage.EncodeIdentity(&storage.IdentityRecord{UserID: "ming", AppID: "wx", LinkedAt: now})},
		{Kind: storage.RowOwner, Key: storage.OwnerKey(storage.IndexPhone, storage.Digest(key)), Value: []byte("ming")},
		{Kind: storage.RowSessionKeys, Key: key, Value: storage.EncodeSessionKeys([]storage.SessionKeyRecord{{At: now, ExpiresAt: now, Sealed: key}})},
		{Kind: storage.RowConsents, Key: []byte("ming"), Value: storage.EncodeConsents([]storage.Consent{{ClientID: "shop", Scope: []string{"openid"}, GrantedAt: now}})},
		{Kind: storage.RowFamily, Key: id[:], Value: storage.EncodeFamily(&storage.Family{UserID: "ming", ClientID: "shop", Scope: []string{"openid"}, ExpiresAt: now})},
		{Kind: storage.RowLogin, Key: id[:], Value: storage.EncodeLogin(&storage.LoginRecord{LoginSession: storage.LoginSession{UserID: "ming", Token: storage.Digest(key)}})},
		{Kind: storage.RowCode, Key: key, Value: storage.EncodeKeptCode(&storage.CodeRecord{KeepUntil: now, ExpiresAt: now})},
		{Kind: storage.RowIdempotency, Key: key, Value: storage.EncodeIdempotency(&storage.KeptIdempotency{ExpiresAt: now})},
		{Kind: storage.RowItem, Key: key, Value: storage.EncodeItem(&storage.ItemRecord{ExpiresAt: now, Used: true, Value: []byte("v")})},
		{Kind: storage.RowDeniedJTI, Key: key, Value: storage.EncodeDenied(now)},
		{Kind: storage.RowState, Key: storage.StateKey(storage.StateTicket, storage.Digest(key)), Value: storage.EncodeState(&storage.State{Version: 2, ExpiresAt: now})},
		{Kind: storage.RowLogout, Key: id[:], Value: storage.EncodeLogout(&storage.LogoutNotice{ClientID: "shop", UserID: "ming", Next: now, EndedAt: now})},
	} {
		if _, err := row.Decode(); err != nil {
			f.Error(err)
		}
		f.Add(byte(row.Kind), row.Key, row.Value)
	}
	f.Fuzz(func(t *testing.T, kind byte, key, value []byte) {
		row := storage.Row{Kind: storage.RowKind(kind), Key: key, Value: value}
		c, err := row.Decode()
		if err != nil {
			if !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrTooLarge) {
				t.Errorf("%v", err)
			}
			return
		}
		if again := encodeAgain(row.Kind, &c); !bytes.Equal(again, value) {
			t.Errorf("%s: %x was read as %x", row.Kind, value, again)
		}
	})
}

func encodeAgain(kind storage.RowKind, c *storage.RowContent) []byte {
	switch kind {
	case storage.RowRecord:
		return storage.EncodeDocument(&c.Document)
	case storage.RowClient:
		return storage.EncodeClient(&c.Client)
	case storage.RowUser:
		return storage.EncodeUser(&c.User)
	case storage.RowIdentity:
		return storage.EncodeIdentity(&c.Identity)
	case storage.RowOwner:
		return []byte(c.Owner)
	case storage.RowSessionKeys:
		return storage.EncodeSessionKeys(c.SessionKeys)
	case storage.RowConsents:
		return storage.EncodeConsents(c.Consents)
	case storage.RowFamily:
		return storage.EncodeFamily(&c.Family)
	case storage.RowLogin:
		return storage.EncodeLogin(&c.Login)
	case storage.RowCode:
		return storage.EncodeKeptCode(&c.Code)
	case storage.RowIdempotency:
		return storage.EncodeIdempotency(&c.Idempotency)
	case storage.RowItem:
		return storage.EncodeItem(&c.Item)
	case storage.RowDeniedJTI:
		return storage.EncodeDenied(c.Denied)
	case storage.RowState:
		return storage.EncodeState(&c.State)
	case storage.RowLogout:
		return storage.EncodeLogout(&c.Logout)
	}
	return nil
}
