package provider

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

const (
	// pushedPrefix is that of every request_uri we give out (RFC 9126 §2.2).
	pushedPrefix   = "urn:ietf:params:oauth:request_uri:"
	pushedLifetime = time.Minute
)

// Push takes a pushed authorization request (RFC 9126 §2) and answers with the
// response body. The client authenticates as at the token endpoint.
func (p *Provider) Push(ctx context.Context, req Request) ([]byte, error) {
	client, err := p.authenticateRequest(ctx, req, PathPushed)
	if err != nil {
		return nil, err
	}
	if req.HTTP.PostForm.Get("request_uri") != "" {
		return nil, fail(InvalidRequest, msgRequestObject).reason("request_uri_pushed")
	}
	params := known(req.HTTP.PostForm)
	params.Set("client_id", client.ID) // it may have been in the Authorization header only
	// RFC 9449 §10.1: a proof that comes along binds the code to its key.
	jkt, err := p.pushedKey(ctx, req, params.Get("dpop_jkt"))
	if err != nil {
		return nil, err
	}
	if jkt != "" {
		params.Set("dpop_jkt", jkt)
	}
	if _, err := p.parseAuthRequest(ctx, p.settings(), params); err != nil {
		return nil, AsError(err)
	}
	value, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	if err := p.mayBegin(req); err != nil {
		return nil, err
	}
	token := storage.NewToken()
	if _, err := p.store.PutIfAbsent(ctx, storage.ItemPushedRequest, pushedKeyOf(client.ID, token), value, pushedLifetime); err != nil {
		return nil, err
	}
	body := append([]byte(`{"request_uri":"`+pushedPrefix), token...)
	body = append(body, `","expires_in":`...)
	return append(strconv.AppendInt(body, int64(pushedLifetime/time.Second), 10), "}\n"...), nil
}

// pushedKeyOf names a pushed request in the store. The client is part of it, so
// that another one cannot even spend it.
func pushedKeyOf(clientID, token string) []byte { return []byte(token + clientID) }

// pushed returns the parameters of the authorization request: those that were
// pushed before, once, where params name them (RFC 9126 §4).
func (p *Provider) pushed(ctx context.Context, snap *snapshot, params url.Values) (url.Values, error) {
	if err := onceEach(params); err != nil {
		return nil, err
	}
	token, ok := strings.CutPrefix(params.Get("request_uri"), pushedPrefix)
	if !ok {
		if client := snap.client(params.Get("client_id")); client != nil && client.RequirePushed {
			return nil, fail(InvalidRequest, msgPushedRequired).reason("not_pushed")
		}
		return params, nil
	}
	refusal := fail(InvalidRequestURI, msgPushedRequest).reason("pushed_request")
	if !storage.IsToken(token) {
		return nil, refusal
	}
	value, verdict, err := p.store.Consume(ctx, storage.ItemPushedRequest, pushedKeyOf(params.Get("client_id"), token))
	if err != nil {
		return nil, err
	}
	var stored url.Values
	if verdict != storage.ConsumeOK || json.Unmarshal(value, &stored) != nil || stored.Get("client_id") != params.Get("client_id") {
		return nil, refusal
	}
	return stored, nil
}
