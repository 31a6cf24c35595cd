package provider

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Where a mini-program lets its user decide about a screen elsewhere, below
// the issuer. All take form posts with an access token of scope
// device.approve.
const (
	PathDeviceContext = "/device/context"
	PathDeviceApprove = "/device/approve"
	PathDeviceDeny    = "/device/deny"
)

// ticketContext is what a mini-program shows of who asks.
type ticketContext struct {
	Kind       ticketKind `json:"kind"`
	ClientID   string     `json:"client_id,omitempty"`
	ClientName string     `json:"client_name"`
	Browser    string     `json:"browser,omitempty"`
	Place      string     `json:"place"`
	StartedAt  int64      `json:"started_at"` // Unix seconds
	ExpiresIn  int64      `json:"expires_in"` // seconds
	Scopes     []string   `json:"scopes"`
	// Choices are absent where NumberEntry is true: the person types what the
	// screen shows.
	Choices     []string `json:"choices,omitempty"`
	NumberEntry bool     `json:"number_entry"`
	Warning     string   `json:"warning,omitempty"`
}

// DeviceContext answers with the response body who asks by the form's ticket,
// which is what was scanned or a user code, and records that the user of the
// access token has seen it.
func (p *Provider) DeviceContext(ctx context.Context, req Request) ([]byte, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	at, err := p.phone(ctx, req)
	if err != nil {
		return nil, err
	}
	network := wideNetwork(req.RemoteIP)
	t, err := p.changeTicket(ctx, at.key, func(t *ticket, now time.Time) error {
		return t.see(at.user.ID, t.Network != network, now)
	})
	if err != nil {
		return nil, p.phoneRefused(ctx, req, at, t, err)
	}
	view := ticketContext{
		Kind: t.Kind, ClientID: t.ClientID, ClientName: p.ticketName(t), Browser: t.Agent, Place: t.Place,
		StartedAt: t.Created / 1000, ExpiresIn: max(0, int64(time.Until(t.expiresAt())/time.Second)),
		Scopes: t.Scope, Choices: t.Choices, NumberEntry: t.Typed,
	}
	if view.Scopes == nil {
		view.Scopes = []string{}
	}
	if t.Typed {
		view.Choices, view.Warning = nil, "other_network"
	}
	return answer(view)
}

// DeviceApprove approves the form's ticket, with the number from the other
// screen.
func (p *Provider) DeviceApprove(ctx context.Context, req Request) ([]byte, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	at, err := p.phone(ctx, req)
	if err != nil {
		return nil, err
	}
	number := req.HTTP.PostForm.Get("number")
	if number == "" {
		return nil, fail(InvalidRequest, msgParamMissing.with("number")).reason("missing_number")
	}
	t, err := p.changeTicket(ctx, at.key, func(t *ticket, now time.Time) error {
		by := at.user
		if t.Kind == ticketDevice {
			if err := p.mayGrant(by.ID); err != nil {
				return err
			}
		}
		if t.Kind == ticketScan {
			// The person decides at this moment, with a phone that WeChat vouches for.
			by.AuthTime, by.AMR = now.Unix(), []string{"wechat", amrScan}
		}
		return t.approve(by, number, now)
	})
	if err != nil {
		return nil, p.phoneRefused(ctx, req, at, t, err)
	}
	p.info(ctx, req, "qr.approved", append(t.about(at.user.ID), slog.String("by_client_id", at.client.ID))...)
	return answer(ticketDecision{Approved: true, Kind: t.Kind, ClientName: p.ticketName(t)})
}

// DeviceDeny turns the form's ticket down.
func (p *Provider) DeviceDeny(ctx context.Context, req Request) ([]byte, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	at, err := p.phone(ctx, req)
	if err != nil {
		return nil, err
	}
	t, err := p.changeTicket(ctx, at.key, func(t *ticket, now time.Time) error { return t.deny(at.user.ID, now) })
	if err != nil {
		return nil, p.phoneRefused(ctx, req, at, t, err)
	}
	p.info(ctx, req, "qr.denied", append(t.about(at.user.ID),
		slog.String("by_client_id", at.client.ID), slog.String("reason", "declined"))...)
	return answer(ticketDecision{Kind: t.Kind, ClientName: p.ticketName(t)})
}

// ticketDecision is the answer to a decision.
type ticketDecision struct {
	Approved   bool       `json:"approved"`
	Kind       ticketKind `json:"kind"`
	ClientName string     `json:"client_name"`
}

func answer(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(b, '\n'), err
}

// ticketName is what people know the asking client by; the issuer's own pages
// go by its host.
func (p *Provider) ticketName(t *ticket) string {
	if client := p.settings().client(t.ClientID); client != nil {
		return client.title()
	}
	if issuer, err := url.Parse(p.issuer); err == nil && t.ClientID == "" {
		return issuer.Host
	}
	return t.ClientID
}

// phone is a mini-program's request about a ticket.
type phone struct {
	key    storage.Digest
	user   approver
	client *Client // the mini-program's
	who    []string
}

// phone finds out who asks about which ticket.
func (p *Provider) phone(ctx context.Context, req Request) (phone, error) {
	token, err := p.userToken(ctx, req, ScopeDeviceApprove)
	if err != nil {
		return phone{}, err
	}
	if token.client.WeChatAppID == "" || token.family.Identity.IsZero() {
		refusal := fail(AccessDenied, msgNotPhone).reason("not_a_wechat_sign_in")
		refusal.Status = http.StatusForbidden
		return phone{}, refusal
	}
	at := phone{client: token.client, user: approver{
		ID: token.family.UserID, Epoch: token.family.UserEpoch, AuthTime: token.family.AuthTime.Unix(), AMR: token.family.AMR,
	}}
	at.who = []string{req.subscriber(), "user|" + at.user.ID}
	if err := p.allowMisses(at.who...); err != nil {
		return phone{}, err
	}
	presented := req.HTTP.PostForm.Get("ticket")
	if presented == "" {
		return phone{}, fail(InvalidRequest, msgParamMissing.with("ticket")).reason("missing_ticket")
	}
	scan, code := parseTicket(presented)
	switch {
	case scan != "":
		at.key = scanKey(scan)
	case code != "":
		at.key, err = p.deviceByCode(ctx, code)
	default:
		err = storage.ErrNotFound
	}
	if errors.Is(err, storage.ErrNotFound) {
		err = p.unknownTicket(at)
	}
	return at, err
}

// unknownTicket answers alike about tickets that never were and those that are
// no more.
func (p *Provider) unknownTicket(at phone) error {
	return p.missed(fail(TicketExpired, msgTicketExpired).reason("ticket_unknown"), at.who...)
}

// phoneRefused turns the refusal of a change into the answer, and reports it
// where it looks like an attack.
func (p *Provider) phoneRefused(ctx context.Context, req Request, at phone, t *ticket, err error) error {
	refusal, ok := errors.AsType[*Error](err)
	if errors.Is(err, storage.ErrNotFound) || ok && refusal.Code == TicketExpired {
		return p.unknownTicket(at)
	}
	if !ok {
		return err
	}
	return p.ticketRefused(ctx, req, t, at.user.ID, err)
}

// parseTicket takes what a phone has of a ticket: the id of a scan, a user
// code, or the link of either as it was scanned, percent-encoded or not. Both
// results are "" for anything else.
func parseTicket(s string) (scan, userCode string) {
	s = strings.TrimSpace(s)
	if len(s) > maxTicketText {
		return "", ""
	}
	if !strings.Contains(s, "://") && strings.Contains(strings.ToLower(s), "%3a%2f%2f") {
		if plain, err := url.QueryUnescape(s); err == nil {
			s = plain
		}
	}
	if strings.Contains(s, "://") {
		link, err := url.Parse(s)
		if err != nil {
			return "", ""
		}
		query := link.Query()
		if s = query.Get("t"); s == "" {
			s = query.Get("user_code")
		}
	}
	if isScanID(s) {
		return s, ""
	}
	userCode, _ = parseUserCode(s)
	return "", userCode
}

// maxTicketText bounds what is taken for a ticket, in bytes.
const maxTicketText = 2048
