package grants

import (
	"context"
	"errors"
	"fmt"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// TypeWeChatPhone is the grant_type of a sign-in by phone number: for products
// whose accounts are phone numbers.
const TypeWeChatPhone = "wechat_phone"

// amrPhone is the Authentication Methods Reference of a number that WeChat has
// confirmed for this sign-in.
const amrPhone = "wechat_phone"

// PhoneExchanger trades a phone code at WeChat; *wechat.Client does.
type PhoneExchanger interface {
	PhoneNumber(ctx context.Context, appid, phoneCode, weChatOpenID string) (wechat.Phone, error)
}

// UserFinder finds users: the one whom a sign-in of a WeChat identity leads to,
// the one with an id, and the one with an external id. Each returns
// storage.ErrNotFound where there is none.
type UserFinder interface {
	SignInUser(ctx context.Context, identity storage.Identity) (storage.User, error)
	User(ctx context.Context, id string) (storage.User, error)
	UserBy(ctx context.Context, kind storage.IndexKind, value string) (storage.User, error)
}

// PhoneCodes finds out by the code of a phone button which number WeChat has
// confirmed for the user. A code reaches WeChat at most once, together with
// the openid of the user who signs in, so that WeChat refuses a code that was
// given to somebody else.
type PhoneCodes struct {
	WeChat PhoneExchanger
	Claims Claims
	Users  UserFinder
}

// checkPhone looks at the form of phone_code and phone_change.
func checkPhone(req Request) error {
	switch req.Param("phone_change") {
	case "", "true", "false":
	default:
		return &Refusal{Kind: MalformedParameter, Param: "phone_change"}
	}
	return checkCode("phone_code", req.Param("phone_code"))
}

// prove adds the number to the subject. Where the user has a verified number
// already, it asks WeChat only if the request is to change it.
func (p *PhoneCodes) prove(ctx context.Context, req Request, identity storage.Identity, subject *Subject) error {
	if req.Param("phone_change") != "true" {
		user, err := p.user(ctx, identity, subject.Bind)
		if err == nil && user.Phone != "" {
			return nil
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("look up the user of the phone_code: %w", err)
		}
	}
	code := req.Param("phone_code")
	var phone wechat.Phone
	err := once(ctx, p.Claims, "phone_code", identity.AppID, code, func() (err error) {
		phone, err = p.WeChat.PhoneNumber(ctx, identity.AppID, code, identity.WeChatOpenID)
		return err
	})
	if err != nil {
		return err
	}
	subject.Phone = &storage.PhoneProof{E164: phone.E164, VerifiedAt: phone.Timestamp, Change: req.Param("phone_change") == "true"}
	subject.AMR = append(subject.AMR, amrPhone)
	return nil
}

// user is who the sign-in is going to be.
func (p *PhoneCodes) user(ctx context.Context, identity storage.Identity, bind *storage.Binding) (storage.User, error) {
	switch {
	case bind == nil:
		return p.Users.SignInUser(ctx, identity)
	case bind.UserID != "":
		return p.Users.User(ctx, bind.UserID)
	}
	return p.Users.UserBy(ctx, storage.IndexExternalID, bind.ExternalID)
}

// WeChatPhone proves a user by js_code and phone_code: the number names the
// account. A number alone opens no account that has another way in or is in
// use; who already signs in with this WeChat identity stays who they are.
type WeChatPhone struct {
	Codes    *JSCodes
	Phones   *PhoneCodes
	Defaults *accounts.Defaults
}

var _ Grant = (*WeChatPhone)(nil)

// Type returns "wechat_phone".
func (g *WeChatPhone) Type() string { return TypeWeChatPhone }

// Prove spends the js_code, then the phone_code.
func (g *WeChatPhone) Prove(ctx context.Context, req Request) (Subject, error) {
	if err := checkJSCode(req.Param("js_code")); err != nil {
		return Subject{}, err
	}
	if err := checkPhone(req); err != nil {
		return Subject{}, err
	}
	for _, param := range []string{"username", "password"} {
		if req.Param(param) != "" {
			return Subject{}, &Refusal{Kind: ForeignParameter, Param: param}
		}
	}
	user, err := g.Codes.Exchange(ctx, req)
	if err != nil {
		return Subject{}, err
	}
	subject := newSubject(req, user, g.Defaults)
	if err := g.Phones.prove(ctx, req, user.Identity, &subject); err != nil {
		return Subject{}, err
	}
	if subject.Phone != nil {
		subject.Phone.SignIn = true
	}
	return subject, nil
}
