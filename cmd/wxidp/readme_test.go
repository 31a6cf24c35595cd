package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDocumentedResourceServers builds and runs the Go programs of the
// documentation: fences after a line <!-- checked: go --> or go-scope.
func TestDocumentedResourceServers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	s := startServer(t)
	user := s.SignIn("alice")
	narrow := s.Token(pairs("grant_type", "wechat_jscode", "client_id", testClient, "js_code", s.Code(testAppID, "alice"), "scope", "openid"))
	if narrow.Status != http.StatusOK {
		t.Fatalf("sign-in: %v", narrow)
	}
	owner := fmt.Sprintf("orders of %s\n", s.UserInfo(user.str("access_token")).str("sub"))

	for _, doc := range []struct{ file, block string }{
		{"README.md", "go"},
		{"README.zh-CN.md", "go"},
		{"docs/resource-servers.md", "go-scope"},
		{"docs/resource-servers.zh-CN.md", "go-scope"},
	} {
		t.Run(doc.file, func(t *testing.T) {
			listen := freeAddress(t)
			program := buildSnippet(t, strings.NewReplacer("http://127.0.0.1:8080", s.Issuer, "127.0.0.1:3000", listen).
				Replace(codeBlock(t, filepath.Join("..", "..", doc.file), doc.block)))
			ctx, cancel := context.WithCancel(context.Background())
			cmd := exec.CommandContext(ctx, program)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cancel(); _ = cmd.Wait() }() // killed: its status says nothing
			orders := "http://" + listen + "/orders"
			eventually(t, "the snippet listens", func() bool {
				_, err := s.try(http.MethodGet, orders, nil)
				return err == nil
			})

			if got := s.Do(http.MethodGet, orders, nil, bearer(user.str("access_token"))); got.Status != http.StatusOK || string(got.Body) != owner {
				t.Errorf("access token: %v, want %q", got, owner)
			}
			if doc.block == "go-scope" {
				if got := s.Do(http.MethodGet, orders, nil, bearer(narrow.str("access_token"))); got.Status != http.StatusForbidden {
					t.Errorf("access token without the scope: %v", got)
				}
			}
			for name, token := range map[string]string{
				"none": "", "garbage": "garbage", "ID Token": user.str("id_token"), "refresh token": user.str("refresh_token"),
				"changed": user.str("access_token") + "x",
			} {
				got := s.Do(http.MethodGet, orders, nil, bearer(token))
				if got.Status != http.StatusUnauthorized || got.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %v", name, got)
				}
			}
		})
	}
}

// codeBlock returns the one checked block of that name in a document.
func codeBlock(t *testing.T, path, name string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?ms)^<!-- checked: " + name + " -->\n```go\n(.*?)^```$").FindSubmatch(raw)
	if found == nil {
		t.Fatalf("%s has no block %q", path, name)
	}
	return string(found[1])
}

// buildSnippet builds a program with the dependencies of this module.
func buildSnippet(t *testing.T, code string) (program string) {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "snippet")
	if err := os.WriteFile(source, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, args := range [][]string{{"vet", source}, {"build", "-o", program, source}} {
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args[0], err, out)
		}
	}
	if formatted, err := exec.CommandContext(ctx, "gofmt", "-l", source).Output(); err != nil || len(formatted) > 0 {
		t.Errorf("gofmt: the block is not formatted (%v)", err)
	}
	return program
}

// TestOperationsManualIsComplete holds the lists of log events and metrics
// against the source and a running server.
func TestOperationsManualIsComplete(t *testing.T) {
	root := filepath.Join("..", "..")
	names := map[string]bool{}
	event := regexp.MustCompile(`(?:"event", |warn\(ctx, (?:sess\.)?req, )"([a-z_]+(?:\.[a-z_]+)*)"`)
	for _, folder := range []string{"cmd/wxidp", "web", "provider", "grants", "accounts", "wechat", "storage/bolt", "storage/postgres", "keys", "config"} {
		sources, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
		if err != nil || len(sources) == 0 {
			t.Fatalf("%s: no sources (%v)", folder, err)
		}
		for _, source := range sources {
			if strings.HasSuffix(source, "_test.go") {
				continue
			}
			raw, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range event.FindAllSubmatch(raw, -1) {
				names[string(match[1])] = true
			}
		}
	}
	s := startServer(t)
	s.SignIn("alice")
	metric := regexp.MustCompile(`(?m)^# TYPE (wxidp_\w+)`)
	metrics := metric.FindAllSubmatch(s.Do(http.MethodGet, s.Admin+"/metrics", nil).Body, -1)
	for _, match := range metrics {
		names[string(match[1])] = true
	}
	if len(names) < 40 || len(metrics) < 10 {
		t.Fatalf("found %d names, %d of them metrics: the search is broken", len(names), len(metrics))
	}
	for _, manual := range []string{"docs/operations.md", "docs/operations.zh-CN.md"} {
		raw, err := os.ReadFile(filepath.Join(root, manual))
		if err != nil {
			t.Fatal(err)
		}
		for name := range names {
			if !strings.Contains(string(raw), "`"+name+"`") {
				t.Errorf("%s does not tell of %s", manual, name)
			}
		}
	}
}
