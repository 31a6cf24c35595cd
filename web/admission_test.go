package web

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxidp/wxidp/internal/admit"
)

// TestOverload: who cannot be answered soon is told so, and people who wait for
// WeChat take no turn from the others.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		s := bareServer(&logs)
		s.admission = &admission{local: admit.New(2), outward: admit.New(2)}
		free := make(chan struct{})
		handler := s.router(s.form(func(w http.ResponseWriter, r *http.Request) error {
			if r.PostForm.Get("grant_type") == "wechat_jscode" {
				<-free
			}
			return nil
		}))
		post := func(grantType string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(url.Values{"grant_type": {grantType}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.RemoteAddr = "192.0.2.7:1234"
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			return w
		}
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() { post("wechat_jscode") })
		}
		synctest.Wait()
		for range 20 {
			begin := time.Now()
			w := post("wechat_jscode")
			wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
			if w.Code != http.StatusServiceUnavailable || err != nil || wait < 1 || wait > 3 || time.Since(begin) > time.Second {
				t.Errorf("a third sign-in: %d, Retry-After %q after %v", w.Code, w.Header().Get("Retry-After"), time.Since(begin))
			}
			if w := post("refresh_token"); w.Code != http.StatusOK {
				t.Errorf("a refresh beside it: %d", w.Code)
			}
		}
		close(free)
		group.Wait()
		if w := post("wechat_jscode"); w.Code != http.StatusOK {
			t.Errorf("a sign-in afterwards: %d", w.Code)
		}
		if n := strings.Count(logs.String(), "server.overloaded"); n != 1 || strings.Contains(logs.String(), "request.failed") {
			t.Errorf("20 refusals within ten seconds left %d lines:\n%s", n, &logs)
		}
		if text := metricsText(s); !strings.Contains(text, `wxidp_limited_requests_total{limit="overload"} 20`) {
			t.Errorf("metrics:\n%s", text)
		}
	})
}
