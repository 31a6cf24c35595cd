package provider

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Where devices ask, and where people type user codes, below the issuer.
const (
	PathDeviceAuthorization = "/oauth2/device_authorization" // RFC 8628 §3.1
	PathDeviceVerification  = "/device"
)

// DeviceAuthorization answers a device authorization request (RFC 8628 §3.1)
// with the response body. The client, its scope and its audience are checked
// as at the token endpoint.
func (p *Provider) DeviceAuthorization(ctx context.Context, req Request) ([]byte, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	client, err := p.authenticateRequest(ctx, req, PathDeviceAuthorization)
	if err != nil {
		return nil, err
	}
	if !client.may(GrantDeviceCode) {
		return nil, fail(UnauthorizedClient, msgGrantForbidden).reason("grant_not_allowed")
	}
	scope, audience, err := deviceTargets(client, req.HTTP.PostForm)
	if err != nil {
		return nil, err
	}
	if client.Public {
		if ok, wait := p.tickets.codes.Allow(client.ID + "|" + req.subscriber()); !ok {
			return nil, Limited("scan_codes", wait)
		}
	}
	now := time.Now()
	t := &ticket{
		Kind: ticketDevice, ClientID: client.ID, Scope: scope, Audience: audience,
		Agent: req.Agent, Place: req.place(), Network: wideNetwork(req.RemoteIP),
		Created: now.UnixMilli(), Expires: now.Add(deviceLifetime).UnixMilli(),
	}
	t.to(ticketWaiting, now)
	deviceCode := storage.NewToken()
	userCode, err := p.putDevice(ctx, deviceKey(deviceCode), t)
	if err != nil {
		return nil, err
	}
	return deviceAnswer(p.issuer+PathDeviceVerification, deviceCode, showUserCode(userCode)), nil
}

// deviceTargets are the scope and the audience that a device asks for.
func deviceTargets(client *Client, form url.Values) (scope, audience []string, err error) {
	requested := words(form.Get("scope"))
	if len(requested) > maxListed {
		return nil, nil, fail(InvalidScope, msgScopeRefused).reason("too_many_scopes")
	}
	targets := append(words(form.Get("audience")), form["resource"]...)
	if len(targets) > maxListed {
		return nil, nil, fail(InvalidTarget, msgTarget).reason("too_many_audiences")
	}
	if scope, err = client.scope(requested); err != nil {
		return nil, nil, err
	}
	scope, _ = narrow(scope, scope, nil) // each once
	audience, err = narrow(client.Audience, targets, fail(InvalidTarget, msgTarget).reason("audience_not_allowed"))
	return scope, audience, err
}

func deviceAnswer(page, deviceCode, userCode string) []byte {
	b := appendString([]byte(`{"device_code":`), deviceCode)
	b = appendString(append(b, `,"user_code":`...), userCode)
	b = appendString(append(b, `,"verification_uri":`...), page)
	b = appendString(append(b, `,"verification_uri_complete":`...), page+"?user_code="+userCode)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), int64(deviceLifetime/time.Second), 10)
	b = strconv.AppendInt(append(b, `,"interval":`...), int64(deviceInterval/time.Second), 10)
	return append(b, "}\n"...)
}

func deviceKey(deviceCode string) storage.Digest { return digest("device_code", deviceCode) }

func userCodeKey(code string) storage.Digest { return digest("user_code", code) }

// putDevice stores a device's ticket under a user code that no other device
// has at present.
func (p *Provider) putDevice(ctx context.Context, key storage.Digest, t *ticket) (userCode string, err error) {
	for range 5 {
		userCode = newUserCode()
		stored, err := p.store.PutState(ctx, storage.StateTicketName, userCodeKey(userCode), key[:], deviceLifetime+ticketLinger)
		if err != nil {
			return "", err
		}
		if stored {
			t.Number, t.Choices = userCodeNumbers(userCode)
			return userCode, p.putTicket(ctx, key, t, deviceLifetime+ticketLinger)
		}
	}
	return "", errors.New("no free user code was found")
}

// deviceByCode is the key of the device's ticket that a user code leads to, or
// storage.ErrNotFound.
func (p *Provider) deviceByCode(ctx context.Context, code string) (storage.Digest, error) {
	state, err := p.store.State(ctx, storage.StateTicketName, userCodeKey(code))
	if err != nil {
		return storage.Digest{}, err
	}
	var key storage.Digest
	if len(state.Value) != len(key) {
		return key, errTicketCorrupt
	}
	return storage.Digest(state.Value), nil
}

// deviceRequest is a device that waits, as the page shows it to who has typed
// its user code.
type deviceRequest struct {
	Key       storage.Digest // names the ticket to approveDevice and refuseDevice
	UserCode  string         // in two groups of four letters
	Client    *Client
	Scope     []string
	Agent     string // "": not known
	Place     string
	StartedAt time.Time
	ExpiresAt time.Time
}

// deviceByUserCode finds the device that waits for what a person has typed.
// Any other code is not found, and too many of them are refused with 429.
func (p *Provider) deviceByUserCode(ctx context.Context, req Request, typed string) (deviceRequest, error) {
	unknown := func(reason string) *Error { return fail(NotFound, msgUserCodeUnknown).reason(reason) }
	from := req.subscriber()
	if err := p.allowMisses(from); err != nil {
		return deviceRequest{}, err
	}
	code, ok := parseUserCode(typed)
	if !ok {
		return deviceRequest{}, p.missed(unknown("user_code_malformed"), from)
	}
	key, err := p.deviceByCode(ctx, code)
	if errors.Is(err, storage.ErrNotFound) {
		return deviceRequest{}, p.missed(unknown("user_code_unknown"), from)
	}
	if err != nil {
		return deviceRequest{}, err
	}
	out, err := p.device(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return deviceRequest{}, p.missed(unknown("user_code_unknown"), from)
	}
	out.UserCode = showUserCode(code)
	return out, err
}

// device is a device that still waits, or storage.ErrNotFound.
func (p *Provider) device(ctx context.Context, key storage.Digest) (deviceRequest, error) {
	t, err := p.ticket(ctx, key)
	if err != nil {
		return deviceRequest{}, err
	}
	client := p.settings().client(t.ClientID)
	if client == nil || t.Kind != ticketDevice || t.open(time.Now()) != nil {
		return deviceRequest{}, storage.ErrNotFound
	}
	return deviceRequest{
		Key: key, Client: client, Scope: intersect(t.Scope, client.Scopes), Agent: t.Agent, Place: t.Place,
		StartedAt: time.UnixMilli(t.Created), ExpiresAt: t.expiresAt(),
	}, nil
}

// approveDevice lets a device in for a person who has typed its user code and
// agreed.
func (p *Provider) approveDevice(ctx context.Context, req Request, key storage.Digest, by approver) error {
	t, err := p.decideDevice(ctx, req, key, by.ID, func(t *ticket, now time.Time) error { return t.approveTyped(by, now) })
	if err == nil {
		p.info(ctx, req, "qr.approved", t.about(by.ID)...)
	}
	return err
}

// refuseDevice turns a device away.
func (p *Provider) refuseDevice(ctx context.Context, req Request, key storage.Digest, userID string) error {
	t, err := p.decideDevice(ctx, req, key, userID, func(t *ticket, now time.Time) error { return t.deny(userID, now) })
	if err == nil {
		p.info(ctx, req, "qr.denied", append(t.about(userID), slog.String("reason", "declined"))...)
	}
	return err
}

func (p *Provider) decideDevice(ctx context.Context, req Request, key storage.Digest, userID string, decide func(*ticket, time.Time) error) (*ticket, error) {
	t, err := p.changeTicket(ctx, key, func(t *ticket, now time.Time) error {
		if t.Kind != ticketDevice {
			return storage.ErrNotFound
		}
		return decide(t, now)
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fail(TicketExpired, msgTicketExpired).reason("ticket_missing")
	}
	return t, p.ticketRefused(ctx, req, t, userID, err)
}

// about is what the log says of a ticket.
func (t *ticket) about(userID string) []slog.Attr {
	return []slog.Attr{slog.String("sub", userID), slog.String("client_id", t.ClientID), slog.String("kind", string(t.Kind))}
}

// ticketRefused reports a refusal that looks like an attack, and returns it.
func (p *Provider) ticketRefused(ctx context.Context, req Request, t *ticket, userID string, err error) error {
	if refusal, ok := errors.AsType[*Error](err); ok && (refusal.Code == WrongNumber || refusal.Code == TicketTaken) {
		p.warn(ctx, req, "qr.denied", append(t.about(userID), slog.String("reason", refusal.LogReason))...)
	}
	return err
}
