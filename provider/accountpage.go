package provider

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// maxListedSignIns bounds what the account page lists of each kind.
const maxListedSignIns = 200

// AccountView is what the account page shows to the user it is about.
type AccountView struct {
	Name       string
	Username   string
	Phone      string // masked
	Identities []AccountIdentity
	Logins     []AccountLogin
	SignIns    []AccountSignIn
	Consents   []AccountConsent
}

// AccountIdentity is a WeChat identity of the user.
type AccountIdentity struct {
	AppID    string
	LinkedAt time.Time
}

// AccountLogin is a browser that the user is signed in with.
type AccountLogin struct {
	ID      string
	Browser string
	Network string
	Since   time.Time
	Current bool
}

// AccountSignIn is a refresh-token family of the user.
type AccountSignIn struct {
	ID       string
	Client   string
	Since    time.Time
	LastUsed time.Time
}

// AccountConsent is what the user has agreed to.
type AccountConsent struct {
	ClientID string
	Client   string
	Scope    []string
	Since    time.Time
}

// Account returns what the account page shows; nil where nobody is signed in
// with the browser.
func (p *Provider) Account(ctx context.Context, req Request) (*AccountView, error) {
	login, err := p.login(ctx, req)
	if err != nil || login == nil {
		return nil, err
	}
	user, err := p.store.User(ctx, login.UserID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil // erased at this moment
	}
	if err != nil {
		return nil, err
	}
	view := &AccountView{Name: user.Profile.Nickname, Username: user.Username, Phone: accounts.MaskPhone(user.Phone)}
	for _, gather := range []func(context.Context, *storage.LoginSession, *AccountView) error{
		p.gatherIdentities, p.gatherLogins, p.gatherSignIns, p.gatherConsents,
	} {
		if err := gather(ctx, login, view); err != nil {
			return nil, err
		}
	}
	return view, nil
}

func (p *Provider) gatherIdentities(ctx context.Context, login *storage.LoginSession, view *AccountView) error {
	identities, err := p.store.Identities(ctx, login.UserID)
	for _, identity := range identities {
		view.Identities = append(view.Identities, AccountIdentity{AppID: identity.AppID, LinkedAt: identity.LinkedAt})
	}
	return unlessGone(err)
}

// gatherLogins lists the browsers, the newest first as in gatherSignIns.
func (p *Provider) gatherLogins(ctx context.Context, current *storage.LoginSession, view *AccountView) error {
	err := p.eachLogin(ctx, current.UserID, func(login storage.LoginSession) error {
		if len(view.Logins) == maxListedSignIns {
			view.Logins = view.Logins[1:]
		}
		view.Logins = append(view.Logins, AccountLogin{
			ID: login.ID.String(), Browser: login.Browser, Network: login.Network, Since: login.CreatedAt, Current: login.ID == current.ID,
		})
		return nil
	})
	slices.Reverse(view.Logins)
	return err
}

// eachLogin calls do for each live login session of a user.
func (p *Provider) eachLogin(ctx context.Context, userID string, do func(storage.LoginSession) error) error {
	after := ""
	for {
		page, next, err := p.store.PageLogins(ctx, userID, after, storage.MaxPage)
		if err != nil {
			return err
		}
		for _, login := range page {
			if err := do(login); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// gatherSignIns lists the sign-ins of apps and devices that are live, the
// newest first: a stranger's is not hidden by many older ones.
func (p *Provider) gatherSignIns(ctx context.Context, login *storage.LoginSession, view *AccountView) error {
	snap := p.settings()
	families, err := p.store.RecentFamilies(ctx, login.UserID, storage.MaxPage)
	if err != nil {
		return err
	}
	for _, family := range families {
		client := snap.client(family.ClientID)
		if client == nil {
			continue
		}
		view.SignIns = append(view.SignIns, AccountSignIn{
			ID: family.ID.String(), Client: client.title(), Since: family.CreatedAt, LastUsed: family.RotatedAt,
		})
		if len(view.SignIns) == maxListedSignIns {
			break
		}
	}
	return nil
}

func (p *Provider) gatherConsents(ctx context.Context, login *storage.LoginSession, view *AccountView) error {
	snap := p.settings()
	consents, err := p.store.Consents(ctx, login.UserID)
	for _, consent := range consents {
		if client := snap.client(consent.ClientID); client != nil {
			view.Consents = append(view.Consents, AccountConsent{
				ClientID: client.ID, Client: client.title(), Scope: offlineLast(consent.Scope), Since: consent.GrantedAt,
			})
		}
	}
	return unlessGone(err)
}

// offlineLast puts the scope that is about all others behind them.
func offlineLast(scope []string) []string {
	if !slices.Contains(scope, scopeOfflineAccess) {
		return scope
	}
	others := slices.DeleteFunc(slices.Clone(scope), func(s string) bool { return s == scopeOfflineAccess })
	return append(others, scopeOfflineAccess)
}

// unlessGone is err, but for a user who was erased at this moment.
func unlessGone(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// EndLogin ends one of the user's own login sessions. ended is false where
// nobody is signed in with the browser.
func (p *Provider) EndLogin(ctx context.Context, req Request, id string) (ended bool, err error) {
	login, err := p.login(ctx, req)
	if err != nil || login == nil {
		return false, err
	}
	wanted, ok := storage.ParseLoginID(id)
	if !ok {
		return true, nil
	}
	return true, p.eachLogin(ctx, login.UserID, func(own storage.LoginSession) error {
		if own.ID != wanted {
			return nil
		}
		return p.endLogin(ctx, req, own, "user")
	})
}

// endLogin ends a login session and tells its clients.
func (p *Provider) endLogin(ctx context.Context, req Request, login storage.LoginSession, reason string) error {
	found, err := p.store.EndLogin(ctx, login.ID, p.settings().notified())
	if err != nil {
		return err
	}
	if found {
		p.wakeLogouts()
		p.info(ctx, req, "login.ended", slog.String("sub", login.UserID), slog.String("reason", reason))
	}
	return nil
}

// EndSignIn ends one of the user's own sign-ins at a client.
func (p *Provider) EndSignIn(ctx context.Context, req Request, id string) (ended bool, err error) {
	login, err := p.login(ctx, req)
	if err != nil || login == nil {
		return false, err
	}
	familyID, ok := storage.ParseFamilyID(id)
	if !ok {
		return true, nil
	}
	family, err := p.store.Family(ctx, familyID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && family.UserID != login.UserID {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := p.endFamily(ctx, family, "user"); err != nil {
		return false, err
	}
	p.info(ctx, req, "sign_in.ended", slog.String("sub", login.UserID), slog.String("client_id", family.ClientID), slog.String("sid", id))
	return true, nil
}

// RevokeConsent forgets what the user has agreed to for a client and ends the
// user's sign-ins there.
func (p *Provider) RevokeConsent(ctx context.Context, req Request, clientID string) (ended bool, err error) {
	login, err := p.login(ctx, req)
	if err != nil || login == nil {
		return false, err
	}
	if p.settings().client(clientID) == nil {
		return true, nil // nothing of it is on the page
	}
	found, err := p.store.RevokeConsent(ctx, login.UserID, clientID, p.settings().notified())
	if found {
		p.wakeLogouts()
		p.info(ctx, req, "consent.revoked", slog.String("sub", login.UserID), slog.String("client_id", clientID))
	}
	return true, unlessGone(err)
}

// SignOut ends the browser's login session, or with everywhere all sign-ins of
// the user: of browsers, apps and devices.
func (p *Provider) SignOut(ctx context.Context, req Request, everywhere bool) error {
	login, err := p.login(ctx, req)
	if err != nil || login == nil {
		return err
	}
	if !everywhere {
		return p.endLogin(ctx, req, *login, "user")
	}
	if err := p.EndLogins(ctx, login.UserID); err != nil {
		return err
	}
	p.info(ctx, req, "login.ended", slog.String("sub", login.UserID), slog.String("reason", "everywhere"))
	return unlessGone(p.store.RevokeUser(ctx, login.UserID, "signed_out_everywhere"))
}
