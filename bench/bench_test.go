package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name, text string
		status     int
		body       string
		bad        bool
	}{
		{name: "usual", text: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi", status: 200, body: "hi"},
		{name: "spelled otherwise", text: "HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n", status: 404},
		{name: "chunked", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bad: true},
		{name: "too long", text: "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", bad: true},
		{name: "negative", text: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", bad: true},
		{name: "cut off", text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", bad: true},
		{name: "not HTTP", text: "hello there, what is this\r\n\r\n", bad: true},
		{name: "short", text: "HTTP\n", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, err := (&conn{reader: bufio.NewReader(strings.NewReader(c.text))}).answer()
			if (err != nil) != c.bad || !c.bad && (status != c.status || string(body) != c.body) {
				t.Errorf("%d %q, %v", status, body, err)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	f.Add("HTTP/1.1 200 OK\nContent-Length:\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, body, err := (&conn{reader: bufio.NewReader(strings.NewReader(text))}).answer()
		if err == nil && !strings.HasSuffix(text, string(body)) && !strings.Contains(text, string(body)) {
			t.Errorf("%q has no body %q", text, body)
		}
	})
}

func TestParseTokens(t *testing.T) {
	const good = `{"access_token":"eyJ.b.c","token_type":"Bearer","expires_in":900,"scope":"openid","refresh_token":"wxrt_x","id_token":"eyJ.e.f"}`
	parsed, err := parseTokens(http.StatusOK, []byte(good))
	if err != nil || string(parsed.access) != "eyJ.b.c" || string(parsed.refresh) != "wxrt_x" || string(parsed.id) != "eyJ.e.f" {
		t.Errorf("%+v, %v", parsed, err)
	}
	for _, bad := range []string{
		`{"error":"invalid_grant"}`,
		strings.Replace(good, "eyJ.b.c", "eyJ.b", 1),
		strings.Replace(good, "wxrt_x", "x", 1),
		strings.Replace(good, `"scope":"openid",`, "", 1),
		strings.Replace(good, `"token_type":"Bearer",`, "", 1),
	} {
		if _, err := parseTokens(http.StatusOK, []byte(bad)); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
	if _, err := parseTokens(http.StatusBadRequest, []byte(good)); err == nil {
		t.Error("a status of 400 is taken")
	}
}

func TestLoad(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello\n")
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	own := func() (time.Duration, time.Duration, error) {
		used, err := cpuTime(os.Getpid())
		return used, 0, err
	}
	run := func(size int) (*result, error) {
		scripts := repeat(4, func(int) script { return &plainScript{getRequest(address, "/"), size} })
		return load(t.Context(), address, own, 10*time.Millisecond, 50*time.Millisecond, scripts)
	}
	r, err := run(len("hello\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r.requests == 0 || r.total < r.requests || len(r.latencies) == 0 || r.percentile(.5) > r.percentile(1) {
		t.Errorf("%d requests of %d, %d latencies, p50 %v, max %v", r.requests, r.total, len(r.latencies), r.percentile(.5), r.percentile(1))
	}
	if _, err := run(1); err == nil || !strings.Contains(err.Error(), "bad answer") {
		t.Errorf("a bad answer ends as %v", err)
	}
}

func TestTimeWorkReportsFailure(t *testing.T) {
	failure := errors.New("failed")
	if _, err := timeWork(10*time.Millisecond, 2, func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("the failure ends as %v", err)
	}
	if m, err := timeWork(10*time.Millisecond, 2, func() error { return errNoMore }); err != nil || m.Count != 0 {
		t.Errorf("the end of work is %+v, %v", m, err)
	}
}
