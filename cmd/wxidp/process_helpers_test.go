package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/config"
)

// endWithParent ends a process that runs as the program when the test that
// started it is gone: it holds the other end of standard input.
func endWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
}

// child is the program in a process of its own.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	Stdout *logBuffer
	Stderr *logBuffer
	ended  chan struct{} // closed when the process is gone
	state  *os.ProcessState
}

// startChild runs the program with these arguments, in dir where that is not
// empty, until it ends or the test does.
func startChild(t testing.TB, dir string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0], args...), Stdout: new(logBuffer), Stderr: new(logBuffer), ended: make(chan struct{})}
	c.cmd.Dir = dir
	c.cmd.Env = []string{runMainEnv + "=1"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "WXIDP_") {
			c.cmd.Env = append(c.cmd.Env, entry)
		}
	}
	c.cmd.Stdout, c.cmd.Stderr = c.Stdout, c.Stderr
	if _, err := c.cmd.StdinPipe(); err != nil { // closed by Wait or by our end
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // its verdict is in ProcessState
		c.state = c.cmd.ProcessState
		close(c.ended)
	}()
	t.Cleanup(func() {
		c.Kill()
		if strings.Contains(c.Stderr.String(), "DATA RACE") {
			t.Errorf("data race in a child process:\n%s", c.Stderr)
		}
	})
	return c
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (c *child) Kill() {
	_ = c.cmd.Process.Kill() // gone already is as good
	<-c.ended
}

// Signal sends a signal.
func (c *child) Signal(sig os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// ExitCode waits for the end of the process; -1 stands for a signal.
func (c *child) ExitCode() int {
	c.t.Helper()
	select {
	case <-c.ended:
		return c.state.ExitCode()
	case <-time.After(30 * time.Second):
		c.t.Fatalf("the process does not end\nstdout: %.2000s\nstderr: %.2000s", c.Stdout, c.Stderr)
		return 0
	}
}

// Gone reports whether the process has ended.
func (c *child) Gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// serveChild runs the prepared server s in a process of its own and waits until
// it is ready.
func serveChild(t testing.TB, s *testServer, args ...string) *child {
	t.Helper()
	c := startChild(t, "", append([]string{"serve", "--config", s.ConfigPath(), "--drain", "0s"}, args...)...)
	c.awaitReady(s)
	return c
}

func (c *child) awaitReady(s *testServer) {
	c.t.Helper()
	eventually(c.t, "the server in a child process is ready", func() bool {
		if c.Gone() {
			c.t.Fatalf("the server ended with code %d\nstdout: %.2000s\nstderr: %.2000s", c.ExitCode(), c.Stdout, c.Stderr)
		}
		out, err := s.try(http.MethodGet, s.Issuer+"/readyz", nil)
		return err == nil && out.Status == http.StatusOK
	})
}

// runCLI runs the command line in this process.
func runCLI(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

// Socket is the path of the admin socket.
func (s *testServer) Socket() string { return filepath.Join(s.Dir, "data", "admin.sock") }

// overSocket sends a request to the admin socket.
func (s *testServer) overSocket(method, path string, body string) answer {
	s.t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.Socket())
		},
	}}
	req, err := http.NewRequest(method, "http://admin"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := answer{Status: resp.StatusCode, Header: resp.Header, Body: raw}
	if json.Unmarshal(raw, &out.JSON) != nil {
		out.JSON = nil
	}
	return out
}

// clientAt is an HTTP client that calls from another loopback address, such as
// 127.0.0.9, as the limits of one address must not meet the other.
func clientAt(ip string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// metrics returns the samples of /metrics by name and labels, as written there.
func (s *testServer) metrics() map[string]float64 {
	s.t.Helper()
	out := s.Do(http.MethodGet, s.Admin+"/metrics", nil)
	if out.Status != http.StatusOK {
		s.t.Fatalf("metrics: %d", out.Status)
	}
	samples := make(map[string]float64)
	for line := range strings.Lines(string(out.Body)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			s.t.Fatalf("metrics: %q", line)
		}
		samples[line[:i]] = value
	}
	return samples
}

// editConfig changes config.yaml by replacing strings, pairwise, each of which
// must be there.
func (s *testServer) editConfig(oldnew ...string) {
	s.t.Helper()
	yaml := s.Config()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(yaml, oldnew[i]) {
			s.t.Fatalf("config.yaml has no %q", oldnew[i])
		}
		yaml = strings.ReplaceAll(yaml, oldnew[i], oldnew[i+1])
	}
	s.WriteConfig(yaml)
}

// refresh redeems a refresh token of a client, from any goroutine.
func (s *testServer) refresh(client, token string) (answer, error) {
	return s.try(http.MethodPost, s.Issuer+"/oauth2/token",
		pairs("grant_type", "refresh_token", "client_id", client, "refresh_token", token))
}

// signIn signs a user in, from any goroutine.
func (s *testServer) signIn(client, appid, user string, edits ...func(*http.Request)) (answer, error) {
	code, err := s.Sim.Login(appid, user)
	if err != nil {
		return answer{}, err
	}
	return s.try(http.MethodPost, s.Issuer+"/oauth2/token",
		pairs("grant_type", "wechat_jscode", "client_id", client, "js_code", code), edits...)
}

// failures collects what goes wrong in goroutines.
type failures struct {
	mu    sync.Mutex
	texts []string
}

func (f *failures) add(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.texts = append(f.texts, text)
}

func (f *failures) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.texts)
}

func (f *failures) report(t testing.TB, what string) {
	t.Helper()
	if texts := f.all(); len(texts) > 0 { // the first few are worth reading
		t.Errorf("%s: %d failures, such as\n%s", what, len(texts), strings.Join(texts[:min(len(texts), 5)], "\n"))
	}
}

// within polls until ok or fails after limit, and returns how long it took.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

// checkLogLines fails unless every line is one JSON object with an event, and
// returns how many there are.
func checkLogLines(t testing.TB, logs string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(logs) {
		n++
		var event map[string]any
		decoder := json.NewDecoder(strings.NewReader(line))
		if err := decoder.Decode(&event); err != nil {
			t.Errorf("log line is no JSON: %.300q", line)
			continue
		}
		if name, _ := event["event"].(string); !eventName.MatchString(name) {
			t.Errorf("log line has event %q: %.300s", name, line)
		}
		for key, value := range event {
			if text, ok := value.(string); ok && key != "stack" && len(text) > 2048 {
				t.Errorf("log field %s has %d bytes", key, len(text))
			}
		}
	}
	return n
}

var eventName = regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)*$`)

// startErr starts a server that must not start, and returns why it did not.
func (s *testServer) startErr() error {
	s.t.Helper()
	loaded, err := config.Load(s.ConfigPath(), nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	level := new(slog.LevelVar)
	return serve(ctx, loaded, serveOptions{
		logger: slog.New(slog.NewJSONHandler(s.Logs, &slog.HandlerOptions{Level: level})),
		level:  level,
		ready:  func(*parts) { cancel() }, // it ends, and serve returns nil

		afterRestore: s.afterRestore,
	})
}

// jwtPayload reads the claims of a JWT without verifying it.
func jwtPayload(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("no JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	var claims map[string]any
	return claims, json.Unmarshal(raw, &claims)
}
