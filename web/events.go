package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/provider"
)

// pathWeChatEvents is where WeChat pushes its events, below the issuer.
const pathWeChatEvents = "/wechat/events/{appid}"

// eventBudget is how long a push may take: after 5 s WeChat sends it again.
const eventBudget = 5 * time.Second

// maxEchoString is the longest echostr repeated, in bytes; WeChat's have some
// 20 digits.
const maxEchoString = 256

var msgPush = provider.Message{
	EN: "This is not a push that WeChat signed for this app, or not within 5 minutes of now, or not an encrypted one.",
	ZH: "该请求不是微信为此小程序签名的消息推送，或签名时间与当前相差超过 5 分钟，或未加密。"}

// serveEventTrial answers WeChat's trial of the address.
func (s *Server) serveEventTrial(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	echo := one(query, "echostr")
	err := s.Events.Verify(chi.URLParam(r, "appid"), push(query))
	if err == nil && !ascii.Visible(echo, maxEchoString) {
		err = accounts.ErrPushBody
	}
	if err != nil {
		s.refusePush(w, r, err)
		return
	}
	writeText(w, echo)
}

// serveEvent takes one event. "success" leaves only after what it demands was
// done durably; any other answer makes WeChat send it again.
func (s *Server) serveEvent(w http.ResponseWriter, r *http.Request) {
	p := push(r.URL.Query())
	var err error
	if p.Body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, accounts.MaxPushBody)); err != nil {
		s.refusePush(w, r, accounts.ErrPushBody)
		return
	}
	// Whatever was begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), eventBudget)
	defer cancel()
	if err := s.Events.Receive(ctx, chi.URLParam(r, "appid"), p); err != nil {
		s.refusePush(w, r, err)
		return
	}
	writeText(w, "success")
}

// refusePush logs the appid of an app that is configured, and no other text of
// the request.
func (s *Server) refusePush(w http.ResponseWriter, r *http.Request, err error) {
	refusal := &provider.Error{Code: provider.AccessDenied, Status: http.StatusForbidden, Message: msgPush, LogReason: "signature"}
	switch {
	case errors.Is(err, accounts.ErrNoReceiver):
		notFound(w, r)
		return
	case errors.Is(err, accounts.ErrPushSignature):
	case errors.Is(err, accounts.ErrPushBody):
		refusal.Code, refusal.Status, refusal.LogReason = provider.InvalidRequest, http.StatusBadRequest, "body"
	default:
		refusal = provider.AsError(err)
	}
	s.writeError(w, r, "wechat.event_refused", refusal, slog.String("appid", chi.URLParam(r, "appid")))
}

func push(query url.Values) accounts.Push {
	return accounts.Push{
		Timestamp: one(query, "timestamp"), Nonce: one(query, "nonce"),
		Signature: one(query, "signature"), MsgSignature: one(query, "msg_signature"),
	}
}

// one returns a parameter that is given once, else "".
func one(query url.Values, name string) string {
	if values := query[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

var typeText = []string{"text/plain; charset=utf-8"}

func writeText(w http.ResponseWriter, body string) {
	header := w.Header()
	noStore(w)
	header["Content-Type"] = typeText
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, body) // WeChat may be gone; then it sends again
}
