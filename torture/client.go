package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Tokens are what a family's owner holds.
type Tokens struct{ Access, Refresh string }

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
	json   map[string]any
}

func (r *reply) text(name string) string { s, _ := r.json[name].(string); return s }

// maxAnswer bounds what is read of an answer.
const maxAnswer = 4 << 20

// send sends a request and fills in all of op that does not depend on its kind.
// A form makes it a POST. The operation is not yet part of the history.
func (r *Rig) send(ctx context.Context, client *http.Client, op *Op, target string, body any, header http.Header) *reply {
	method, contentType, raw := http.MethodGet, "", []byte(nil)
	switch body := body.(type) {
	case nil:
	case url.Values:
		method, contentType, raw = http.MethodPost, "application/x-www-form-urlencoded", []byte(body.Encode())
	default:
		var err error
		if raw, err = json.Marshal(body); err != nil {
			panic(err) // a type of this program
		}
		method, contentType = http.MethodPost, "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(raw))
	if err != nil {
		panic(err) // an address of this program
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if issuer, ok := strings.CutPrefix(r.Issuer, "http://"); ok && client != nil && client.Transport != nil && !strings.HasPrefix(target, "http://admin/") {
		req.Host = issuer
	}
	op.Start = r.History.Now()
	out, err := client.Do(req)
	answer := &reply{}
	if err == nil {
		answer.status, answer.header = out.StatusCode, out.Header
		answer.body, err = io.ReadAll(io.LimitReader(out.Body, maxAnswer))
		out.Body.Close()
	}
	op.End = r.History.Now()
	if err != nil {
		op.Outcome, op.Error, op.Cut = Unknown, reason(err), ctx.Err() != nil
		return answer
	}
	_ = json.Unmarshal(answer.body, &answer.json) // nil where it is no object
	op.Status, op.Error, op.RetryAfter = answer.status, answer.text("error"), answer.header.Get("Retry-After") != ""
	switch {
	case answer.status < 400:
		op.Outcome = OK
	case answer.status < 500 && answer.status != http.StatusTooManyRequests:
		op.Outcome = Denied
	default:
		op.Outcome = Unknown
	}
	return answer
}

// reason is the innermost error: the outer ones repeat the address.
func reason(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

func (r *Rig) url(n *Node, path string) string { return "http://" + n.Address + path }

// SignIn sends a js_code of a user, with an Idempotency-Key where key is not
// "".
func (r *Rig) SignIn(ctx context.Context, n *Node, user, jsCode, key string) (*Op, Tokens) {
	op := &Op{Kind: SignIn, Node: n.Name, User: user, Client: miniProgram, Token: fingerprint(jsCode), Key: fingerprint(key)}
	header := http.Header{}
	if key != "" {
		// Spelt so that net/http does not see that it might send the request again
		// by itself: the history must have every request.
		header["idempotency-key"] = []string{key}
	}
	answer := r.send(ctx, r.http, op, r.url(n, "/oauth2/token"),
		url.Values{"grant_type": {"wechat_jscode"}, "client_id": {miniProgram}, "js_code": {jsCode}}, header)
	return r.issued(op, answer)
}

// Refresh presents a refresh token of a family.
func (r *Rig) Refresh(ctx context.Context, n *Node, user, client, family, token string) (*Op, Tokens) {
	op := &Op{Kind: Refresh, Node: n.Name, User: user, Client: client, Token: fingerprint(token), Family: family}
	answer := r.send(ctx, r.http, op, r.url(n, "/oauth2/token"),
		url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token}}, nil)
	return r.issued(op, answer)
}

// Redeem exchanges an authorization code of the web application.
func (r *Rig) Redeem(ctx context.Context, n *Node, user, code string) (*Op, Tokens) {
	op := &Op{Kind: Redeem, Node: n.Name, User: user, Client: webApp, Token: fingerprint(code)}
	answer := r.send(ctx, r.http, op, r.url(n, "/oauth2/token"), url.Values{"grant_type": {"authorization_code"}, "client_id": {webApp},
		"code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {codeVerifier}}, nil)
	return r.issued(op, answer)
}

// issued ends an operation that is answered with tokens.
func (r *Rig) issued(op *Op, answer *reply) (*Op, Tokens) {
	var tokens Tokens
	if op.Outcome == OK {
		tokens = Tokens{answer.text("access_token"), answer.text("refresh_token")}
		claims, err := readClaims(tokens.Access)
		if err != nil {
			op.Status, op.Error = 599, err.Error() // an answer that no server may give
		}
		op.Sub, op.AnswerClient, op.Audience, op.Family = claims.Sub, claims.ClientID, claims.Audience, claims.SID
		op.Access, op.Issued = fingerprint(tokens.Access), fingerprint(tokens.Refresh)
	}
	r.History.Add(op)
	return op, tokens
}

// claims are those of an access token that the rules look at.
type claims struct {
	Sub      string `json:"sub"`
	ClientID string `json:"client_id"`
	SID      string `json:"sid"`
	Audience string `json:"-"`
	RawAud   any    `json:"aud"`
}

// readClaims decodes a token that the server has just issued.
func readClaims(token string) (c claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, errors.New("the access token is no JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	c.Audience = oneAudience(c.RawAud)
	return c, err
}

// oneAudience is the aud claim in one text, be it a string or an array.
func oneAudience(aud any) string {
	switch aud := aud.(type) {
	case string:
		return aud
	case []any:
		var parts []string
		for _, part := range aud {
			parts = append(parts, fmt.Sprint(part))
		}
		return strings.Join(parts, " ")
	}
	return ""
}

func basicAuth(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

var backendAuth = basicAuth(backend, backendKey)

// Introspect asks as the backend whether an access token is active.
func (r *Rig) Introspect(ctx context.Context, n *Node, user, client, family, access string) *Op {
	op := &Op{Kind: Introspect, Node: n.Name, User: user, Client: client, Token: fingerprint(access), Family: family}
	answer := r.send(ctx, r.http, op, r.url(n, "/oauth2/introspect"), url.Values{"token": {access}}, http.Header{"Authorization": {backendAuth}})
	switch {
	case op.Outcome == Denied:
		op.Outcome = Unknown // the question was refused, which is no answer to it
	case op.Outcome == OK && answer.json["active"] != true:
		op.Outcome = Denied
	case op.Outcome == OK:
		op.Sub, op.AnswerClient, op.Audience = answer.text("sub"), answer.text("client_id"), oneAudience(answer.json["aud"])
	}
	r.History.Add(op)
	return op
}

// UserInfo asks who the user of an access token is.
func (r *Rig) UserInfo(ctx context.Context, n *Node, user, client, family, access string) *Op {
	op := &Op{Kind: UserInfo, Node: n.Name, User: user, Client: client, Token: fingerprint(access), Family: family}
	answer := r.send(ctx, r.http, op, r.url(n, "/oauth2/userinfo"), nil, http.Header{"Authorization": {"Bearer " + access}})
	if op.Outcome == OK {
		op.Sub = answer.text("sub")
	}
	r.History.Add(op)
	return op
}

// Revoke revokes a refresh token, which ends its family, or an access token.
func (r *Rig) Revoke(ctx context.Context, n *Node, kind Kind, user, client, family, token string) *Op {
	op := &Op{Kind: kind, Node: n.Name, User: user, Client: client, Token: fingerprint(token), Family: family}
	r.send(ctx, r.http, op, r.url(n, "/oauth2/revoke"), url.Values{"client_id": {client}, "token": {token}}, nil)
	r.History.Add(op)
	return op
}

// Administer disables or enables a user, or ends the user's sign-ins.
func (r *Rig) Administer(ctx context.Context, n *Node, kind Kind, user, sub string) *Op {
	op := &Op{Kind: kind, Node: n.Name, User: user}
	path := map[Kind]string{Disable: "users/disable", Enable: "users/enable", EndUser: "sessions/revoke"}[kind]
	r.send(ctx, n.admin, op, "http://admin/admin/"+path, map[string]string{"who": sub}, nil)
	r.History.Add(op)
	return op
}

// ClientCredentials gets a token for the backend itself, which writes nothing.
func (r *Rig) ClientCredentials(ctx context.Context, n *Node) *Op {
	op := &Op{Kind: Other, Node: n.Name, Client: backend}
	r.send(ctx, r.http, op, r.url(n, "/oauth2/token"), url.Values{"grant_type": {"client_credentials"}}, http.Header{"Authorization": {backendAuth}})
	r.History.Add(op)
	return op
}

// Get fetches a path of the public listener; its answer is judged by the
// status alone.
func (r *Rig) Get(ctx context.Context, n *Node, path string) *Op {
	op := &Op{Kind: Other, Node: n.Name}
	r.send(ctx, r.http, op, r.url(n, path), nil, nil)
	r.History.Add(op)
	return op
}

// Census lists users and families through the admin API.
func (r *Rig) Census(ctx context.Context, n *Node) (census Census, err error) {
	ask := func(path string, body, into any) error {
		op := &Op{Kind: Other, Node: n.Name}
		answer := r.send(ctx, n.admin, op, "http://admin/admin/"+path, body, nil)
		r.History.Add(op)
		if op.Outcome != OK {
			return fmt.Errorf("%s: %s", path, op)
		}
		return json.Unmarshal(answer.body, into)
	}
	for after := ""; ; {
		var page struct {
			Users []struct{ ID string } `json:"users"`
			Next  string                `json:"next"`
		}
		if err := ask("users?after="+url.QueryEscape(after), nil, &page); err != nil {
			return census, err
		}
		for _, user := range page.Users {
			census.Users = append(census.Users, user.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	for after := ""; ; {
		var page struct {
			SignIns []struct {
				SID, Sub, State string
			} `json:"sign_ins"`
			Next string `json:"next"`
		}
		if err := ask("sessions", map[string]any{"all": true, "after": after}, &page); err != nil {
			return census, err
		}
		for _, in := range page.SignIns {
			census.Families = append(census.Families, Listed{in.SID, in.Sub, in.State == "ended"})
		}
		if after = page.Next; after == "" {
			return census, nil
		}
	}
}
