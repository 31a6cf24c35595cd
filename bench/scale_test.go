package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/wechat/simulator"
)

func testPopulation(t *testing.T, dir string) (*population, *bolt.Store) {
	t.Helper()
	keyring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
	if err != nil {
		t.Fatal(err)
	}
	store, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(dir, "data", "wxidp.db"), Keyring: keyring})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	p := &population{
		weChat: simulator.New(simulator.Options{Seed: simulatorSeed, Apps: []simulator.App{{AppID: appID, Secret: appSecret, OpenPlatform: openPlatform}}}),
		seed:   7, now: time.Now(), sampled: 50, families: 0.5,
	}
	if p.vault, err = storage.OpenVault(t.Context(), store, keyring); err != nil {
		t.Fatal(err)
	}
	if p.mac, err = openRing(t.Context(), store, keys.Options{Keyring: keyring}); err != nil {
		t.Fatal(err)
	}
	return p, store
}

// What is made is what the store itself would have made: all of it opens, leads
// to one another and is live.
func TestPopulationIsWhole(t *testing.T) {
	dir := t.TempDir()
	p, store := testPopulation(t, dir)
	o := &scaleOptions{dir: dir, people: 2000}
	from, sample, err := generate(t.Context(), o, p)
	if err != nil {
		t.Fatal(err)
	}
	total, err := importAll(t.Context(), store, from)
	if err != nil {
		t.Fatal(err)
	}
	counted := int64(0)
	for _, kind := range storage.RowKinds() {
		n, err := store.CountRows(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		if kind != storage.RowRecord {
			counted += n
		}
	}
	if counted != total || total < 2*2000 {
		t.Errorf("%d rows were imported and %d are there", total, counted)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside the data there is %v, %v", left, err)
	}
	phones, accounts := 0, 0
	ctx := context.Background()
	for i := range o.people {
		user, _, err := store.IdentityUser(ctx, appID, p.weChat.OpenID(appID, userName(i)))
		if err != nil || user.Profile.Nickname == "" {
			t.Fatal(i, user, err)
		}
		if user.Phone != "" {
			phones++
		}
		if user.Username != "" {
			accounts++
		}
		if i < len(sample) {
			live, err := store.RecentFamilies(ctx, user.ID, 10)
			if err != nil || len(live) == 0 || sample[i].Sub != user.ID || len(sample[i].Refresh) != len("wxrt_")+76 {
				t.Fatal(i, live, sample[i].Sub, err)
			}
		}
	}
	if phones < 2000*percentPhone/200 || phones > 2000*percentPhone/50 || accounts == 0 {
		t.Errorf("%d phones, %d accounts", phones, accounts)
	}
	if n, err := store.CountRows(ctx, storage.RowFamily); err != nil || n < 700 || n > 1400 {
		t.Errorf("%d sign-ins, %v", n, err)
	}
}

// The same seed makes the same people.
func TestPopulationRepeats(t *testing.T) {
	p, _ := testPopulation(t, t.TempDir())
	shape := func(seed uint64) (text string) {
		p.seed = seed
		for i := range 200 {
			kinds := map[storage.RowKind]int{}
			size := 0
			if _, err := p.person(i, func(r storage.Row) { kinds[r.Kind]++; size += len(r.Value) }); err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprint(kinds, size, "\n")
		}
		return text
	}
	first := shape(1)
	if second := shape(1); first != second || first == shape(2) {
		t.Error("the people of one seed differ, or those of two do not")
	}
}

func TestSpillSorts(t *testing.T) {
	s := &spill{dir: t.TempDir(), began: time.Now().Add(-200 * 24 * time.Hour), parts: map[part]*os.File{}}
	want := map[storage.RowKind]int{}
	for range 3 {
		w := s.writer()
		for i := range 500 {
			began := time.Now().Add(-time.Duration(i) * 8 * time.Hour)
			f := newFamily(keys.MACKey{ID: 1}, "user", storage.Digest{}, began)
			id := storage.NewUserID()
			var digest storage.Digest
			copy(digest[:], f.Secret[:])
			for _, row := range []storage.Row{
				familyRow(&f), {Kind: storage.RowUser, Key: []byte(id), Value: []byte{1}},
				{Kind: storage.RowOwner, Key: storage.OwnerKey(storage.IndexKind(1+i%4), digest), Value: []byte(id)},
			} {
				want[row.Kind]++
				w.put(row)
			}
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
	}
	got := map[storage.RowKind]int{}
	last := map[storage.RowKind][]byte{}
	for _, at := range s.sorted() {
		rows, err := s.take(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if bytes.Compare(last[row.Kind], row.Key) >= 0 {
				t.Fatalf("%s: %x after %x", row.Kind, row.Key, last[row.Kind])
			}
			last[row.Kind] = row.Key
			got[row.Kind]++
		}
	}
	for kind, n := range want {
		if got[kind] != n {
			t.Errorf("%s: %d of %d", kind, got[kind], n)
		}
	}
}

func TestScaleFlags(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-dir", "d", "-storage", "mysql"}, {"-dir", "d", "-users", "5"}, {"-dir", "d", "-parts", "all"}, {"-dir", "d", "-connections", "0"},
		{"-dir", "d", "-wave", "-1"}, {"-dir", "d", "-pool", "0"}, {"-dir", "d", "-seconds", "0"},
	} {
		if _, err := parseScaleFlags(args); err == nil {
			t.Errorf("taken: %v", args)
		}
	}
	if o, err := parseScaleFlags([]string{"-dir", "d", "-parts", "start,list", "-users", "1000", "-families", "1000"}); err != nil || len(o.parts) != 2 || o.people != 1000 {
		t.Error(o, err)
	}
}
