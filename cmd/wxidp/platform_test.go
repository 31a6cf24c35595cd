package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestThreat55HostHeader: names in answers come from the configuration only.
func TestThreat55HostHeader(t *testing.T) {
	s := startServer(t)
	evil := func(r *http.Request) {
		r.Host = "evil.example"
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("Forwarded", "host=evil.example;proto=https")
		r.Header.Set("X-Original-Url", "/admin/keys")
		r.Header.Set("X-Http-Method-Override", "DELETE")
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		plain, lied := s.Do(http.MethodGet, s.Issuer+path, nil), s.Do(http.MethodGet, s.Issuer+path, nil, evil)
		if plain.Status != http.StatusOK || !bytes.Equal(plain.Body, lied.Body) || lied.str("issuer") != s.Issuer {
			t.Errorf("%s: %v and, lied to, %v", path, plain, lied)
		}
	}
	out := s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", s.Code(testAppID, "alice")), evil)
	if out.Status != http.StatusOK {
		t.Fatal(out)
	}
	if got := s.Introspect(out.str("access_token")).str("iss"); got != s.Issuer {
		t.Errorf("iss %q", got)
	}
	for _, answer := range []answer{s.Token(pairs(), evil), s.Do(http.MethodGet, s.Issuer+"/nothing", nil, evil), s.Do(http.MethodPut, s.Issuer+"/oauth2/token", nil, evil)} {
		if strings.Contains(answer.String()+fmt.Sprint(answer.Header), "evil") {
			t.Errorf("%v %v", answer, answer.Header)
		}
	}
}

// TestThreat79OddBodies sends what no client sends. Each must be refused with
// its status, as JSON, and none may leave a file behind.
func TestThreat79OddBodies(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	s := startServer(t)
	form := "application/x-www-form-urlencoded"
	big := strings.Repeat("x", 10<<20)
	for _, test := range []struct {
		name, contentType, body string
		edit                    func(*http.Request)
		want                    int
	}{
		{"10 MiB", form, "js_code=" + big, nil, 413},
		{"10 MiB multipart", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n" + big + "\r\n--x--\r\n", nil, 415},
		{"multipart", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nrefresh_token\r\n--x--\r\n", nil, 415},
		{"JSON", "application/json", `{"grant_type":"refresh_token"}`, nil, 415},
		{"no content type", "", "grant_type=refresh_token", nil, 415},
		{"two content types", form + ", application/json", "grant_type=refresh_token", nil, 415},
		{"100000 parameters", form, strings.Repeat("a=&", 20000), nil, 400},
		{"more parameters than fit", form, strings.Repeat("a=&", 100000), nil, 413},
		{"a parameter twice", form, "grant_type=refresh_token&grant_type=refresh_token", nil, 400},
		{"NUL", form, "grant_type=refresh_token&refresh_token=%00", nil, 400},
		{"invalid UTF-8", form, "grant_type=refresh_token&refresh_token=%ff%fe", nil, 400},
		{"invalid escape", form, "grant_type=%zz", nil, 400},
		{"semicolons", form, "grant_type=refresh_token;refresh_token=x", nil, 400},
		{"compressed", form, "grant_type=refresh_token", header("Content-Encoding", "gzip"), 415},
		{"query", form, "grant_type=refresh_token", func(r *http.Request) { r.URL.RawQuery = "refresh_token=x" }, 400},
		{"60000 scopes", form, "grant_type=client_credentials&scope=" + strings.Repeat("a+", 30000), basic(testBackend, testBackendKey), 400},
		{"empty", form, "", nil, 400},
	} {
		req, err := http.NewRequest(http.MethodPost, s.Issuer+"/oauth2/token", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		if test.contentType != "" {
			req.Header.Set("Content-Type", test.contentType)
		}
		if test.edit != nil {
			test.edit(req)
		}
		resp, err := testHTTP.Do(req)
		if err != nil {
			// The server may hang up while a body that is too large is sent.
			if len(test.body) > 64<<10 {
				continue
			}
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		raw, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != test.want || resp.Header.Get("Content-Type") != "application/json" || !bytes.Contains(raw, []byte(`"error"`)) {
			t.Errorf("%s: %d %s, want %d", test.name, resp.StatusCode, raw, test.want)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("temporary files: %v, %v", left, err)
	}
}

// rawRequest sends bytes and returns the status line.
func rawRequest(t testing.TB, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }() // the server may answer and hang up before the end
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "closed"
	}
	return strings.TrimSpace(line)
}

func TestThreat79RawRequests(t *testing.T) {
	s := startServer(t)
	address := strings.TrimPrefix(s.Issuer, "http://")
	for _, test := range []struct{ name, request, want string }{
		{"1 MiB header", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431"},
		{"1 MiB of cookies", "GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("Cookie: a="+strings.Repeat("x", 1000)+"\r\n", 1000) + "\r\n", "431"},
		{"1 MiB path", "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", "431"},
		{"both lengths", "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", "4"},
		{"two lengths", "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", "400"},
		{"a chunk with a wrong size", "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", "400"},
		{"an unknown coding", "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"},
		{"no Host", "GET /healthz HTTP/1.1\r\n\r\n", "400"},
		{"a broken Host", "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
		{"a space in a header name", "GET /healthz HTTP/1.1\r\nHost: x\r\nX y: z\r\n\r\n", "400"},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		{"CONNECT", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\nConnection: close\r\n\r\n", "4"},
		{"TRACE", "TRACE /oauth2/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "405"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", ""},
		{"garbage", "\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", "400"},
	} {
		got := rawRequest(t, address, test.request)
		if got != "closed" && !strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(got, "HTTP/1.1 "), "HTTP/1.0 "), test.want) {
			t.Errorf("%s: %q, want %s", test.name, got, test.want)
		}
		if got == "closed" && (test.want == "405" || test.want == "501") {
			t.Errorf("%s: the connection was closed without an answer", test.name)
		}
	}
	if out := s.SignIn("alice"); !s.Active(out.str("access_token")) {
		t.Error("the server no longer works")
	}
}

// TestThreat79Memory posts 200 bodies of 10 MiB at once to a server in a
// process of its own, whose peak memory is then looked at.
func TestThreat79Memory(t *testing.T) {
	t.Parallel()
	s := prepareServer(t, withoutLimits())
	c := serveChild(t, s)
	for i := range 20 {
		if out, err := s.signIn(testClient, testAppID, strconv.Itoa(i)); err != nil || out.Status != http.StatusOK {
			t.Fatalf("sign-in: %v, %v", out, err)
		}
	}
	before, ok := peakMemory(c.cmd.Process.Pid)
	if !ok {
		t.Skip("SKIPPED: this system does not tell a process's peak memory")
	}
	body := bytes.Repeat([]byte("x"), 10<<20)
	kinds := []string{"application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json"}
	address := strings.TrimPrefix(s.Issuer, "http://")
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
			// Errors are the server hanging up, as it may.
			_, _ = fmt.Fprintf(conn, "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", kinds[i%len(kinds)], len(body))
			_, _ = conn.Write(body)
			_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<16))
		})
	}
	group.Wait()
	after, _ := peakMemory(c.cmd.Process.Pid)
	// 200 times 64 KiB of body and the buffers around it, several times over
	// for the race detector; far below the 2 GiB that were sent.
	if grown := after - before; grown > 128<<20 {
		t.Errorf("200 bodies of 10 MiB made the process grow by %d MiB", grown>>20)
	} else {
		t.Logf("peak memory %d MiB, %d MiB before", after>>20, before>>20)
	}
	s.SignIn("alice")
}

// peakMemory returns the most bytes that a process ever had resident.
func peakMemory(pid int) (int64, bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

// TestThreat80SlowClients holds connections that send a byte now and then.
// They are cut off by the header and read timeouts, and honest clients do not
// notice.
func TestThreat80SlowClients(t *testing.T) {
	t.Parallel()
	s := startServer(t, withoutLimits())
	address := strings.TrimPrefix(s.Issuer, "http://")
	const each = 80
	kinds := []struct {
		name, opening string
		drip          bool
		limit         time.Duration // 5 s for the header, 10 s for all, and room for a busy machine
	}{
		{"silent", "", false, 8 * time.Second},
		{"slow header", "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nX-Slow: ", true, 8 * time.Second},
		{"slow body", "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\n", true, 14 * time.Second},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, 8 * time.Second},
	}
	begin := time.Now()
	var slow sync.WaitGroup
	var failed failures
	for _, kind := range kinds {
		for range each {
			slow.Go(func() {
				lived, err := holdOpen(address, kind.opening, kind.drip, kind.limit)
				if err != nil {
					failed.add(fmt.Sprintf("%s: %v", kind.name, err))
				} else if lived > kind.limit {
					failed.add(fmt.Sprintf("%s: lived for %v", kind.name, lived))
				}
			})
		}
	}
	gone := make(chan struct{})
	go func() { slow.Wait(); close(gone) }()
	journeys := 0
	for {
		if err := s.userJourney(fmt.Sprintf("honest-%d", journeys%50)); err != nil {
			t.Errorf("an honest client: %v", err)
		}
		journeys++
		select {
		case <-gone:
			failed.report(t, "slow clients")
			t.Logf("%d honest journeys in %v beside %d slow connections", journeys, time.Since(begin), each*len(kinds))
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// holdOpen keeps a connection open as long as the server lets it.
func holdOpen(address, opening string, drip bool, limit time.Duration) (time.Duration, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begin := time.Now()
	_ = conn.SetDeadline(begin.Add(limit + time.Second))
	if _, err := io.WriteString(conn, opening); err != nil {
		return 0, err
	}
	if drip {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond):
					if _, err := conn.Write([]byte("x")); err != nil {
						return
					}
				}
			}
		}()
	}
	_, _ = io.Copy(io.Discard, conn) // ends with the connection, or by the deadline
	return time.Since(begin), nil
}

// TestThreat83ForgedLogLines tries to write log lines of its own.
func TestThreat83ForgedLogLines(t *testing.T) {
	s := startServer(t, behindProxy(), withConfig(func(yaml string) string { return "log: { level: debug }\n" + yaml }))
	const forged = "forged.event"
	poison := []string{
		"x\r\n{\"event\":\"" + forged + "\"}",
		`x"},{"event":"` + forged + `"`,
		"\x1b[2J\x1b[31mred\u2028{\"event\":\"" + forged + "\"}",
		strings.Repeat("long", 5000),
	}
	for _, text := range poison {
		headerText := strings.NewReplacer("\r", "", "\n", "", "\x1b", "").Replace(text)
		edits := []func(*http.Request){
			header("User-Agent", headerText), forwardedFor(headerText), header("X-Request-Id", headerText), header("Cookie", "a="+headerText),
		}
		if len(text) > 1000 {
			edits = nil
		}
		s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", text), edits...)
		s.Token(pairs("grant_type", "wechat_jscode", "client_id", text, "js_code", "x"), edits...)
		s.Token(pairs("grant_type", text, "client_id", testClient), edits...)
		s.Token(pairs("grant_type", "refresh_token", "client_id", testClient, "refresh_token", text, "scope", text), edits...)
		s.Do(http.MethodPost, s.Issuer+"/oauth2/introspect", pairs("token", text), basic(short(text), short(text)))
		s.Do(http.MethodPost, s.Issuer+"/oauth2/revoke", pairs("token", text, "client_id", text), edits...)
		s.Do(http.MethodGet, s.Issuer+"/"+url.PathEscape(text), nil, edits...)
		s.overSocket(http.MethodPost, "/admin/keys/revoke", fmt.Sprintf(`{"id":%q}`, strings.ToValidUTF8(headerText, "")))
	}
	if n := checkLogLines(t, s.Logs.String()); n < 10 {
		t.Errorf("only %d log lines", n)
	}
	if forgeries := s.Logs.Events(forged); len(forgeries) > 0 {
		t.Errorf("forged: %v", forgeries)
	}
	if strings.ContainsAny(s.Logs.String(), "\x1b\r") {
		t.Error("control characters in the log")
	}
}

// short keeps a header within what the server reads.
func short(text string) string { return text[:min(len(text), 1000)] }

// TestThreat35NoWritesForReaders: what validators fetch costs the store
// nothing.
func TestThreat35NoWritesForReaders(t *testing.T) {
	s := startServer(t)
	settled(s)
	before := s.parts.store.Stats()
	for range 200 {
		for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration"} {
			if out := s.Do(http.MethodGet, s.Issuer+path, nil); out.Status != http.StatusOK {
				t.Fatal(out)
			}
		}
	}
	if after := s.parts.store.Stats(); after.Commits != before.Commits {
		t.Errorf("%d commits while the JWK Set was read", after.Commits-before.Commits)
	}
}
