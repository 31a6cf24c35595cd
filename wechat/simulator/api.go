package simulator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The paths of WeChat's API that are simulated.
const (
	PathCode2Session = "/sns/jscode2session"
	PathToken        = "/cgi-bin/token"
	PathStableToken  = "/cgi-bin/stable_token"
	PathPhoneNumber  = "/wxa/business/getuserphonenumber"
	PathCheckSession = "/wxa/checksession"
	PathResetSession = "/wxa/resetusersessionkey"
	PathQRCode       = "/wxa/getwxacodeunlimit"
)

// endpoint is one path and what answers it.
type endpoint struct {
	path   string
	handle func(*Simulator, *call)
}

// endpoints are all of them.
func endpoints() []endpoint {
	return []endpoint{
		{PathCode2Session, (*Simulator).code2Session},
		{PathToken, (*Simulator).classicToken},
		{PathStableToken, (*Simulator).stableToken},
		{PathPhoneNumber, (*Simulator).exchangePhone},
		{PathCheckSession, (*Simulator).checkSession},
		{PathResetSession, (*Simulator).resetSession},
		{PathQRCode, (*Simulator).drawQRCode},
	}
}

// The content types, odd as they are: /sns names no charset for its JSON, and
// the others have a parameter of their own making.
var (
	typeSNS = []string{"text/plain"}
	typeCGI = []string{"application/json; encoding=utf-8"}
	typeQR  = []string{"image/jpeg"}
)

// errmsgs are WeChat's texts; a rid is put behind them.
var errmsgs = map[int]string{
	-1:    "system error",
	40001: "invalid credential, access_token is invalid or not latest",
	40002: "invalid grant_type",
	40003: "invalid openid",
	40013: "invalid appid",
	40014: "invalid access_token",
	40029: "invalid code",
	40097: "invalid args",
	40125: "invalid appsecret",
	40129: "invalid scene",
	40163: "code been used",
	40164: "invalid ip",
	40169: "invalid length for scene, or the data is not json string",
	40226: "code blocked",
	40243: "AppSecret frozen",
	41001: "access_token missing",
	41002: "appid missing",
	41004: "appsecret missing",
	41008: "missing code",
	41009: "missing openid",
	41030: "invalid page",
	42001: "access_token expired",
	42003: "code expired",
	43001: "require GET method",
	43002: "require POST method",
	44002: "empty post data",
	45009: "reach max api daily quota limit",
	45011: "api minute-quota reach limit, must slower, retry next minute",
	47001: "data format error",
	48001: "api unauthorized",
	50002: "user limited",
	50004: "token use forbidden",
	50007: "account frozen",
	61004: "access clientip is not registered",
	87007: "session_key is not existd or expired",
	87008: "invalid sig_method",
	87009: "invalid signature",
	89501: "pending confirmation",
	89503: "admin confirmation required",
	89506: "IP refused",
	89507: "IP refused",
}

// call is one request to WeChat's side, and what becomes of it.
type call struct {
	r         *http.Request
	path      string // r's, as one of the constants
	now       time.Time
	forced    *Fault
	appid     string
	jsCode    string
	phoneCode string
	errcode   int
	body      []byte // the answer
	image     bool   // body is one
}

// sns says that errors and content type are written the way of /sns.
func (c *call) sns() bool { return c.path == PathCode2Session }

// API returns WeChat's side. It speaks HTTP/1.1 faults only where the
// connection can be hijacked, and aborts the request elsewhere.
func (s *Simulator) API() http.Handler {
	table := endpoints()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, e := range table {
			if e.path == r.URL.Path {
				s.serveAPI(w, r, e)
				return
			}
		}
		http.NotFound(w, r)
	})
}

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

func (s *Simulator) serveAPI(w http.ResponseWriter, r *http.Request, e endpoint) {
	buf := bodies.Get().(*[]byte)
	c := call{r: r, path: e.path, now: s.now(), body: (*buf)[:0]}
	defer func() { *buf = c.body[:0]; bodies.Put(buf) }()

	fault := s.faults.take(e.path)
	if fault == nil {
		e.handle(s, &c)
		s.record(&c, fault, http.StatusOK)
		c.write(w)
		return
	}
	if fault.Kind == FaultErrcode {
		c.forced = fault
		e.handle(s, &c)
		s.record(&c, fault, http.StatusOK)
		c.write(w)
		return
	}
	if fault.processes() {
		e.handle(s, &c)
	} else {
		s.note(&c)
	}
	s.record(&c, fault, fault.status())
	fault.perform(w, &c)
}

// note takes for the request log what a request is about that is not processed.
func (s *Simulator) note(c *call) {
	switch {
	case c.path == PathPhoneNumber:
		body, _ := readBody(c.r)
		in, _ := readPhoneRequest(body)
		c.phoneCode = in.Code
	case c.r.Method == http.MethodGet:
		c.appid, c.jsCode = query(c.r, "appid"), query(c.r, "js_code")
	}
	if value := query(c.r, "access_token"); value != "" {
		_, c.appid = s.CheckToken(value)
	}
}

func (c *call) header(h http.Header) {
	switch {
	case c.sns():
		h["Content-Type"] = typeSNS
	case c.image:
		h["Content-Type"] = typeQR
	default:
		h["Content-Type"] = typeCGI
	}
}

func (c *call) write(w http.ResponseWriter) {
	c.header(w.Header())
	_, _ = w.Write(c.body)
}

// fail makes the answer an error.
func (c *call) fail(errcode int) { c.failText(errcode, errmsgs[errcode]) }

func (c *call) failText(errcode int, text string) {
	c.errcode = errcode
	b := append(c.body, `{"errcode":`...)
	b = strconv.AppendInt(b, int64(errcode), 10)
	b = append(b, `,"errmsg":"`...)
	b = appendJSON(b, text)
	if c.sns() {
		b = append(b, ',')
	}
	b = append(b, " rid: "...)
	b = appendRID(b, c.now)
	c.body = append(b, `"}`...)
}

// appendJSON appends text as the inside of a JSON string.
func appendJSON(b []byte, text string) []byte {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil {
				return b // a string always marshals
			}
			return append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return append(b, text...)
}

// force answers with the injected errcode, if there is one.
func (c *call) force() bool {
	if c.forced == nil {
		return false
	}
	text := c.forced.Errmsg
	if text == "" {
		text = errmsgs[c.forced.Errcode]
	}
	if text == "" {
		text = "system error"
	}
	c.failText(c.forced.Errcode, text)
	return true
}

// code2Session makes its checks in WeChat's order: the AppSecret before the
// code, so that a wrong secret never says whether a code is good.
func (s *Simulator) code2Session(c *call) {
	if c.r.Method != http.MethodGet {
		c.fail(41002) // a body is not read
		return
	}
	c.appid, c.jsCode = query(c.r, "appid"), query(c.r, "js_code")
	secret, grantType := query(c.r, "secret"), query(c.r, "grant_type")
	switch {
	case c.appid == "":
		c.fail(41002)
		return
	case secret == "":
		c.fail(41004)
		return
	case c.jsCode == "":
		c.fail(41008)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[c.appid]
	switch {
	case a == nil:
		c.fail(40013)
		return
	case a.Secret != secret:
		c.fail(40125)
		return
	case a.Frozen:
		c.fail(40243)
		return
	case grantType != "authorization_code" && (grantType != "" || a.StrictGrantType):
		c.fail(40002)
		return
	case c.force():
		return
	}
	s.exchange(c, a)
}

// exchange spends the code. The caller holds mu, which makes the check and the
// spending one step.
func (s *Simulator) exchange(c *call, a *app) {
	now := c.now.UnixNano()
	found, ok := s.codes.items[c.jsCode]
	if ok && !found.member.user.admit(c.now) {
		c.fail(45011)
		return
	}
	switch {
	case !ok || now-found.created > int64(codeLife):
		c.fail(40029)
		return
	case found.member.app != a:
		if a.BurnOn40029 && !found.used {
			found.used = true
			s.codes.items[c.jsCode] = found
		}
		c.fail(40029)
		return
	case found.used:
		c.fail(40163)
		return
	case found.member.user.risk == RiskBlocked:
		c.fail(40226)
		return
	case found.member.user.risk == RiskFrozen:
		c.fail(50002)
		return
	}
	found.used = true
	s.codes.items[c.jsCode] = found
	m := found.member
	m.expires = now + int64(sessionKeyLife)
	if m.platform != a.OpenPlatform {
		m.platform, m.unionID = a.OpenPlatform, ""
		if a.OpenPlatform != "" {
			m.unionID = s.unionID(a.OpenPlatform, m.user.name)
		}
	}
	c.succeed(a, m)
}

func (c *call) succeed(a *app, m *member) {
	b := append(c.body, `{"session_key":"`...)
	b = append(b, a.slashes(m.sessionKey)...)
	b = append(b, '"')
	if a.LegacyExpiresIn {
		b = append(b, `,"expires_in":7200`...)
	}
	b = append(b, `,"openid":"`...)
	b = append(b, m.openID...)
	b = append(b, '"')
	if m.unionID != "" {
		b = append(b, `,"unionid":"`...)
		b = append(b, m.unionID...)
		b = append(b, '"')
	}
	if a.ErrcodeZero {
		b = append(b, `,"errcode":0,"errmsg":"ok"`...)
	}
	c.body = append(b, '}')
}

// slashes writes / the way the app's answers do.
func (a *app) slashes(text string) string {
	if a.EscapeSlashes {
		return strings.ReplaceAll(text, "/", `\/`)
	}
	return text
}

// admit counts a call of the user and reports whether it is within the limit
// of this minute.
func (u *user) admit(now time.Time) bool {
	if minute := now.Unix() / 60; minute != u.minute {
		u.minute, u.calls = minute, 0
	}
	u.calls++
	return u.calls <= callsPerMinute
}

// query returns the first value of a query parameter. It makes no map of all
// of them, which would be the dearest step of the simulator.
func query(r *http.Request, name string) string {
	rest := r.URL.RawQuery
	for rest != "" {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			return unescape(value)
		}
	}
	return ""
}

func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return ""
	}
	return plain
}

// readBody reads the body of a POST, up to 64 KiB.
func readBody(r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	return body, err == nil && len(body) <= maxBody
}

const maxBody = 64 << 10
