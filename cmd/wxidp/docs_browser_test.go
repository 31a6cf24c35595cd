package main

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedWebApplications builds and runs the web application in Go of
// the documentation, and signs a person in to it.
func TestDocumentedWebApplications(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	listen := freeAddress(t)
	const secret = "0123456789abcdef0123456789abcdef-shop-web"
	s := startServer(t, appending(`
  - client_id: shop-web
    type: confidential
    client_secret: `+secret+`
    grant_types: [authorization_code]
    redirect_uris: ["http://`+listen+`/callback"]
    scopes: [openid, profile]
`))
	sub := addAccount(s, "lin")
	s.writeFile("secrets/shop-web", secret+"\n")
	csrf := regexp.MustCompile(`name="csrf" value="([^"]+)"`)

	for _, file := range []string{"docs/browser-sign-in.md", "docs/browser-sign-in.zh-CN.md"} {
		t.Run(file, func(t *testing.T) {
			program := buildSnippet(t, strings.NewReplacer("http://127.0.0.1:8080", s.Issuer, "127.0.0.1:3000", listen, "wxidp-dev/", s.Dir+"/").
				Replace(codeBlock(t, filepath.Join("..", "..", file), "go")))
			ctx, cancel := context.WithCancel(context.Background())
			cmd := exec.CommandContext(ctx, program)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cancel(); _ = cmd.Wait() }() // killed: its status says nothing
			eventually(t, "the application listens", func() bool {
				_, err := s.try(http.MethodGet, "http://"+listen+"/", nil)
				return err == nil
			})

			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			browser := &http.Client{Jar: jar, Transport: testHTTP.Transport}
			// visit returns where the browser ends up, and what it shows.
			visit := func(resp *http.Response, err error) (page *url.URL, text string) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp.Request.URL, string(body)
			}
			page, text := visit(browser.Get("http://" + listen + "/login"))
			token := csrf.FindStringSubmatch(text)
			if token == nil {
				t.Fatalf("%s is not the sign-in page:\n%s", page, text)
			}
			form := url.Values{"csrf": {token[1]}, "username": {"lin"}, "password": {testPassword}}
			if page, text = visit(browser.PostForm(page.String()+"/password", form)); strings.Contains(text, `id="allow"`) {
				form = url.Values{"csrf": {csrf.FindStringSubmatch(text)[1]}}
				_, text = visit(browser.PostForm(page.String()+"/allow", form))
			}
			if want := "Hello, you are " + sub + "\n"; text != want {
				t.Errorf("the application says %q, want %q", text, want)
			}
			if _, text := visit(browser.Get("http://" + listen + "/callback?code=x&state=y&iss=" + url.QueryEscape(s.Issuer))); !strings.Contains(text, "no sign-in") {
				t.Errorf("an answer nobody asked for: %q", text)
			}
		})
	}
}
