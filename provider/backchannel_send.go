package provider

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/outbound"
	"github.com/wxidp/wxidp/storage"
)

// typLogoutToken is the typ header of logout tokens (Back-Channel Logout §2.4).
const typLogoutToken = "logout+jwt"

// logoutTokenLifetime is short, because a token is made for each delivery.
const logoutTokenLifetime = 2 * time.Minute

// Outcomes of a delivery. Where not said otherwise it is tried again.
const (
	logoutOK        = "ok"
	logoutRefused   = "refused" // the client would say so again: given up
	logoutDropped   = "dropped" // the client is not told any more
	logoutGivenUp   = "given_up"
	logoutForbidden = "forbidden_address" // neither public nor allowed
	logoutTimedOut  = "timeout"
	logoutTLS       = "tls"
	logoutDial      = "dial"
	logoutReset     = "reset"
	logoutRedirect  = "redirect" // never followed
	logoutHTTP5xx   = "http_5xx"
	logoutStatus    = "http_status" // any other than 2xx and 400
	logoutUnsigned  = "unsigned"    // no key could sign
)

// sendLogoutToken makes one delivery, which goes on to its end or timeout
// whatever becomes of ctx. status is 0 where no answer came.
func (p *Provider) sendLogoutToken(ctx context.Context, snap *snapshot, notice storage.LogoutNotice) (outcome string, status int) {
	client := snap.client(notice.ClientID)
	if client == nil || client.BackchannelLogoutURI == "" {
		return logoutDropped, 0
	}
	token, err := p.logoutToken(snap, client, notice, time.Now())
	if err != nil {
		return logoutUnsigned, 0
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.logoutTimeout())
	defer cancel()
	// A token is made of characters that a form takes as they are.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, client.BackchannelLogoutURI, strings.NewReader("logout_token="+token))
	if err != nil {
		return logoutDial, 0
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("User-Agent", "wxidp")
	// RoundTrip and not http.Client, which would follow redirects.
	res, err := p.logouts.transport.RoundTrip(r)
	if err != nil {
		return logoutFault(ctx, err), 0
	}
	_ = res.Body.Close() // the status says all
	return logoutAnswer(res.StatusCode), res.StatusCode
}

// logoutAnswer is what a status means (Back-Channel Logout §2.8).
func logoutAnswer(status int) string {
	switch {
	case status >= 200 && status < 300:
		return logoutOK
	case status == http.StatusBadRequest:
		return logoutRefused
	case status >= 300 && status < 400:
		return logoutRedirect
	case status >= 500:
		return logoutHTTP5xx
	}
	return logoutStatus
}

// logoutFault is one word for why no answer came. Errors themselves may hold
// addresses of the operator's network.
func logoutFault(ctx context.Context, err error) string {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case errors.Is(err, outbound.ErrForbidden):
		return logoutForbidden
	case ctx.Err() != nil:
		return logoutTimedOut
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		return logoutTLS
	case errors.As(err, &op) && op.Op == "dial":
		return logoutDial
	}
	return logoutReset
}

// logoutToken signs a logout token (Back-Channel Logout §2.4) as the client's
// ID Tokens are signed. It never holds a nonce.
func (p *Provider) logoutToken(snap *snapshot, client *Client, notice storage.LogoutNotice, now time.Time) (string, error) {
	b := make([]byte, 0, 384)
	b = append(b, `{"iss":`...)
	b = appendString(b, p.issuer)
	b = append(b, `,"sub":`...)
	b = appendString(b, p.subject(snap, client, notice.UserID))
	b = append(b, `,"aud":`...)
	b = appendString(b, client.ID)
	b = appendTime(b, "iat", now)
	b = appendTime(b, "exp", now.Add(logoutTokenLifetime))
	b = append(b, `,"jti":"`...)
	var jti [16]byte
	rand.Read(jti[:])
	b = base64.RawURLEncoding.AppendEncode(b, jti[:])
	b = append(b, `","sid":`...)
	b = appendString(b, notice.FamilyID.String())
	b = append(b, `,"events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`...)
	return p.keys.Sign(client.IDTokenAlg, typLogoutToken, b)
}

func (p *Provider) logoutEvent(ctx context.Context, event, clientID string, attrs ...slog.Attr) {
	p.log.LogAttrs(ctx, slog.LevelWarn, strings.ReplaceAll(event, ".", " "),
		append([]slog.Attr{slog.String("event", event), slog.String("client_id", clientID)}, attrs...)...)
}
