package simulator

import (
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestBounds(t *testing.T) {
	s := newSimulator(t)
	first := mint(t, s, testApp, "ann")
	for range MaxCodes {
		mint(t, s, testApp, "ann")
	}
	if len(s.codes.items) > MaxCodes || len(s.codes.queue.items)-s.codes.queue.head > MaxCodes || len(s.codes.queue.items) > 3*MaxCodes {
		t.Errorf("%d codes, queue of %d", len(s.codes.items), len(s.codes.queue.items))
	}
	if got := errcodeOf(t, exchange(s, testApp, first)); got != 40029 {
		t.Errorf("the forgotten code: %d", got)
	}
	// Codes that are too old go, a few with each login.
	_ = s.Advance(6 * time.Minute)
	for range MaxCodes / 32 {
		mint(t, s, testApp, "ann")
	}
	if n := len(s.codes.items); n > MaxCodes/16 {
		t.Errorf("%d codes are left", n)
	}
	for i := range MaxRequests + 10 {
		exchange(s, "wxnone", strconv.Itoa(i))
	}
	log := s.Requests()
	if len(log) != MaxRequests || s.RequestCount() != MaxRequests+11 || log[0].JSCode != "10" || log[len(log)-1].JSCode != strconv.Itoa(MaxRequests+9) {
		t.Errorf("%d of %d entries, from %s to %s", len(log), s.RequestCount(), log[0].JSCode, log[len(log)-1].JSCode)
	}
	for i := range MaxApps {
		err := s.AddApp(App{AppID: fmt.Sprint("wx", i), Secret: "s"})
		if (err != nil) != (i >= MaxApps-3) {
			t.Fatalf("app %d: %v", i, err)
		}
	}
	for _, d := range []time.Duration{-1, maxAdvance, 1 << 62} {
		if s.Advance(d) == nil {
			t.Errorf("the clock went %v", d)
		}
	}
	for _, name := range []string{"", strings.Repeat("x", 129), "\xff", "a\nb"} {
		if _, err := s.Login(testApp, name); err == nil {
			t.Errorf("user %q is taken", name)
		}
	}
	if _, err := s.Login("none", "ann"); err == nil {
		t.Error("a login to an unknown app")
	}
}

func TestReset(t *testing.T) {
	s := newSimulator(t)
	code := mint(t, s, testApp, "ann")
	_ = s.Advance(time.Hour)
	_ = s.Inject(Fault{Kind: FaultHTML})
	s.Reset()
	if got := errcodeOf(t, exchange(s, testApp, code)); got != 40029 {
		t.Errorf("a code of before: %d", got)
	}
	if d := time.Until(s.Now()); d > time.Second || len(s.Faults()) != 0 || s.RequestCount() != 1 {
		t.Errorf("clock %v, %d faults, %d requests", d, len(s.Faults()), s.RequestCount())
	}
	if got := errcodeOf(t, exchange(s, testApp, mint(t, s, testApp, "ann"))); got != 0 {
		t.Errorf("a sign-in after: %d", got)
	}
}

func BenchmarkExchange(b *testing.B) {
	s := newSimulator(b)
	api := s.API()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		code, err := s.Login(testApp, strconv.Itoa(n%10000))
		if err != nil {
			b.Fatal(err)
		}
		if n%100_000 == 0 {
			_ = s.Advance(time.Minute)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest("GET", PathCode2Session+"?"+exchangeQuery(testApp, testSecret, code), nil))
		if w.Body.Len() < 80 {
			b.Fatal(w.Body)
		}
	}
}
