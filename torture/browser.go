package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

// codeVerifier is the code_verifier of all authorization requests (RFC 7636).
const codeVerifier = "torture-verifier-0123456789-0123456789-0123456789"

// Browser is a web browser in which somebody with an account signs in.
type Browser struct {
	rig    *Rig
	User   string // the username
	client *http.Client
}

// AddAccount adds an account with a password.
func (r *Rig) AddAccount(ctx context.Context, n *Node, username string) error {
	op := &Op{Kind: Other, Node: n.Name}
	answer := r.send(ctx, n.admin, op, "http://admin/admin/users/add", map[string]string{"username": username, "password": accountWord}, nil)
	// Part of the history as one that made a user known.
	op.User, op.Sub = username, answer.text("id")
	r.History.Add(op)
	if op.Outcome != OK {
		return fmt.Errorf("adding an account: %s", op)
	}
	return nil
}

// NewBrowser returns a browser without cookies.
func (r *Rig) NewBrowser(user string) *Browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // never, without options
	}
	client := *r.http
	client.Jar = jar
	return &Browser{rig: r, User: user, client: &client}
}

// trip is one request of the browser. Cookies belong to the node's address, so
// a browser stays with one node.
func (b *Browser) trip(ctx context.Context, n *Node, path string, form url.Values) (*Op, *reply) {
	op := &Op{Kind: Other, Node: n.Name, User: b.User}
	header := http.Header{}
	if form != nil {
		header.Set("Origin", "null")
		header.Set("Sec-Fetch-Site", "same-origin")
	}
	var body any
	if form != nil {
		body = form
	}
	answer := b.rig.send(ctx, b.client, op, b.rig.url(n, path), body, header)
	return op, answer
}

var (
	passwordForm = regexp.MustCompile(`<form method="post" action="([^"]+/password)">`)
	csrfField    = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)
)

// errSignedOut: there is no login session, or no more.
var errSignedOut = errors.New("the browser is not signed in")

// Authorize asks for an authorization code within the login session; a browser
// without one signs in first.
func (b *Browser) Authorize(ctx context.Context, n *Node) (code string, op *Op) {
	sum := sha256.Sum256([]byte(codeVerifier))
	query := url.Values{"client_id": {webApp}, "redirect_uri": {redirectURI}, "response_type": {"code"},
		"scope": {"openid profile offline_access orders.read"}, "state": {"0123456789abcdef"}, "nonce": {"0123456789abcdef"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	op, answer := b.trip(ctx, n, "/oauth2/authorize?"+query.Encode(), nil)
	signedIn := false
	for range 6 {
		location, _ := url.Parse(answer.header.Get("Location"))
		switch {
		case op.Outcome != OK:
			b.rig.History.Add(op)
			return "", op
		case answer.status >= 300 && strings.HasPrefix(location.String(), redirectURI+"?"):
			code = location.Query().Get("code")
			if code == "" {
				op.Outcome, op.Error = Denied, location.Query().Get("error")
			}
			op.Kind, op.Client, op.Issued = Authorize, webApp, fingerprint(code)
			b.rig.History.Add(op)
			return code, op
		case answer.status >= 300:
			b.rig.History.Add(op)
			op, answer = b.trip(ctx, n, location.RequestURI(), nil)
		default:
			form := passwordForm.FindSubmatch(answer.body)
			if form == nil || signedIn {
				op.Outcome, op.Error = Unknown, errSignedOut.Error()
				b.rig.History.Add(op)
				return "", op
			}
			signedIn = true
			b.rig.History.Add(op)
			op, answer = b.trip(ctx, n, html.UnescapeString(string(form[1])), b.fill(answer.body))
		}
	}
	op.Outcome, op.Error = Unknown, "redirects without an end"
	b.rig.History.Add(op)
	return "", op
}

// fill fills in the form of the sign-in page.
func (b *Browser) fill(page []byte) url.Values {
	form := url.Values{"username": {b.User}, "password": {accountWord}}
	if field := csrfField.FindSubmatch(page); field != nil {
		form.Set(html.UnescapeString(string(field[1])), html.UnescapeString(string(field[2])))
	}
	return form
}
