package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// traffic is clients that sign in, refresh and ask until it is stopped.
type traffic struct {
	answers atomic.Int64
	failed  failures
	stop    func() // waits until all have stopped
}

// startTraffic lets n clients work against whatever target they get for each
// request. judge says whether an answer is a failure, and whether the client
// goes on with a new sign-in.
func startTraffic(t testing.TB, n int, target func(i int) *testServer, judge func(out answer, err error) (again bool, failure string)) *traffic {
	t.Helper()
	load := new(traffic)
	done := make(chan struct{})
	var working sync.WaitGroup
	for client := range n {
		working.Go(func() {
			turn := client
			send := func(do func(s *testServer) (answer, error)) (out answer, ok bool) {
				for {
					select {
					case <-done:
						return answer{}, false
					default:
					}
					turn++
					out, err := do(target(turn))
					load.answers.Add(1)
					again, failure := judge(out, err)
					if failure != "" {
						load.failed.add(failure)
						return out, false
					}
					if !again {
						return out, true
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
			for user := 0; ; user++ {
				select {
				case <-done:
					return
				default:
				}
				out, ok := send(func(s *testServer) (answer, error) {
					return s.signIn(testClient, testAppID, fmt.Sprintf("user-%d-%d", client, user), phone())
				})
				for range 10 {
					if !ok {
						break
					}
					token, access := out.str("refresh_token"), out.str("access_token")
					if _, ok = send(func(s *testServer) (answer, error) {
						return s.try(http.MethodGet, s.Issuer+"/oauth2/userinfo", nil, bearer(access), phone())
					}); !ok {
						break
					}
					out, ok = send(func(s *testServer) (answer, error) {
						return s.try(http.MethodPost, s.Issuer+"/oauth2/token", refreshForm(token), phone())
					})
				}
			}
		})
	}
	load.stop = sync.OnceFunc(func() { close(done); working.Wait() })
	t.Cleanup(load.stop)
	return load
}

// TestNodesRollingRestart restarts nodes one after the other under load; no
// client notices.
func TestNodesRollingRestart(t *testing.T) {
	t.Parallel()
	c := prepareCluster(t, 2, withScanning())
	children := make([]*child, len(c.nodes))
	start := func(i int) {
		children[i] = startChild(t, "", "serve", "--config", c.nodes[i].ConfigPath(), "--drain", "1s")
		children[i].awaitReady(c.nodes[i])
	}
	for i, node := range c.nodes {
		start(i)
		c.balancer.add(node)
	}
	load := startTraffic(t, 6, func(int) *testServer { return c.testServer }, func(out answer, err error) (bool, string) {
		if err != nil || out.Status != http.StatusOK {
			return false, fmt.Sprint(out, err)
		}
		return false, ""
	})
	restarts := 3
	for n := range restarts {
		i := n % len(c.nodes)
		served := load.answers.Load()
		eventually(t, "traffic", func() bool { return load.answers.Load() > served+50 })
		stream := openEvents(t, c.nodes[i])
		begin := time.Now()
		children[i].Signal(syscall.SIGTERM)
		within(t, 5*time.Second, "not ready", func() bool {
			out, err := c.nodes[i].try(http.MethodGet, c.nodes[i].Admin+"/readyz", nil)
			return err != nil || out.Status == http.StatusServiceUnavailable
		})
		if _, err := io.Copy(io.Discard, stream); err != nil {
			t.Errorf("a stream of events ended with %v", err)
		}
		// Who comes now is told as much and comes again.
		if events, err := io.ReadAll(openEvents(t, c.nodes[i])); err != nil || !strings.HasPrefix(string(events), `data: {"state":"waiting"}`) {
			t.Errorf("a stream of a node that ends: %q, %v", events, err)
		}
		if code := children[i].ExitCode(); code != 0 {
			t.Errorf("exit code %d\n%.2000s", code, children[i].Stdout)
		}
		t.Logf("restart %d: the node ended after %v", n, time.Since(begin).Round(time.Millisecond))
		for _, event := range children[i].Stdout.Events("server.cut_off") {
			t.Errorf("%v", event)
		}
		start(i)
		eventually(t, "the balancer uses both nodes", func() bool { return c.balancer.readyNodes() == len(c.nodes) })
	}
	load.stop()
	load.failed.report(t, fmt.Sprintf("%d restarts, %d requests", restarts, load.answers.Load()))
	t.Logf("%d requests during %d restarts", load.answers.Load(), restarts)
}

// openEvents is a browser's page that waits at a node for its code to be
// scanned.
func openEvents(t testing.TB, node *testServer) io.ReadCloser {
	t.Helper()
	browser := newSurfer(node, "203.0.113.8")
	target, _ := authorizeURL(node)
	_, page, _ := browser.get(target)
	request, err := http.NewRequest(http.MethodGet, node.Issuer+scanOn(t, page).base+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	browser.home(request)
	answer, err := browser.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("events: %d", answer.StatusCode)
	}
	return answer.Body
}
