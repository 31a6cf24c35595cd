// Package simulator stands in for api.weixin.qq.com: code2Session, both kinds
// of server access token, phone numbers, mini-program codes and the
// session_key APIs, answered as WeChat answers them, down to the order of JSON
// members and the odd content types. It also makes open data and pushes events.
//
// It serves two handlers: [Simulator.API], WeChat's side, and
// [Simulator.Control], which does what in reality happens inside the WeChat
// app (a user signs in), moves the clock and injects faults. Whoever reaches
// the control side signs in as anybody, so it belongs on a loopback listener.
package simulator

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what a simulator keeps. Beyond MaxCodes, of js_codes and of phone
// codes, the oldest is forgotten; beyond the others a call fails.
const (
	MaxApps     = 1000
	MaxUsers    = 1_000_000
	MaxCodes    = 1 << 18
	MaxFaults   = 100
	MaxRequests = 10_000 // entries of the request log; the newest are kept
)

const (
	codeLife       = 5 * time.Minute
	sessionKeyLife = 3 * 24 * time.Hour // WeChat names none
	callsPerMinute = 100                // of code2Session per user
	maxNameLength  = 128                // of an appid, user or Open Platform name, in bytes
	maxAdvance     = 10 * 365 * 24 * time.Hour
	defaultRotate  = time.Minute
)

// Risk is what WeChat thinks of a user.
type Risk string

// The risks of a user.
const (
	RiskOK      Risk = "ok"
	RiskBlocked Risk = "blocked" // code2Session answers 40226
	RiskFrozen  Risk = "frozen"  // code2Session answers 50002
)

// App is a mini-program as WeChat's console knows it.
type App struct {
	AppID  string
	Secret string // the AppSecret
	// OpenPlatform names the Open Platform account the app is bound to.
	// Without one code2Session gives no unionid.
	OpenPlatform string
	// Frozen answers 40243 to every call with the right AppSecret.
	Frozen bool
	// IPAllowList holds addresses or CIDR prefixes; a caller for an access
	// token from elsewhere gets 40164. Empty allows everybody.
	IPAllowList []string
	// LegacyExpiresIn adds the meaningless "expires_in":7200 that old apps get.
	LegacyExpiresIn bool
	// ErrcodeZero adds "errcode":0,"errmsg":"ok" to a success, as before 2020.
	ErrcodeZero bool
	// EscapeSlashes writes / as \/ in strings, as some answers do.
	EscapeSlashes bool
	// StrictGrantType answers 40002 to code2Session without grant_type. A
	// wrong one is always refused.
	StrictGrantType bool
	// BurnOn40029 spends a js_code that is sent for another app than its own:
	// afterwards its own app gets 40163.
	BurnOn40029 bool
}

// Options configures a [Simulator].
type Options struct {
	Apps   []App
	Logger *slog.Logger // default: none
	// Seed, with appid and user, makes the openid; with the Open Platform name
	// and user the unionid. Same seed, same ids, in every process.
	Seed string
	// RotateAfter is how old a session_key must be for the next Login to
	// replace it. 0 means 1 minute, less than 0 never.
	RotateAfter time.Duration
}

// Simulator is a stand-in for WeChat. It is safe for concurrent use.
type Simulator struct {
	seed        []byte
	rotateAfter time.Duration
	log         *slog.Logger
	offset      atomic.Int64 // of the simulated clock, in nanoseconds
	faults      faults
	requests    requests

	mu     sync.Mutex // guards the fields below and all they hold
	apps   map[string]*app
	users  map[string]*user
	codes  codeTable // js_codes
	phones codeTable // phone codes
	tokens tokenTable
}

type app struct {
	App
	allowed []netip.Prefix
	members map[string]*member // by user
	openIDs map[string]*member // the same by openid
	classic tokenFamily
	stable  tokenFamily

	drawings counter // of mini-program codes, by minute
}

type user struct {
	name   string
	risk   Risk
	phone  phone // empty while it is the one he has by his name
	minute int64 // the minute that calls counts
	calls  int
}

// member is a user within one app.
type member struct {
	user       *user
	app        *app
	openID     string
	unionID    string // for platform
	platform   string
	sessionKey string
	rotated    int64 // when sessionKey was made; all times are Unix nanoseconds
	expires    int64
}

// code is a js_code or a phone code.
type code struct {
	member  *member
	created int64
	used    bool
	phone   phone // of a phone code: the number that was given
}

// New returns a simulator. It panics when an app is incomplete or named twice;
// use [Simulator.AddApp] where an error is wanted.
func New(o Options) *Simulator {
	s := &Simulator{
		seed:        []byte("wxidp simulator\x00" + o.Seed),
		rotateAfter: o.RotateAfter,
		log:         o.Logger,
	}
	if s.rotateAfter == 0 {
		s.rotateAfter = defaultRotate
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.apps = map[string]*app{}
	s.clear()
	for _, a := range o.Apps {
		if s.apps[a.AppID] != nil {
			panic("simulator: app " + a.AppID + " is given twice")
		}
		if err := s.AddApp(a); err != nil {
			panic(err)
		}
	}
	return s
}

// clear forgets everything but the apps.
func (s *Simulator) clear() {
	s.users, s.codes, s.phones, s.tokens = map[string]*user{}, newCodeTable(), newCodeTable(), newTokenTable()
	for _, a := range s.apps {
		a.members, a.openIDs = map[string]*member{}, map[string]*member{}
		a.classic, a.stable = tokenFamily{}, tokenFamily{}
	}
}

// Reset forgets users, codes, tokens, faults and the request log, and sets the
// clock right. Apps stay.
func (s *Simulator) Reset() {
	s.ClearFaults()
	s.requests.clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.offset.Store(0)
}

// AddApp adds an app, or changes the one of the same appid: its users and
// tokens stay.
func (s *Simulator) AddApp(a App) error {
	if err := checkName("appid", a.AppID); err != nil {
		return err
	}
	if err := checkName("secret", a.Secret); err != nil {
		return err
	}
	if a.OpenPlatform != "" {
		if err := checkName("open_platform", a.OpenPlatform); err != nil {
			return err
		}
	}
	allowed, err := parsePrefixes(a.IPAllowList)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.apps[a.AppID]; old != nil {
		old.App, old.allowed = a, allowed
		return nil
	}
	if len(s.apps) >= MaxApps {
		return fmt.Errorf("there are %d apps already, the most there may be", MaxApps)
	}
	s.apps[a.AppID] = &app{App: a, allowed: allowed, members: map[string]*member{}, openIDs: map[string]*member{}}
	return nil
}

func parsePrefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, aerr := netip.ParseAddr(text)
			if aerr != nil {
				return nil, fmt.Errorf("ip_allow_list: %q is neither an address nor a CIDR prefix", text)
			}
			p = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// checkName takes 1 to 128 bytes of printable UTF-8.
func checkName(what, name string) error {
	switch {
	case name == "":
		return errors.New(what + " is missing")
	case len(name) > maxNameLength:
		return fmt.Errorf("%s has more than %d bytes", what, maxNameLength)
	case !utf8.ValidString(name):
		return errors.New(what + " is not UTF-8")
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return errors.New(what + " holds a character that cannot be printed")
		}
	}
	return nil
}

// now is the simulated time.
func (s *Simulator) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

// Now returns the simulated time.
func (s *Simulator) Now() time.Time { return s.now() }

// Advance moves the simulated clock forward, by at most ten years in all.
func (s *Simulator) Advance(d time.Duration) error {
	if d < 0 {
		return errors.New("the clock only goes forward")
	}
	for {
		was := s.offset.Load()
		if d > maxAdvance || time.Duration(was)+d > maxAdvance {
			return errors.New("the clock may be at most ten years ahead")
		}
		if s.offset.CompareAndSwap(was, was+int64(d)) {
			return nil
		}
	}
}

// OpenID returns the openid a user has, or would have, in an app.
func (s *Simulator) OpenID(appid, user string) string { return s.openID(appid, user) }

// UnionID returns the unionid a user has in an Open Platform account.
func (s *Simulator) UnionID(openPlatform, user string) string { return s.unionID(openPlatform, user) }

// Handler serves Control under /control/ and API everywhere else.
func (s *Simulator) Handler() http.Handler {
	control, api := s.Control(), s.API()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) >= len(controlPrefix) && r.URL.Path[:len(controlPrefix)] == controlPrefix {
			control.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// cut shortens foreign text for an error or the request log.
func cut(text string) string {
	if len(text) <= 256 {
		return text
	}
	return text[:256]
}
