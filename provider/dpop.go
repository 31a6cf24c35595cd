package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

const (
	// maxProof bounds the DPoP header, in bytes.
	maxProof = 8 << 10
	// A proof is good from proofAge before its arrival to proofAhead after it:
	// it is made for one request, by a clock that may be off a little.
	proofAge   = time.Minute
	proofAhead = 10 * time.Second
	// proofMemory is how long a jti is taken. No proof is accepted for longer,
	// by nodes whose clocks differ by less than two minutes.
	proofMemory = 4 * time.Minute
)

// dpopProof checks the proof of possession that comes with a request to one of
// our own URLs (RFC 9449 §4.3) and returns the RFC 7638 thumbprint of its key,
// "" for a request without one. accessToken is the token that is presented
// with it, "" at the token endpoint. The jti is taken last, once all else is
// right.
func (p *Provider) dpopProof(ctx context.Context, req Request, method, url, accessToken string) (jkt string, err error) {
	header := req.HTTP.Header.Values("DPoP")
	if len(header) == 0 {
		return "", nil
	}
	refuse := func(reason string) error { return fail(InvalidDPoPProof, msgDPoPProof).reason(reason) }
	if len(header) > 1 {
		return "", refuse("dpop_twice")
	}
	proof, err := parseProof(header[0])
	if err != nil {
		return "", err
	}
	switch {
	case proof.Method != method:
		return "", refuse("dpop_htm")
	case !sameURI(proof.URI, url):
		return "", refuse("dpop_htu")
	case accessToken != "" && proof.TokenHash != tokenHash(accessToken):
		return "", refuse("dpop_ath")
	}
	if err := proof.timely(time.Now()); err != nil {
		return "", err
	}
	if p.settings().DPoPNonce && !p.knowsNonce(proof.Nonce) {
		return "", fail(UseDPoPNonce, msgDPoPNonce).reason("dpop_nonce")
	}
	// Nothing that a proof says of its address is in the key: one spelled
	// otherwise is the same proof.
	taken, err := p.store.Claim(ctx, digest("dpop proof", proof.jkt, proof.JTI, method, url), proofMemory)
	if err != nil {
		return "", err
	}
	if !taken {
		return "", fail(InvalidDPoPProof, msgDPoPReplayed).reason("dpop_replayed")
	}
	return proof.jkt, nil
}

// timely judges the times of a proof.
func (c *proofClaims) timely(now time.Time) error {
	// NumericDates may have fractions.
	at, ahead := float64(now.UnixNano())/1e9, proofAhead.Seconds()
	switch {
	case at-*c.IssuedAt > proofAge.Seconds(), *c.IssuedAt-at > ahead,
		c.Expires != nil && at-*c.Expires >= ahead,
		c.NotBefore != nil && *c.NotBefore-at > ahead:
		return fail(InvalidDPoPProof, msgDPoPTime).reason("dpop_time")
	}
	return nil
}

// tokenHash is the ath of a proof (RFC 9449 §4.2).
func tokenHash(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// tokenProof checks the proof of a request to the token endpoint, once for a
// request, and puts the thumbprint of its key into the session, whose access
// token is bound to it. It must come before anything is spent or committed.
func (p *Provider) tokenProof(ctx context.Context, sess *session) error {
	if sess.proven {
		return nil
	}
	jkt, err := p.dpopProof(ctx, sess.req, http.MethodPost, p.issuer+PathToken, "")
	if err != nil {
		return err
	}
	if jkt == "" && sess.client.DPoPBound {
		return fail(InvalidDPoPProof, msgDPoPMissing).reason("dpop_missing")
	}
	sess.jkt, sess.proven = jkt, true
	return nil
}

// pushedKey is the key that the code of a pushed authorization request is to
// be bound to (RFC 9449 §10.1): that of the proof that comes along, or named by
// dpop_jkt, which must not name another. "": none.
func (p *Provider) pushedKey(ctx context.Context, req Request, named string) (string, error) {
	jkt, err := p.dpopProof(ctx, req, http.MethodPost, p.issuer+PathPushed, "")
	switch {
	case err != nil:
		return "", err
	case jkt == "":
		return named, nil
	case named != "" && named != jkt:
		return "", fail(InvalidDPoPProof, msgDPoPOtherKey).reason("dpop_other_key")
	}
	return jkt, nil
}

// resourceProof checks that an access token comes from who holds its key, if
// it is bound to one, by the scheme that says so (RFC 9449 §7.1).
func (p *Provider) resourceProof(ctx context.Context, req Request, token activeToken, scheme, presented string) error {
	jkt := token.thumbprint()
	switch {
	case jkt == "" && scheme == schemeDPoP:
		return possession(fail(InvalidToken, msgDPoPUnbound).reason("unbound_token_with_dpop"))
	case jkt == "":
		return nil
	case scheme != schemeDPoP:
		return possession(fail(InvalidToken, msgDPoPBound).reason("bound_token_as_bearer"))
	}
	proven, err := p.dpopProof(ctx, req, req.HTTP.Method, p.resourceURL(req.HTTP), presented)
	if err != nil {
		if refusal := AsError(err); refusal.Code == InvalidDPoPProof || refusal.Code == UseDPoPNonce {
			return possession(refusal)
		}
		return err
	}
	switch proven {
	case jkt:
		return nil
	case "":
		return possession(fail(InvalidDPoPProof, msgDPoPMissing).reason("dpop_missing"))
	}
	return possession(fail(InvalidToken, msgDPoPOtherKey).reason("dpop_other_key"))
}

// resourceURL is the URL of a request by its path and the issuer's origin: what
// the request says of its host proves nothing.
func (p *Provider) resourceURL(r *http.Request) string {
	origin := p.issuer
	if scheme := strings.Index(origin, "://"); scheme >= 0 {
		if host := strings.IndexByte(origin[scheme+3:], '/'); host >= 0 {
			origin = origin[:scheme+3+host]
		}
	}
	return origin + r.URL.EscapedPath()
}

// possession makes a refusal one of a protected resource that wants a proof.
func possession(e *Error) *Error {
	e.Scheme, e.Status = schemeDPoP, http.StatusUnauthorized
	return e
}
