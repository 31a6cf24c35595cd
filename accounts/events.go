package accounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/limit"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// MaxPushBody is the longest body of a push taken, in bytes.
const MaxPushBody = wechat.MaxEventBody

// The errors of [Events] beside those of storage.
var (
	// ErrNoReceiver is an app whose pushes are not taken.
	ErrNoReceiver = errors.New("accounts: no message push is configured for this app")
	// ErrPushSignature is a push that WeChat did not sign, or not for now.
	ErrPushSignature = errors.New("accounts: the push is not signed, or not within 5 minutes of now")
	// ErrPushBody is a push whose body is malformed, plain, too large or of
	// another app.
	ErrPushBody = errors.New("accounts: the body of the push cannot be read, or is not of this app")
)

// EventStore is the part of a Store that events need.
type EventStore interface {
	IdentityUser(ctx context.Context, appID, weChatOpenID string) (storage.User, storage.Digest, error)
	Withdraw(ctx context.Context, in storage.Withdrawal) (storage.WithdrawResult, error)
	UpdateProfile(ctx context.Context, userID string, change storage.ProfileChange) (storage.User, error)
}

// MessagePush is what the console of a mini-program says under 消息推送.
type MessagePush struct {
	AppID          string
	Token          secret.String
	EncodingAESKey secret.String
}

// Push is one request of WeChat: the query parameters of the same names, and
// the body.
type Push struct {
	Timestamp, Nonce, Signature, MsgSignature string

	Body []byte
}

func (p *Push) query() wechat.PushQuery {
	return wechat.PushQuery{Timestamp: p.Timestamp, Nonce: p.Nonce, Signature: p.Signature, MsgSignature: p.MsgSignature}
}

// Events does what WeChat's own events about people demand. It is safe for
// concurrent use.
type Events struct {
	store     EventStore
	defaults  *Defaults
	notified  func() []string
	log       *slog.Logger
	receivers atomic.Pointer[map[string]*wechat.EventReceiver] // by appid
	done      *limit.Recent
}

// NewEvents returns Events that take no pushes yet; see Prepare. notified
// returns the clients that are told where login sessions end.
func NewEvents(store EventStore, defaults *Defaults, notified func() []string, logger *slog.Logger) *Events {
	e := &Events{
		store: store, defaults: defaults, notified: notified, log: logger,
		// For longer than a signature is good. Only what WeChat signed gets in.
		done: limit.NewRecent(10*time.Minute, 1<<14),
	}
	e.receivers.Store(&map[string]*wechat.EventReceiver{})
	return e
}

// Share makes what one node of an exchange has done known to the others.
func (e *Events) Share(x *limit.Exchange) { x.Register("wechat_events", e.done) }

// Prepare checks which apps' pushes to take from now on. apply, which cannot
// fail, puts that in force.
func (e *Events) Prepare(pushes []MessagePush) (apply func(), err error) {
	next := make(map[string]*wechat.EventReceiver, len(pushes))
	for _, p := range pushes {
		if p.EncodingAESKey.IsZero() {
			// The signature of a plain push does not cover its body.
			return nil, fmt.Errorf("message push of app %s: plain pushes are not taken", p.AppID)
		}
		if next[p.AppID], err = wechat.NewEventReceiver(p.AppID, p.Token, p.EncodingAESKey); err != nil {
			return nil, err
		}
	}
	return func() { e.receivers.Store(&next) }, nil
}

// Verify checks the request by which WeChat tries the address. Errors are
// ErrNoReceiver and ErrPushSignature.
func (e *Events) Verify(appid string, p Push) error {
	receiver := (*e.receivers.Load())[appid]
	if receiver == nil {
		return ErrNoReceiver
	}
	if receiver.Verify(p.query()) != nil {
		return ErrPushSignature
	}
	return nil
}

// Receive does durably what a push demands. One that was done before is not
// done again. Errors are ErrNoReceiver, ErrPushSignature, ErrPushBody and
// those of storage; after these WeChat may send the push again.
func (e *Events) Receive(ctx context.Context, appid string, p Push) error {
	receiver := (*e.receivers.Load())[appid]
	if receiver == nil {
		return ErrNoReceiver
	}
	event, err := receiver.Open(p.query(), p.Body)
	switch {
	case errors.Is(err, wechat.ErrEventSignature):
		return ErrPushSignature
	case err != nil:
		return ErrPushBody
	case event.Type == "":
		return nil // somebody's message
	}
	// A copy that comes while the first is being worked on is worked on too,
	// which does no harm; were it acknowledged, a failure of the first would
	// lose the event.
	id := appid + " " + p.Timestamp + " " + p.Nonce
	if e.done.Has(id) {
		e.report(ctx, event, "", actionRepeated)
		return nil
	}
	userID, action, err := e.handle(ctx, event)
	if err != nil {
		return err
	}
	e.done.Add(id)
	e.report(ctx, event, userID, action)
	return nil
}

// The values of action in the log.
const (
	actionRepeated  = "repeated"
	actionIgnored   = "ignored" // not about anything that is kept here
	actionUnknown   = "unknown_user"
	actionErased    = "user_erased"
	actionUnbound   = "identity_removed"
	actionWithdrawn = "sign_ins_ended"
	actionReset     = "profile_reset"
)

// report leaves one line, without WeChat's id of the user.
func (e *Events) report(ctx context.Context, event wechat.Event, userID, action string) {
	e.log.LogAttrs(ctx, slog.LevelInfo, "WeChat event", slog.String("event", "wechat.event"),
		slog.String("type", string(event.Type)), slog.String("appid", event.AppID), slog.String("revoke_info", event.Revoked),
		slog.String("sub", userID), slog.String("action", action))
}

func (e *Events) handle(ctx context.Context, event wechat.Event) (userID, action string, err error) {
	in := storage.Withdrawal{AppID: event.AppID, WeChatOpenID: event.WeChatOpenID}
	var revoked stale
	switch {
	case event.WeChatOpenID == "" || event.PluginID != "":
		return "", actionIgnored, nil // a user of a plugin, whose data is the plugin's
	case event.Type == wechat.EventAccountCancelled:
		in.Account = true
		return e.withdraw(ctx, in)
	case event.Type == wechat.EventUserInfoModified:
		return e.resetProfile(ctx, in)
	case event.Type != wechat.EventAuthorizationRevoked:
		return "", actionIgnored, nil
	}
	switch event.Revoked {
	case wechat.RevokedPhone:
		in.Phone = true
	case wechat.RevokedNicknameAndAvatar:
		revoked = stale{nickname: true, picture: true}
	case wechat.RevokedTypedNickname:
		revoked.nickname = true
	case wechat.RevokedChosenAvatar:
		revoked.picture = true
	}
	if revoked != (stale{}) {
		user, _, err := e.store.IdentityUser(ctx, in.AppID, in.WeChatOpenID)
		if errors.Is(err, storage.ErrNotFound) {
			return "", actionUnknown, nil
		}
		if err != nil {
			return "", "", err
		}
		in.Profile = e.defaults.instead(user.Profile, revoked)
	}
	return e.withdraw(ctx, in)
}

func (e *Events) withdraw(ctx context.Context, in storage.Withdrawal) (userID, action string, err error) {
	in.Notify = e.notified()
	res, err := e.store.Withdraw(ctx, in)
	if err != nil {
		return "", "", err
	}
	switch res.Verdict {
	case storage.WithdrawMissing:
		return "", actionUnknown, nil
	case storage.WithdrawErased:
		action = actionErased
	case storage.WithdrawUnbound:
		action = actionUnbound
	default:
		action = actionWithdrawn
	}
	return res.UserID, action, nil
}

func (e *Events) resetProfile(ctx context.Context, in storage.Withdrawal) (userID, action string, err error) {
	user, _, err := e.store.IdentityUser(ctx, in.AppID, in.WeChatOpenID)
	if err == nil {
		_, err = e.store.UpdateProfile(ctx, user.ID, e.defaults.instead(user.Profile, stale{nickname: true, picture: true}))
	}
	if errors.Is(err, storage.ErrNotFound) {
		return "", actionUnknown, nil
	}
	if err != nil {
		return "", "", err
	}
	return user.ID, actionReset, nil
}
