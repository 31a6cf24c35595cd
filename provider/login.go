package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// login is the live login session of the request's browser, nil where there is
// none. Its idle lifetime starts anew, which is written once in a while and
// not for each request.
func (p *Provider) login(ctx context.Context, req Request) (*storage.LoginSession, error) {
	if !storage.IsToken(req.Login) {
		return nil, nil
	}
	session, err := p.store.Login(ctx, tokenDigest(req.Login))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	idle := p.settings().LoginIdleLifetime
	if until := session.IdleExpiresAt; until.Before(session.ExpiresAt) && time.Until(until) < idle-max(idle/20, time.Minute) {
		if err := p.store.TouchLogin(ctx, session.ID, idle); err != nil {
			return nil, err
		}
	}
	return &session, nil
}

// startLogin records that an account has signed in with the request's browser.
func (p *Provider) startLogin(ctx context.Context, req Request, account storage.Binding, amr []string, absolute time.Duration) (token string, session *storage.LoginSession, err error) {
	snap := p.settings()
	var replaced storage.LoginID
	if old, err := p.login(ctx, req); err != nil {
		return "", nil, err
	} else if old != nil {
		replaced = old.ID
	}
	token = storage.NewToken()
	result, err := p.store.StartLogin(ctx, storage.LoginStart{
		Account:  account,
		Session:  storage.LoginSession{Token: tokenDigest(token), AMR: amr, Browser: req.Agent, Network: req.place()},
		Idle:     min(snap.LoginIdleLifetime, absolute),
		Absolute: absolute,
		Replaces: replaced,
		Notify:   snap.notified(),
	})
	if err != nil {
		return "", nil, err
	}
	switch result.Verdict {
	case storage.LoginOK:
	case storage.LoginUserDisabled:
		return "", nil, fail(AccessDenied, msgPageDisabled).reason("user_disabled")
	case storage.LoginUserMissing:
		return "", nil, fail(AccessDenied, msgAccountChanged).reason("account_changed")
	default:
		return "", nil, fmt.Errorf("login verdict %d", result.Verdict)
	}
	p.wakeLogouts()
	p.info(ctx, req, "login.started", slog.String("sub", result.Session.UserID), slog.Any("amr", amr), slog.Bool("new_user", result.Created))
	return token, &result.Session, nil
}

// NotifiedClients are the clients that are told of logouts at present.
func (p *Provider) NotifiedClients() []string { return p.settings().notified() }

// notified are the clients that are told of logouts.
func (s *snapshot) notified() []string {
	var out []string
	for id, client := range s.clients {
		if client.BackchannelLogoutURI != "" {
			out = append(out, id)
		}
	}
	return out
}

// SignInWithPassword signs the person in front of the browser in, within an
// interaction. An error leaves the interaction as it is.
func (p *Provider) SignInWithPassword(ctx context.Context, req Request, id, username, password string) (Next, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	ix, err := p.interaction(ctx, req, id)
	if err != nil {
		return Next{}, err
	}
	account, err := p.passwords.Authenticate(ctx, accounts.Credentials{
		Username: username, Password: secret.New(password), IP: req.RemoteIP,
		ClientID: ix.Params.Get("client_id"), RequestID: req.ID,
	})
	if err != nil {
		return Next{}, pageError(err)
	}
	return p.signedIn(ctx, req, ix, *account.Binding(), []string{amrPassword}, p.settings().LoginAbsoluteLifetime)
}

// pageError is AsError with texts for people at a page.
func pageError(err error) *Error {
	refusal := AsError(err)
	if e, ok := errors.AsType[*accounts.Error](err); ok {
		refusal.Form = true
		switch e.Kind {
		case accounts.WrongCredentials, accounts.InvalidInput:
			refusal.Message = msgPagePassword
		case accounts.Limited:
			refusal.Message = msgPagePasswordLimited
		case accounts.Busy:
			refusal.Message = msgPageBusy
		case accounts.Unavailable:
			refusal.Message = msgPageAccountDown
		}
	}
	return refusal
}

// signedIn goes on with an interaction once the person has been authenticated.
func (p *Provider) signedIn(ctx context.Context, req Request, ix *openInteraction, account storage.Binding, amr []string, absolute time.Duration) (Next, error) {
	token, session, err := p.startLogin(ctx, req, account, amr, absolute)
	if err != nil {
		return Next{}, err
	}
	next := Next{Login: token, LoginLifetime: absolute}
	err = p.save(ctx, req, ix, func(i *interaction) { i.LoginToken, i.Switch, i.Scan = session.Token, false, "" })
	if err != nil {
		return next, err
	}
	then, err := p.proceed(ctx, req, ix, session)
	then.Login, then.LoginLifetime = next.Login, next.LoginLifetime
	return then, err
}

// proceed goes as far with an interaction as it goes without asking anybody
// anything.
func (p *Provider) proceed(ctx context.Context, req Request, ix *openInteraction, login *storage.LoginSession) (Next, error) {
	switch ix.Purpose {
	case purposeAuthorize:
		snap := p.settings()
		a, err := p.parseAuthRequest(ctx, snap, ix.Params)
		if err != nil {
			return p.tell(ctx, req, err)
		}
		return p.advance(ctx, req, snap, ix, a, login)
	case purposeAccount:
		if login != nil && !ix.Switch {
			return Next{Path: PathAccount}, nil
		}
	}
	return Next{Interaction: ix.id}, nil
}

// BeginAccount starts an interaction that leads to the account page.
func (p *Provider) BeginAccount(ctx context.Context, req Request, params url.Values) (Next, error) {
	id, err := p.beginInteraction(ctx, req, interaction{Purpose: purposeAccount, Locales: params.Get("ui_locales")})
	return Next{Interaction: id}, err
}
