package wechat

import (
	"encoding/json"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
)

// Bounds of what is taken from an answer. Real values: openid and unionid 28
// characters, session_key 24, access_token 136 and growing.
const (
	maxID         = 128
	maxSessionKey = 128
	maxToken      = 2048
	maxMembers    = 32 // of the answer object
	maxTokenLife  = 30 * 24 * time.Hour
	maxPhone      = 32 // characters of a part of a phone number
)

// parseSession reads an answer of code2Session. Its Content-Type says nothing
// (WeChat sends text/plain), and success has no errcode, or errcode 0.
func parseSession(body []byte) (CodeResult, *Error) {
	a, e := parseAnswer(body)
	if e != nil {
		return CodeResult{}, e
	}
	switch {
	case !a.openID.present:
		return CodeResult{}, unavailable(reasonNoOpenID)
	case !a.openID.plain(maxID):
		return CodeResult{}, unavailable(reasonBadAnswer)
	case !a.sessionKey.present:
		return CodeResult{}, unavailable(reasonNoSessionKey)
	case !a.sessionKey.plain(maxSessionKey):
		return CodeResult{}, unavailable(reasonBadAnswer)
	case a.unionID.present && a.unionID.text != "" && !a.unionID.plain(maxID):
		return CodeResult{}, unavailable(reasonBadAnswer)
	case a.unionID.present && a.unionID.kind != '"':
		return CodeResult{}, unavailable(reasonBadAnswer)
	}
	return CodeResult{
		WeChatOpenID: a.openID.text,
		UnionID:      a.unionID.text,
		SessionKey:   secret.New(a.sessionKey.text),
	}, nil
}

// parseToken reads an answer of stable_token.
func parseToken(body []byte) (token secret.String, life time.Duration, _ *Error) {
	a, e := parseAnswer(body)
	if e != nil {
		return secret.String{}, 0, e
	}
	if !a.accessToken.present {
		return secret.String{}, 0, unavailable(reasonNoToken)
	}
	seconds, ok := a.expiresIn.integer()
	if !a.accessToken.plain(maxToken) || !ok || seconds <= 0 || seconds > int64(maxTokenLife/time.Second) {
		return secret.String{}, 0, unavailable(reasonBadAnswer)
	}
	return secret.New(a.accessToken.text), time.Duration(seconds) * time.Second, nil
}

// parseReset reads an answer of resetusersessionkey about weChatOpenID.
func parseReset(body []byte, weChatOpenID string) (secret.String, *Error) {
	a, e := parseAnswer(body)
	switch {
	case e != nil:
		return secret.String{}, e
	case !a.openID.present:
		return secret.String{}, unavailable(reasonNoOpenID)
	case !a.openID.plain(maxID) || a.openID.text != weChatOpenID:
		return secret.String{}, unavailable(reasonBadAnswer)
	case !a.sessionKey.present:
		return secret.String{}, unavailable(reasonNoSessionKey)
	case !a.sessionKey.plain(maxSessionKey):
		return secret.String{}, unavailable(reasonBadAnswer)
	}
	return secret.New(a.sessionKey.text), nil
}

// parseDone reads an answer that says no more than errcode 0.
func parseDone(body []byte) *Error {
	a, e := parseAnswer(body)
	if e == nil && !a.errcode.present {
		return unavailable(reasonBadAnswer)
	}
	return e
}

// answer holds the members of an answer that mean something here.
type answer struct {
	errcode, errmsg, openID, unionID, sessionKey, accessToken, expiresIn, phoneInfo value
}

// value is one JSON value. kind is its first byte; text is the content of a
// string or the spelling of a number; nested is an array or object, a part of
// the body it was read from.
type value struct {
	present bool
	kind    byte
	text    string
	nested  []byte
}

// plain reports whether v is a string of 1 to limit visible ASCII characters.
func (v value) plain(limit int) bool { return v.kind == '"' && ascii.Visible(v.text, limit) }

// integer takes a number or, as some answers have it, a string of digits.
func (v value) integer() (int64, bool) { return v.number(32) }

// time takes Unix seconds, also of after 2038.
func (v value) time() (time.Time, bool) {
	n, ok := v.number(64)
	return time.Unix(n, 0), ok && n > 0 && n < 1<<40
}

func (v value) number(bits int) (int64, bool) {
	if !v.scalar() {
		return 0, false
	}
	n, err := strconv.ParseInt(v.text, 10, bits)
	return n, err == nil
}

// scalar reports whether v is a string or a number.
func (v value) scalar() bool {
	return v.kind == '"' || v.kind == '-' || (v.kind >= '0' && v.kind <= '9')
}

// members calls take for every member of an object, and reports false for any
// other value and as scanner.object does.
func (v value) members(take func(name string, v value)) bool {
	if v.kind != '{' {
		return false
	}
	s := scanner{rest: v.nested}
	return s.object(take)
}

// parseAnswer reads the outer object and turns an errcode into an Error.
func parseAnswer(body []byte) (answer, *Error) {
	var a answer
	if !utf8.Valid(body) || !json.Valid(body) {
		return a, unavailable(reasonNotJSON)
	}
	s := scanner{rest: body}
	s.space()
	if s.rest[0] != '{' {
		return a, unavailable(reasonNotJSON)
	}
	if !s.object(a.take) {
		return a, unavailable(reasonBadAnswer)
	}
	if !a.errcode.present {
		return a, nil
	}
	code, ok := a.errcode.integer()
	if !ok {
		return a, unavailable(reasonBadAnswer)
	}
	if code == 0 {
		return a, nil
	}
	return a, errcodeError(int(code), ridOf(a.errmsg.text))
}

func (a *answer) take(name string, v value) {
	switch name {
	case "errcode":
		a.errcode = v
	case "errmsg":
		a.errmsg = v
	case "openid":
		a.openID = v
	case "unionid":
		a.unionID = v
	case "session_key":
		a.sessionKey = v
	case "access_token":
		a.accessToken = v
	case "expires_in":
		a.expiresIn = v
	case "phone_info":
		a.phoneInfo = v
	}
}

var ridPattern = regexp.MustCompile(`rid: ([0-9a-f]{8}(?:-[0-9a-f]{8}){2})`)

// ridOf returns WeChat's request id from its error text, of which nothing else is kept.
func ridOf(errmsg string) string {
	if m := ridPattern.FindStringSubmatch(errmsg); m != nil {
		return m[1]
	}
	return ""
}

// scanner walks over JSON that json.Valid has accepted, so it checks no syntax.
// encoding/json itself cannot be used: it takes the last of two members of one
// name, matches names without regard to case and replaces bytes that are not UTF-8.
type scanner struct{ rest []byte }

// object calls take for every member of the object at the front. It reports
// false when a name comes twice or there are too many.
func (s *scanner) object(take func(name string, v value)) bool {
	var names [maxMembers]string
	n := 0
	s.rest = s.rest[1:]
	for {
		s.space()
		switch s.rest[0] {
		case '}':
			return true
		case ',':
			s.rest = s.rest[1:]
			s.space()
		}
		name := s.value().text
		for _, seen := range names[:n] {
			if seen == name {
				return false
			}
		}
		if n == maxMembers {
			return false
		}
		names[n] = name
		n++
		s.space()
		s.rest = s.rest[1:] // the colon
		s.space()
		take(name, s.value())
	}
}

func (s *scanner) space() {
	i := 0
	for i < len(s.rest) && (s.rest[i] == ' ' || s.rest[i] == '\t' || s.rest[i] == '\n' || s.rest[i] == '\r') {
		i++
	}
	s.rest = s.rest[i:]
}

// value takes the value at the front. Arrays and objects are not looked into.
func (s *scanner) value() value {
	v := value{present: true, kind: s.rest[0]}
	switch v.kind {
	case '"':
		v.text = s.string()
	case '{', '[':
		whole := s.rest
		s.nested()
		v.nested = whole[:len(whole)-len(s.rest)]
	default:
		i := 0
		for i < len(s.rest) {
			switch s.rest[i] {
			case ',', '}', ']', ' ', '\t', '\n', '\r':
			default:
				i++
				continue
			}
			break
		}
		v.text = string(s.rest[:i])
		s.rest = s.rest[i:]
	}
	return v
}

func (s *scanner) string() string {
	escaped := false
	i := 1
	for s.rest[i] != '"' {
		if s.rest[i] == '\\' {
			escaped = true
			i++
		}
		i++
	}
	raw := s.rest[:i+1]
	s.rest = s.rest[i+1:]
	if !escaped {
		return string(raw[1:i])
	}
	var text string
	_ = json.Unmarshal(raw, &text) // cannot fail: raw is a valid JSON string
	return text
}

func (s *scanner) nested() {
	depth := 0
	for {
		switch s.rest[0] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			s.string()
			continue
		}
		s.rest = s.rest[1:]
		if depth == 0 {
			return
		}
	}
}
