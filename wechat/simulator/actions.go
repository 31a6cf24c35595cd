package simulator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

func login(s *Simulator, f *form) (result, error) {
	appid, user := f.text("appid"), f.text("user")
	if err := f.done(); err != nil {
		return result{}, err
	}
	c, err := s.Login(appid, user)
	if err != nil {
		return result{}, err
	}
	return result{value: map[string]string{"code": c}, text: c}, nil
}

// appValue is an app as the control side shows it: without its AppSecret.
type appValue struct {
	AppID           string   `json:"appid"`
	OpenPlatform    string   `json:"open_platform"`
	Frozen          bool     `json:"frozen"`
	IPAllowList     []string `json:"ip_allow_list"`
	LegacyExpiresIn bool     `json:"legacy_expires_in"`
	ErrcodeZero     bool     `json:"errcode_zero"`
	EscapeSlashes   bool     `json:"escape_slashes"`
	StrictGrantType bool     `json:"strict_grant_type"`
	BurnOn40029     bool     `json:"burn_on_40029"`
	Users           int      `json:"users"`
}

func listApps(s *Simulator, f *form) (result, error) {
	if err := f.done(); err != nil {
		return result{}, err
	}
	s.mu.Lock()
	out := make([]appValue, 0, len(s.apps))
	for _, a := range s.apps {
		out = append(out, appValue{
			AppID: a.AppID, OpenPlatform: a.OpenPlatform, Frozen: a.Frozen,
			IPAllowList: append([]string{}, a.IPAllowList...), LegacyExpiresIn: a.LegacyExpiresIn,
			ErrcodeZero: a.ErrcodeZero, EscapeSlashes: a.EscapeSlashes, StrictGrantType: a.StrictGrantType,
			BurnOn40029: a.BurnOn40029, Users: len(a.members),
		})
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b appValue) int { return strings.Compare(a.AppID, b.AppID) })
	return result{value: map[string]any{"apps": out}}, nil
}

// putApp adds an app or changes the members given of one that is there.
func putApp(s *Simulator, f *form) (result, error) {
	appid := f.text("appid")
	s.mu.Lock()
	a := App{AppID: appid}
	if old := s.apps[appid]; old != nil {
		a = old.App
	}
	s.mu.Unlock()
	for name, field := range map[string]*string{"secret": &a.Secret, "open_platform": &a.OpenPlatform} {
		if text := f.text(name); f.has(name) {
			*field = text
		}
	}
	for name, field := range map[string]*bool{
		"frozen": &a.Frozen, "legacy_expires_in": &a.LegacyExpiresIn, "errcode_zero": &a.ErrcodeZero,
		"escape_slashes": &a.EscapeSlashes, "strict_grant_type": &a.StrictGrantType, "burn_on_40029": &a.BurnOn40029,
	} {
		if v := f.flag(name); f.has(name) {
			*field = v
		}
	}
	if list := f.list("ip_allow_list"); f.values["ip_allow_list"] != nil {
		a.IPAllowList = list
	}
	if err := f.done(); err != nil {
		return result{}, err
	}
	return outcome(s.AddApp(a))
}

// userValue is a user within one app.
type userValue struct {
	User    string `json:"user"`
	Risk    Risk   `json:"risk"`
	OpenID  string `json:"openid"`
	UnionID string `json:"unionid,omitempty"`
}

const (
	defaultPage = 100
	maxPage     = 1000
)

func (f *form) limit() int {
	n := f.number("limit")
	switch {
	case !f.has("limit"):
		return defaultPage
	case n < 1 || n > maxPage:
		f.fail("limit", "is 1 to "+strconv.Itoa(maxPage))
		return defaultPage
	}
	return int(n)
}

// listUsers lists the users who have signed in to an app, by name.
func listUsers(s *Simulator, f *form) (result, error) {
	appid, after, limit := f.text("appid"), f.text("after"), f.limit()
	if err := f.done(); err != nil {
		return result{}, err
	}
	s.mu.Lock()
	a := s.apps[appid]
	if a == nil {
		s.mu.Unlock()
		return result{}, fmt.Errorf("there is no app %q", cut(appid))
	}
	platform := a.OpenPlatform
	all := make([]userValue, 0, len(a.members))
	for name, m := range a.members {
		if name > after {
			all = append(all, userValue{User: name, Risk: m.user.risk, OpenID: m.openID})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b userValue) int { return strings.Compare(a.User, b.User) })
	all = all[:min(limit, len(all))]
	for i := range all {
		if platform != "" {
			all[i].UnionID = s.unionID(platform, all[i].User)
		}
	}
	return result{value: map[string]any{"users": all}}, nil
}

func putUser(s *Simulator, f *form) (result, error) {
	user, risk := f.text("user"), Risk(f.text("risk"))
	if err := f.done(); err != nil {
		return result{}, err
	}
	return outcome(s.SetRisk(user, risk))
}

// identity tells the ids a user has in an app, and his phone number, also
// before the first sign-in.
func identity(s *Simulator, f *form) (result, error) {
	appid, user := f.text("appid"), f.text("user")
	if err := f.done(); err != nil {
		return result{}, err
	}
	if err := checkName("user", user); err != nil {
		return result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return result{}, fmt.Errorf("there is no app %q", cut(appid))
	}
	out := struct {
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid,omitempty"`
		SessionKey string `json:"session_key,omitempty"`
		Phone      string `json:"phone"`
	}{OpenID: s.openID(appid, user), Phone: s.phoneOf(user).e164()}
	if a.OpenPlatform != "" {
		out.UnionID = s.unionID(a.OpenPlatform, user)
	}
	if m := a.members[user]; m != nil {
		out.SessionKey = m.sessionKey
	}
	return result{value: out, text: out.OpenID}, nil
}

func rotateSessionKey(s *Simulator, f *form) (result, error) {
	appid, user := f.text("appid"), f.text("user")
	if err := f.done(); err != nil {
		return result{}, err
	}
	key, err := s.RotateSessionKey(appid, user)
	if err != nil {
		return result{}, err
	}
	return result{value: map[string]string{"session_key": key}, text: key}, nil
}

func expireSessionKey(s *Simulator, f *form) (result, error) {
	appid, user := f.text("appid"), f.text("user")
	if err := f.done(); err != nil {
		return result{}, err
	}
	return outcome(s.ExpireSessionKey(appid, user))
}

func expireCodes(s *Simulator, f *form) (result, error) {
	appid, user := f.text("appid"), f.text("user")
	if err := f.done(); err != nil {
		return result{}, err
	}
	n, err := s.ExpireCodes(appid, user)
	if err != nil {
		return result{}, err
	}
	return result{value: map[string]int{"expired": n}, text: strconv.Itoa(n)}, nil
}

func checkToken(s *Simulator, f *form) (result, error) {
	value := f.text("access_token")
	if err := f.done(); err != nil {
		return result{}, err
	}
	errcode, appid := s.CheckToken(value)
	out := struct {
		Errcode int    `json:"errcode"`
		AppID   string `json:"appid,omitempty"`
	}{errcode, appid}
	return result{value: out, text: strconv.Itoa(errcode)}, nil
}

func expireTokens(s *Simulator, f *form) (result, error) {
	appid := f.text("appid")
	if err := f.done(); err != nil {
		return result{}, err
	}
	n := s.ExpireTokens(appid)
	return result{value: map[string]int{"expired": n}, text: strconv.Itoa(n)}, nil
}

func clock(s *Simulator, f *form) (result, error) {
	d := f.duration("advance")
	if err := f.done(); err != nil {
		return result{}, err
	}
	if err := s.Advance(d); err != nil {
		return result{}, err
	}
	now := s.Now().UTC().Format(time.RFC3339)
	ahead := time.Duration(s.offset.Load()).String()
	return result{value: map[string]string{"now": now, "ahead": ahead}, text: now}, nil
}

// faultValue is a fault as the control side reads and shows it.
type faultValue struct {
	Kind     FaultKind `json:"kind"`
	Endpoint string    `json:"endpoint,omitempty"`
	Count    int       `json:"count"`
	Errcode  int       `json:"errcode,omitempty"`
	Errmsg   string    `json:"errmsg,omitempty"`
	Status   int       `json:"status,omitempty"`
	Delay    string    `json:"delay,omitempty"`
	Interval string    `json:"interval,omitempty"`
	Size     int64     `json:"size,omitempty"`
	Location string    `json:"location,omitempty"`
	Body     string    `json:"body,omitempty"`
}

func listFaults(s *Simulator, f *form) (result, error) {
	if err := f.done(); err != nil {
		return result{}, err
	}
	out := []faultValue{}
	for _, v := range s.Faults() {
		shown := faultValue{
			Kind: v.Kind, Endpoint: v.Endpoint, Count: v.Count, Errcode: v.Errcode, Errmsg: v.Errmsg,
			Status: v.Status, Size: v.Size, Location: v.Location, Body: v.Body,
		}
		if v.Delay != 0 {
			shown.Delay = v.Delay.String()
		}
		if v.Interval != 0 {
			shown.Interval = v.Interval.String()
		}
		out = append(out, shown)
	}
	return result{value: map[string]any{"faults": out}}, nil
}

func addFault(s *Simulator, f *form) (result, error) {
	fault := Fault{
		Kind: FaultKind(f.text("kind")), Endpoint: f.text("endpoint"), Count: f.int("count"),
		Errcode: f.int("errcode"), Errmsg: f.text("errmsg"), Status: f.int("status"),
		Delay: f.duration("delay"), Interval: f.duration("interval"), Size: f.number("size"),
		Location: f.text("location"), Body: f.text("body"),
	}
	if err := f.done(); err != nil {
		return result{}, err
	}
	return outcome(s.Inject(fault))
}

func clearFaults(s *Simulator, f *form) (result, error) {
	if err := f.done(); err != nil {
		return result{}, err
	}
	s.ClearFaults()
	return done, nil
}

// listRequests shows the newest requests that match, oldest of them first.
func listRequests(s *Simulator, f *form) (result, error) {
	path, appid, jsCode, phoneCode, limit := f.text("path"), f.text("appid"), f.text("js_code"), f.text("phone_code"), f.limit()
	if err := f.done(); err != nil {
		return result{}, err
	}
	all, total := s.requests.snapshot()
	out := make([]Request, 0, limit)
	for _, r := range slices.Backward(all) {
		if len(out) == limit {
			break
		}
		if (path == "" || r.Path == path) && (appid == "" || r.AppID == appid) &&
			(jsCode == "" || r.JSCode == jsCode) && (phoneCode == "" || r.PhoneCode == phoneCode) {
			out = append(out, r)
		}
	}
	slices.Reverse(out)
	value := struct {
		Total    int       `json:"total"`
		Requests []Request `json:"requests"`
	}{total, out}
	return result{value: value, text: strconv.Itoa(len(out))}, nil
}

func clearRequests(s *Simulator, f *form) (result, error) {
	if err := f.done(); err != nil {
		return result{}, err
	}
	s.ClearRequests()
	return done, nil
}

func resetAll(s *Simulator, f *form) (result, error) {
	if err := f.done(); err != nil {
		return result{}, err
	}
	s.Reset()
	return done, nil
}
