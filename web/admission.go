package web

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/admit"
	"github.com/wxidp/wxidp/provider"
)

// admission keeps the server useful while more is asked of it than it can do.
// What is served from memory needs none.
type admission struct {
	// Apart, so that a WeChat which is slow takes nothing from those who do not
	// need it, nor a rush of sign-ins from those who are signed in.
	local, outward *admit.Gate

	refused atomic.Int64 // since the last log line
	logged  atomic.Int64 // when that was, in Unix nanoseconds
}

// slotsPerCPU is how many requests are worked on at once: enough for commits to
// share their fsyncs, and few enough to be done soon.
const (
	slotsAnyhow = 64
	slotsPerCPU = 128
	// slotsWaiting is for sign-ins that only wait for what another node says of
	// the same js_code, and cost nothing meanwhile.
	slotsWaiting = 256
)

func newAdmission() *admission {
	slots := slotsAnyhow + slotsPerCPU*runtime.GOMAXPROCS(0)
	return &admission{local: admit.New(slots), outward: admit.New(slots + slotsWaiting)}
}

// gate is the one for a request whose form has been read: who signs in at
// WeChat and who uses WeChat's data wait for WeChat.
func (a *admission) gate(r *http.Request) *admit.Gate {
	if strings.HasPrefix(r.PostForm.Get("grant_type"), "wechat_") || strings.Contains(r.URL.Path, "/wechat/") {
		return a.outward
	}
	return a.local
}

// admitted lets a request have its turn, or answers 503. The body of a form has
// been read by then, so that slow callers hold up nobody.
func (s *Server) admitted(handle func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		gate := s.admission.gate(r)
		switch err := gate.Enter(r.Context()); {
		case errors.Is(err, admit.ErrOverloaded):
			s.logOverload()
			return provider.Overloaded()
		case err != nil:
			return err
		}
		defer gate.Leave()
		return handle(w, r)
	}
}

// overloadLogEvery is how often an overload is told of: a line for each
// refusal would be another load.
const overloadLogEvery = 10 * time.Second

func (s *Server) logOverload() {
	a := s.admission
	refused := a.refused.Add(1)
	now, last := time.Now().UnixNano(), a.logged.Load()
	if now-last < int64(overloadLogEvery) || !a.logged.CompareAndSwap(last, now) {
		return
	}
	a.refused.Add(-refused)
	s.Logger.Warn("more is asked of the server than it can do; some requests are refused",
		slog.String("event", "server.overloaded"), slog.Int64("refused", refused))
}
