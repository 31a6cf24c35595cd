package simulator

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	tokenLife         = 2 * time.Hour
	tokenOverlap      = 5 * time.Minute // how long a replaced token goes on
	forceGap          = 30 * time.Second
	forcesPerDay      = 20
	classicPerDay     = 2000
	stablePerMinute   = 10_000
	stablePerDay      = 500_000
	maxTokens         = 10_000
	minTokenCharacter = 20 // a shorter access token is malformed
)

// token is a server access token. Times are of the simulated clock.
type token struct {
	appid   string
	expires time.Time
	ends    time.Time // when a replaced one stops; zero while it is the newest
}

// tokenFamily is the tokens of one app from one of the two APIs, which do not
// disturb each other.
type tokenFamily struct {
	current string
	forced  time.Time // the last forced renewal
	day     counter
	minute  counter
	forces  counter
}

// counter counts within one period and starts anew in the next.
type counter struct {
	period int64
	n      int
}

func (c *counter) add(period int64) int {
	if period != c.period {
		c.period, c.n = period, 0
	}
	c.n++
	return c.n
}

// dayOf is the day in China, where WeChat's quotas begin at midnight.
func dayOf(now time.Time) int64 { return (now.Unix() + 8*3600) / 86400 }

// tokenTable knows every token, the oldest excepted when there are too many.
type tokenTable struct {
	byValue map[string]*token
	queue   codeQueue
}

func newTokenTable() tokenTable { return tokenTable{byValue: map[string]*token{}} }

func (t *tokenTable) add(appid string, now time.Time) string {
	for len(t.byValue) >= maxTokens {
		oldest, _ := t.queue.front()
		delete(t.byValue, oldest)
		t.queue.pop()
	}
	value := newToken()
	t.byValue[value] = &token{appid: appid, expires: now.Add(tokenLife)}
	t.queue.push(value)
	return value
}

// replace makes a new token the current one; the old one goes on for overlap.
func (t *tokenTable) replace(f *tokenFamily, appid string, now time.Time, overlap time.Duration) *token {
	if old := t.byValue[f.current]; old != nil && now.Before(old.expires) {
		old.ends = now.Add(overlap)
		// The overlap is granted even beyond the old token's own end.
		if old.expires.Before(old.ends) {
			old.expires = old.ends
		}
	}
	f.current = t.add(appid, now)
	return t.byValue[f.current]
}

// CheckToken returns the errcode that a call with this access token would
// meet, and the app the token is of: 0, 41001 (missing), 40014 (malformed),
// 40001 (unknown or replaced) or 42001 (expired).
func (s *Simulator) CheckToken(value string) (errcode int, appid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkToken(value, s.now())
}

// checkToken is CheckToken for who holds mu.
func (s *Simulator) checkToken(value string, now time.Time) (errcode int, appid string) {
	if value == "" {
		return 41001, ""
	}
	if len(value) < minTokenCharacter || !strings.Contains(value, "_") {
		return 40014, ""
	}
	t := s.tokens.byValue[value]
	switch {
	case t == nil:
		return 40001, ""
	case !t.ends.IsZero() && !now.Before(t.ends):
		return 40001, t.appid
	case !now.Before(t.expires):
		return 42001, t.appid
	}
	return 0, t.appid
}

// staleToken is the text of 40001 where a token is used; where one is asked
// for, errmsgs has it.
const staleToken = "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, " +
	"more details at https://mmbizurl.cn/s/JtxxFh33r"

// authorize returns the app of the request's access token, or nil after an
// error. The caller holds mu.
func (s *Simulator) authorize(c *call) *app {
	errcode, appid := s.checkToken(query(c.r, "access_token"), c.now)
	c.appid = appid
	a := s.apps[appid]
	switch {
	case errcode == 40001:
		c.failText(errcode, staleToken)
	case errcode != 0:
		c.fail(errcode)
	default:
		return a
	}
	return nil
}

// ExpireTokens ends the access tokens of an app at once, as if their two
// hours were over: calls with them meet 42001, and the next fetch gives new ones.
func (s *Simulator) ExpireTokens(appid string) int {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, t := range s.tokens.byValue {
		if t.appid == appid && now.Before(t.expires) {
			t.expires, t.ends = now, time.Time{}
			n++
		}
	}
	return n
}

// credentials makes the checks that both APIs share. The caller holds mu.
func (s *Simulator) credentials(c *call, secret, grantType string) *app {
	a := s.apps[c.appid]
	switch {
	case c.appid == "":
		c.fail(41002)
	case secret == "":
		c.fail(41004)
	case grantType != "client_credential":
		c.fail(40002)
	case a == nil:
		c.fail(40013)
	case a.Secret != secret:
		c.fail(40125)
	case a.Frozen:
		c.fail(40243)
	default:
		if ip, ok := a.allows(c.r.RemoteAddr); !ok {
			c.failText(40164, "invalid ip "+ip+" ipv6 ::ffff:"+ip+", not in whitelist")
			return nil
		}
		if c.force() {
			return nil
		}
		return a
	}
	return nil
}

func (a *app) allows(remote string) (ip string, ok bool) {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	if len(a.allowed) == 0 {
		return host, true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host, false
	}
	addr = addr.Unmap()
	for _, p := range a.allowed {
		if p.Contains(addr) {
			return addr.String(), true
		}
	}
	return addr.String(), false
}

// classicToken makes a new token on every call.
func (s *Simulator) classicToken(c *call) {
	if c.r.Method != http.MethodGet {
		c.fail(43001)
		return
	}
	c.appid = query(c.r, "appid")
	secret, grantType := query(c.r, "secret"), query(c.r, "grant_type")
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.credentials(c, secret, grantType)
	if a == nil {
		return
	}
	if a.classic.day.add(dayOf(c.now)) > classicPerDay {
		c.fail(45009)
		return
	}
	t := s.tokens.replace(&a.classic, a.AppID, c.now, tokenOverlap)
	c.token(a.classic.current, t)
}

// stableToken gives the same token to everybody until its last 5 minutes.
func (s *Simulator) stableToken(c *call) {
	if c.r.Method != http.MethodPost {
		c.fail(43002)
		return
	}
	body, ok := readBody(c.r)
	if len(body) == 0 {
		c.fail(44002)
		return
	}
	var in struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh"`
	}
	if !ok || json.Unmarshal(body, &in) != nil {
		c.fail(47001)
		return
	}
	c.appid = in.AppID
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.credentials(c, in.Secret, in.GrantType)
	if a == nil {
		return
	}
	f := &a.stable
	if f.minute.add(c.now.Unix()/60) > stablePerMinute {
		c.fail(45011)
		return
	}
	if f.day.add(dayOf(c.now)) > stablePerDay {
		c.fail(45009)
		return
	}
	t := s.tokens.byValue[f.current]
	fresh := t != nil && t.expires.Sub(c.now) >= tokenOverlap
	switch {
	case in.ForceRefresh && (f.forced.IsZero() || c.now.Sub(f.forced) >= forceGap):
		if f.forces.add(dayOf(c.now)) > forcesPerDay {
			c.fail(45009)
			return
		}
		f.forced = c.now
		t = s.tokens.replace(f, a.AppID, c.now, 0)
	case !fresh:
		t = s.tokens.replace(f, a.AppID, c.now, tokenOverlap)
	}
	c.token(f.current, t)
}

func (c *call) token(value string, t *token) {
	b := append(c.body, `{"access_token":"`...)
	b = append(b, value...)
	b = append(b, `","expires_in":`...)
	b = strconv.AppendInt(b, int64(t.expires.Sub(c.now)/time.Second), 10)
	c.body = append(b, '}')
}
