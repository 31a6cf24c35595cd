package limit

import (
	"reflect"
	"strings"
	"testing"
)

// telling is a ledger that tells what it holds.
type telling []heard

func (l telling) Hear(string, int64) {}
func (l telling) Tell(take func(key string, n int64) bool) {
	for _, e := range l {
		if !take(e.key, e.n) {
			return
		}
	}
}

func TestBody(t *testing.T) {
	b := newBody()
	b.section("none", telling{}, maxBody)
	if !b.empty() {
		t.Error("a ledger with nothing to tell tells something")
	}
	b.section("a", telling{{"", "k", 1}, {"", "", 2}, {"", strings.Repeat("x", maxKeySize+1), 3}, {"", "zero", 0}, {"", "much", 1 << 40}, {"", "\x00", -4}}, maxBody)
	b.section("narrow", telling{{"", "key", 1}}, 5)
	b.section("b", telling{{"", strings.Repeat("x", maxKeySize), -1 << 40}}, maxBody-len(b.data))
	got, err := parseBody(b.data)
	want := []heard{{"a", "k", 1}, {"a", "much", maxCount}, {"a", "\x00", -4}, {"b", strings.Repeat("x", maxKeySize), -maxCount}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for cut := range b.data[1:] {
		part, err := parseBody(b.data[:1+cut])
		if err == nil && len(part) >= len(want) {
			t.Errorf("cut after %d bytes it reads whole", 1+cut)
		}
	}
	full := newBody()
	full.section("f", telling(make100k()), maxBody-len(full.data))
	if entries, err := parseBody(full.data); err != nil || len(full.data) > maxBody || len(full.data) < maxBody-300 || len(entries) == 0 {
		t.Errorf("%d bytes with %d entries, %v", len(full.data), len(entries), err)
	}
}

func make100k() (l []heard) {
	for range 100_000 {
		l = append(l, heard{key: "some key", n: 1})
	}
	return l
}

func FuzzParseBody(f *testing.F) {
	b := newBody()
	b.section("requests", telling{{"", "203.0.113.7", 12}, {"", "other", -1}}, maxBody)
	b.section("known", telling{{"", "198.51.100.1", 1}}, 1000)
	f.Add(b.data)
	f.Add([]byte{bodyVersion})
	f.Add([]byte{bodyVersion, 1, 'a', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseBody(data)
		if err != nil {
			if entries != nil {
				t.Error("entries beside an error")
			}
			return
		}
		if len(entries) > len(data) {
			t.Errorf("%d entries of %d bytes", len(entries), len(data))
		}
		for _, e := range entries {
			if e.ledger == "" || e.key == "" || len(e.key) > maxKeySize || e.n == 0 || e.n > maxCount || e.n < -maxCount {
				t.Errorf("out of bounds: %+v", e)
			}
		}
	})
}
