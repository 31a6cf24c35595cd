package accounts

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wxidp/wxidp/storage"
)

// The states of a user.
const (
	StateActive   = "active"
	StateDisabled = "disabled"
	StateRetired  = "retired" // merged into another, or erased
)

// State returns the state of a user as a word.
func State(user *storage.User) string {
	switch {
	case user.Retired:
		return StateRetired
	case user.Disabled:
		return StateDisabled
	}
	return StateActive
}

// Person is everything that is kept about one user but for secrets: no
// password hash, session_key, family secret or token.
type Person struct {
	ID              string        `json:"id"`
	State           string        `json:"state"`
	CreatedAt       time.Time     `json:"created_at,omitzero"`
	UpdatedAt       time.Time     `json:"updated_at,omitzero"` // of the profile
	Profile         PersonProfile `json:"profile,omitzero"`
	Username        string        `json:"username,omitempty"`
	HasPassword     bool          `json:"has_password"`
	Phone           string        `json:"phone,omitempty"` // E.164
	PhoneVerifiedAt time.Time     `json:"phone_verified_at,omitzero"`
	ExternalID      string        `json:"external_id,omitempty"`
	// Roles and Claims are what the product's own account system said.
	Roles      []string                   `json:"roles,omitempty"`
	Claims     map[string]json.RawMessage `json:"claims,omitempty"`
	Identities []PersonIdentity           `json:"identities"`
	SignIns    []SignIn                   `json:"sign_ins"`
	// MoreSignIns: not all of them were asked for.
	MoreSignIns bool `json:"more_sign_ins,omitempty"`
}

// PersonProfile is the profile of a Person.
type PersonProfile struct {
	Nickname string `json:"nickname,omitempty"`
	Picture  string `json:"picture,omitempty"`
}

// PersonIdentity is one WeChat account of a Person.
type PersonIdentity struct {
	AppID        string    `json:"appid"`
	OpenPlatform string    `json:"open_platform,omitempty"`
	WeChatOpenID string    `json:"wechat_openid"`
	UnionID      string    `json:"unionid,omitempty"`
	LinkedAt     time.Time `json:"linked_at"`
}

// Describe returns what is kept about a user, with up to signIns sign-ins, the
// newest first; 0 means all of them.
func (d *Directory) Describe(ctx context.Context, user storage.User, signIns int) (Person, error) {
	p := Person{
		ID: user.ID, State: State(&user), CreatedAt: user.CreatedAt, UpdatedAt: user.UpdatedAt,
		Profile:  PersonProfile{Nickname: user.Profile.Nickname, Picture: user.Profile.Picture},
		Username: user.Username, HasPassword: user.HasPassword, Phone: user.Phone, PhoneVerifiedAt: user.PhoneVerifiedAt,
		ExternalID: user.ExternalID, Roles: user.Attributes.Roles,
		Identities: []PersonIdentity{}, SignIns: []SignIn{},
	}
	if user.Retired {
		return p, nil
	}
	if len(user.Attributes.Claims) > 0 {
		p.Claims = make(map[string]json.RawMessage, len(user.Attributes.Claims))
		for name, value := range user.Attributes.Claims {
			p.Claims[name] = json.RawMessage(value)
		}
	}
	identities, err := d.Store.Identities(ctx, user.ID)
	if err != nil {
		return Person{}, err
	}
	for _, i := range identities {
		p.Identities = append(p.Identities, PersonIdentity{i.AppID, i.OpenPlatform, i.WeChatOpenID, i.UnionID, i.LinkedAt})
	}
	for after := ""; ; {
		page, next, err := d.PageSignIns(ctx, SignInFilter{UserID: user.ID}, after, storage.MaxPage)
		if err != nil {
			return Person{}, err
		}
		p.SignIns = append(p.SignIns, page...)
		if next == "" {
			break
		}
		after = next
	}
	slices.Reverse(p.SignIns)
	if signIns > 0 && len(p.SignIns) > signIns {
		p.SignIns, p.MoreSignIns = p.SignIns[:signIns], true
	}
	return p, nil
}

// Masked returns p with its personal values cut to what an operator needs to
// recognise one whom they know: 138****1234, oABC…xyz.
func (p Person) Masked() Person {
	p.Username, p.ExternalID = MaskText(p.Username), MaskText(p.ExternalID)
	p.Phone = MaskPhone(p.Phone)
	p.Identities = slices.Clone(p.Identities)
	for i := range p.Identities {
		p.Identities[i].WeChatOpenID = MaskText(p.Identities[i].WeChatOpenID)
		p.Identities[i].UnionID = MaskText(p.Identities[i].UnionID)
	}
	if p.Claims != nil {
		masked := make(map[string]json.RawMessage, len(p.Claims))
		for name := range p.Claims {
			masked[name] = json.RawMessage(`"…"`)
		}
		p.Claims = masked
	}
	return p
}

// MaskText leaves of a value of eleven characters or more the first four and
// the last three, of a shorter one the first, and nothing of the length.
func MaskText(s string) string {
	n := utf8.RuneCountInString(s)
	switch {
	case n == 0:
		return ""
	case n < 11:
		_, size := utf8.DecodeRuneInString(s)
		return s[:size] + "…"
	}
	runes := []rune(s)
	return string(runes[:4]) + "…" + string(runes[n-3:])
}

// MaskPhone hides the middle of a phone number: the country's code of a
// Chinese one is left out (138****1234), of another the first three characters
// and the last two stay.
func MaskPhone(e164 string) string {
	if national, ok := strings.CutPrefix(e164, "+86"); ok && len(national) == 11 {
		return national[:3] + "****" + national[7:]
	}
	if len(e164) < 8 {
		return MaskText(e164)
	}
	return e164[:3] + "****" + e164[len(e164)-2:]
}

// SignIn is one sign-in on a device: a refresh-token family.
type SignIn struct {
	ID            string    `json:"sid"`
	UserID        string    `json:"sub"`
	ClientID      string    `json:"client_id"`
	AppID         string    `json:"appid,omitempty"` // of the WeChat identity that signed in
	Scope         []string  `json:"scope"`
	Audience      []string  `json:"audience"`
	AMR           []string  `json:"amr"`
	AuthTime      time.Time `json:"auth_time"`
	CreatedAt     time.Time `json:"created_at"`
	LastRefreshAt time.Time `json:"last_refresh_at,omitzero"` // zero: never refreshed
	ExpiresAt     time.Time `json:"expires_at"`               // unless it is refreshed
	State         string    `json:"state"`
	EndedAt       time.Time `json:"ended_at,omitzero"`
	EndedFor      string    `json:"ended_for,omitempty"`
}

// The states of a sign-in.
const (
	SignInActive  = "active"
	SignInEnded   = "ended" // revoked
	SignInExpired = "expired"
)

// SignInFilter says which sign-ins a listing is of.
type SignInFilter struct {
	UserID   string // "": of all users
	ClientID string // "": of all clients
	Active   bool   // only those that have not ended or expired
}

// PageSignIns returns up to limit sign-ins in the order of their creation,
// starting after the cursor. A page may be short or empty while next is not
// "". The error is storage's.
func (d *Directory) PageSignIns(ctx context.Context, filter SignInFilter, after string, limit int) (page []SignIn, next string, err error) {
	families, next, err := d.Store.PageFamilies(ctx, filter.UserID, after, limit)
	if err != nil {
		return nil, "", err
	}
	now := time.Now()
	for i := range families {
		s := newSignIn(&families[i], now)
		if (filter.ClientID == "" || s.ClientID == filter.ClientID) && (!filter.Active || s.State == SignInActive) {
			page = append(page, s)
		}
	}
	return page, next, nil
}

func newSignIn(f *storage.Family, now time.Time) SignIn {
	s := SignIn{
		ID: f.ID.String(), UserID: f.UserID, ClientID: f.ClientID, AppID: f.WeChatAppID,
		Scope: f.Scope, Audience: f.Audience, AMR: f.AMR, AuthTime: f.AuthTime,
		CreatedAt: f.CreatedAt, ExpiresAt: f.IdleExpiresAt, State: SignInActive,
	}
	if f.ExpiresAt.Before(s.ExpiresAt) {
		s.ExpiresAt = f.ExpiresAt
	}
	if f.Generation > 0 {
		s.LastRefreshAt = f.RotatedAt
	}
	switch {
	case !f.RevokedAt.IsZero():
		s.State, s.EndedAt, s.EndedFor = SignInEnded, f.RevokedAt, f.RevokedFor
	case f.ExpiredAt(now):
		s.State = SignInExpired
	}
	return s
}
