package provider

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// QRCodeMaker draws a mini-program code; *wechat.Client does.
type QRCodeMaker interface {
	UnlimitedQRCode(ctx context.Context, appid string, in wechat.QRCodeRequest) (wechat.QRCode, error)
}

// scanCode is a code as the browser that asked for it shows it.
type scanCode struct {
	ID        string // of the ticket; known to everybody who sees the code
	Number    string // two digits for the person to choose on the phone
	Link      string // what an own QR code holds
	ExpiresAt time.Time

	Image     []byte // WeChat's code; nil: draw Link
	ImageType string // media type
}

// scanView is what a browser may know of its code. It never says who scanned.
type scanView struct {
	State     ticketState // waiting, scanned, approved, denied or expired
	Number    string
	ExpiresAt time.Time
}

// newScan makes a code by which a person signs the request's browser in. It
// lives 120 s and serves once, this browser and no other.
func (p *Provider) newScan(ctx context.Context, req Request, client *Client, scope []string) (scanCode, error) {
	snap := p.settings()
	if snap.Scan.AppID == "" {
		return scanCode{}, fail(InvalidRequest, msgScanOff).reason("scan_off")
	}
	if req.Browser == "" {
		return scanCode{}, errors.New("a scan without a browser")
	}
	if ok, wait := p.tickets.codes.Allow(req.subscriber()); !ok {
		return scanCode{}, Limited("scan_codes", wait)
	}
	id, browser, now := newScanID(), browserDigest(req), time.Now()
	t := &ticket{
		Kind: ticketScan, ClientID: client.ID, Scope: scope, Browser: &browser,
		Agent: req.Agent, Place: req.place(), Network: wideNetwork(req.RemoteIP),
		Created: now.UnixMilli(), Expires: now.Add(scanLifetime).UnixMilli(),
	}
	t.to(ticketWaiting, now)
	t.Number, t.Choices = scanNumbers()
	if err := p.putTicket(ctx, scanKey(id), t, scanLifetime+ticketLinger); err != nil {
		return scanCode{}, err
	}
	code := scanCode{ID: id, Number: t.Number, Link: p.scanLink(snap, id), ExpiresAt: t.expiresAt()}
	if snap.Scan.WeChatCode && p.qrCodes != nil {
		p.drawWeChatCode(ctx, req, snap, &code)
	}
	return code, nil
}

func (p *Provider) putTicket(ctx context.Context, key storage.Digest, t *ticket, lifetime time.Duration) error {
	value, err := t.encode()
	if err != nil {
		return err
	}
	stored, err := p.store.PutState(ctx, storage.StateTicket, key, value, lifetime)
	if err == nil && !stored {
		err = errors.New("a random ticket exists already")
	}
	return err
}

// drawWeChatCode lets WeChat draw the code. Where it does not, the link does.
func (p *Provider) drawWeChatCode(ctx context.Context, req Request, snap *snapshot, code *scanCode) {
	drawn, err := p.qrCodes.UnlimitedQRCode(ctx, snap.Scan.AppID, wechat.QRCodeRequest{
		Scene: code.ID, Page: snap.Scan.Page, EnvVersion: snap.Scan.EnvVersion,
	})
	if err != nil {
		refusal := AsError(err)
		p.warn(ctx, req, "qr.link_instead", slog.String("wechat_appid", snap.Scan.AppID), slog.String("reason", refusal.LogReason))
		return
	}
	code.Image, code.ImageType = drawn.Image, drawn.MediaType
}

// scanLink is the link that leads the phone to a ticket.
func (p *Provider) scanLink(snap *snapshot, id string) string {
	link := snap.Scan.Link
	if link == "" {
		link = p.issuer + "/scan"
	}
	separator := "?"
	if strings.Contains(link, "?") {
		separator = "&"
	}
	return link + separator + "t=" + url.QueryEscape(id)
}

func scanKey(id string) storage.Digest { return digest("scan", id) }

func browserDigest(req Request) storage.Digest { return digest("browser", req.Browser) }

// ownScan reads the ticket of a code of the request's browser; it is not found
// for every other.
func (p *Provider) ownScan(ctx context.Context, req Request, id string) (*ticket, error) {
	missing := func(reason string) error { return fail(NotFound, msgScanMissing).reason(reason) }
	if !parseScanID(id) || req.Browser == "" {
		return nil, missing("ticket_malformed")
	}
	t, err := p.ticket(ctx, scanKey(id))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, missing("ticket_missing")
	case err != nil:
		return nil, err
	case t.Kind != ticketScan || *t.Browser != browserDigest(req):
		return nil, missing("other_browser")
	}
	return t, nil
}

// scanState says how a code of the request's browser stands.
func (p *Provider) scanState(ctx context.Context, req Request, id string) (scanView, error) {
	t, err := p.ownScan(ctx, req, id)
	if err != nil {
		return scanView{}, err
	}
	return t.view(time.Now()), nil
}

func (t *ticket) view(now time.Time) scanView {
	view := scanView{State: t.at(now), Number: t.Number, ExpiresAt: t.expiresAt()}
	switch view.State {
	case ticketDead:
		view.State = ticketDenied
	case ticketDone:
		view.State = ticketExpired // there is nothing left to finish
	}
	return view
}

// waitScan returns as scanState does, once the code's state is another than
// last or 25 s went by. A connection too many is refused with 429; such a
// browser asks by scanState.
func (p *Provider) waitScan(ctx context.Context, req Request, id string, last ticketState) (scanView, error) {
	key, address := scanKey(id), req.subscriber()
	if !p.tickets.enter(address) {
		return scanView{}, Limited("scan_waits", waitPoll)
	}
	defer p.tickets.leave(address, key)
	end := time.NewTimer(maxScanWait)
	defer end.Stop()
	for {
		news := p.tickets.news(key) // before the look, so that nothing is missed between them
		view, err := p.scanState(ctx, req, id)
		if err != nil || view.State != last {
			return view, err
		}
		next := time.NewTimer(min(waitPoll, max(time.Until(view.ExpiresAt), time.Millisecond)))
		select {
		case <-news:
		case <-next.C:
		case <-end.C:
			next.Stop()
			return view, nil
		case <-ctx.Done():
			next.Stop()
			return view, ctx.Err()
		}
		next.Stop()
	}
}

// maxScanWait is how long one wait lasts at most; proxies cut off longer
// silences.
const maxScanWait = 25 * time.Second

// finishScan takes up an approved code, once and for its own browser only. It
// returns who approved, by what means and when.
func (p *Provider) finishScan(ctx context.Context, req Request, id string) (approver, error) {
	if _, err := p.ownScan(ctx, req, id); err != nil {
		return approver{}, err
	}
	t, err := p.changeTicket(ctx, scanKey(id), func(t *ticket, now time.Time) error {
		if !t.finish(now) {
			return fail(TicketUsed, msgTicketUsed).reason("ticket_" + string(t.at(now)))
		}
		return nil
	})
	if err != nil {
		return approver{}, err
	}
	return *t.User, nil
}
