package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
)

// checkSession answers whether the signature is made with the session_key
// that the user has.
func (s *Simulator) checkSession(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, m := s.signedBy(c, 87009); m != nil {
		c.body = append(c.body, `{"errcode":0,"errmsg":"ok"}`...)
	}
}

// resetSession replaces the session_key; the new one ends when the old one
// would have.
func (s *Simulator) resetSession(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, m := s.signedBy(c, 87007)
	if m == nil {
		return
	}
	m.sessionKey, m.rotated = newSessionKey(), c.now.UnixNano()
	b := append(c.body, `{"errcode":0,"errmsg":"ok","openid":"`...)
	b = append(b, m.openID...)
	b = append(b, `","session_key":"`...)
	b = append(b, a.slashes(m.sessionKey)...)
	c.body = append(b, `"}`...)
}

// signedBy returns the member who signed the request, or nil after an error;
// ended is the errcode where he has no session_key. The caller holds mu.
func (s *Simulator) signedBy(c *call, ended int) (*app, *member) {
	if c.r.Method != http.MethodGet {
		c.fail(43001)
		return nil, nil
	}
	a := s.authorize(c)
	if a == nil || c.force() {
		return nil, nil
	}
	openID := query(c.r, "openid")
	m := a.openIDs[openID]
	switch {
	case openID == "":
		c.fail(41009)
	case m == nil:
		c.fail(40003)
	case query(c.r, "sig_method") != "hmac_sha256":
		c.fail(87008)
	case m.sessionKey == "" || c.now.UnixNano() >= m.expires:
		c.fail(ended)
	case query(c.r, "signature") != signature(m.sessionKey):
		c.fail(87009)
	default:
		return a, m
	}
	return nil, nil
}

// signature is that of an empty message; its key is the text of the session_key.
func signature(sessionKey string) string {
	return hex.EncodeToString(hmac.New(sha256.New, []byte(sessionKey)).Sum(nil))
}
