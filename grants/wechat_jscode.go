package grants

import (
	"context"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/secret"
)

// TypeWeChatJSCode is the grant_type of a WeChat mini-program sign-in.
const TypeWeChatJSCode = "wechat_jscode"

// PasswordChecker names the account that a username and password open;
// *accounts.Authenticator does.
type PasswordChecker interface {
	Authenticate(ctx context.Context, c accounts.Credentials) (accounts.Result, error)
}

// WeChatJSCode proves a user by the js_code of wx.login. With username and
// password the same request binds the WeChat identity to the account that they
// open; with a phone_code it records the user's phone number.
type WeChatJSCode struct {
	Codes     *JSCodes
	Phones    *PhoneCodes
	Passwords PasswordChecker
	Defaults  *accounts.Defaults
}

var _ Grant = (*WeChatJSCode)(nil)

// Type returns "wechat_jscode".
func (g *WeChatJSCode) Type() string { return TypeWeChatJSCode }

// Prove looks at the form of every parameter first, then spends the js_code,
// then checks the password, then spends the phone_code: each guess at a
// password costs a fresh js_code.
func (g *WeChatJSCode) Prove(ctx context.Context, req Request) (Subject, error) {
	if err := checkJSCode(req.Param("js_code")); err != nil {
		return Subject{}, err
	}
	credentials, err := readCredentials(req)
	if err != nil {
		return Subject{}, err
	}
	phone := req.Param("phone_code") != ""
	if phone && !req.TakesPhone {
		return Subject{}, &Refusal{Kind: ForeignParameter, Param: "phone_code"}
	}
	if phone {
		if err := checkPhone(req); err != nil {
			return Subject{}, err
		}
	}
	user, err := g.Codes.Exchange(ctx, req)
	if err != nil {
		return Subject{}, err
	}
	subject := newSubject(req, user, g.Defaults)
	if credentials != nil {
		account, err := g.Passwords.Authenticate(ctx, *credentials)
		if err != nil {
			return Subject{}, err
		}
		subject.Bind = account.Binding()
		if subject.Bind.Profile.Nickname == "" {
			subject.Bind.Profile.Nickname = subject.NewProfile.Nickname
		}
		if subject.Bind.Profile.Picture == "" {
			subject.Bind.Profile.Picture = subject.NewProfile.Picture
		}
		subject.AMR = append(subject.AMR, "pwd")
	}
	if phone {
		if err := g.Phones.prove(ctx, req, user.Identity, &subject); err != nil {
			return Subject{}, err
		}
	}
	return subject, nil
}

// newSubject is the user of a js_code and nothing more.
func newSubject(req Request, user WeChatUser, defaults *accounts.Defaults) Subject {
	subject := Subject{
		Identity:     user.Identity,
		NewProfile:   defaults.NewProfile(),
		AuthTime:     time.Now(),
		AMR:          []string{"wechat"},
		RequireKnown: req.RequireKnown,
	}
	if req.KeepSessionKey {
		subject.SessionKey = user.SessionKey
	}
	return subject
}

// readCredentials returns the username and password of the request, checked
// for their form, or nil where it has neither.
func readCredentials(req Request) (*accounts.Credentials, error) {
	username, password := req.Param("username"), secret.New(req.Param("password"))
	switch {
	case username == "" && password.IsZero():
		return nil, nil
	case username == "":
		return nil, &Refusal{Kind: MissingParameter, Param: "username"}
	case password.IsZero():
		return nil, &Refusal{Kind: MissingParameter, Param: "password"}
	}
	if _, err := accounts.CanonicalUsername(username); err != nil {
		return nil, err
	}
	if err := accounts.CheckPassword(password); err != nil {
		return nil, err
	}
	return &accounts.Credentials{
		Username: username, Password: password, IP: req.RemoteIP, ClientID: req.ClientID, RequestID: req.ID,
	}, nil
}
