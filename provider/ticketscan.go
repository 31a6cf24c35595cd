package provider

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// QRCodeMaker draws a mini-program code; *wechat.Client does.
type QRCodeMaker interface {
	UnlimitedQRCode(ctx context.Context, appid string, in wechat.QRCodeRequest) (wechat.QRCode, error)
}

// ScanView is a code by which a person signs a browser in, as that browser
// shows it. It never says who scanned.
type ScanView struct {
	ID        string      // of the ticket; known to everybody who sees the code
	State     ticketState // waiting, scanned, approved, denied or expired
	Number    string      // two digits for the person to choose on the phone
	Link      string      // what the issuer's own QR code holds
	ExpiresAt time.Time

	Image     []byte // WeChat's code; nil: draw Link
	ImageType string // media type of Image
}

// newScan makes a code by which a person signs the request's browser in, for a
// client or for the issuer's own pages (nil). It lives 120 s and serves once,
// this browser and no other.
func (p *Provider) newScan(ctx context.Context, req Request, client *Client, scope []string) (ScanView, error) {
	snap := p.settings()
	if snap.Scan.AppID == "" {
		return ScanView{}, fail(InvalidRequest, msgScanOff).reason("scan_off")
	}
	if req.Browser == "" {
		return ScanView{}, errors.New("a scan without a browser")
	}
	if ok, wait := p.tickets.codes.Allow(req.subscriber()); !ok {
		return ScanView{}, Limited("scan_codes", wait)
	}
	id, now := newScanID(), time.Now()
	t := &ticket{
		Kind: ticketScan, Scope: scope, Browser: tokenDigest(req.Browser),
		Agent: req.Agent, Place: req.place(), Network: wideNetwork(req.RemoteIP),
		Created: now.UnixMilli(), Expires: now.Add(scanLifetime).UnixMilli(),
	}
	if client != nil {
		t.ClientID = client.ID
	}
	t.to(ticketWaiting, now)
	t.Number, t.Choices = scanNumbers()
	if err := p.putTicket(ctx, scanKey(id), t, scanLifetime+ticketLinger); err != nil {
		return ScanView{}, err
	}
	view := p.scanView(snap, id, t)
	p.draw(ctx, req, snap, &view)
	return view, nil
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

// draw lets WeChat draw a code that still waits, where that is configured. If
// it does not, the link does.
func (p *Provider) draw(ctx context.Context, req Request, snap *snapshot, view *ScanView) {
	if !snap.Scan.WeChatCode || p.qrCodes == nil || view.State != ticketWaiting {
		return
	}
	drawn, err := p.qrCodes.UnlimitedQRCode(ctx, snap.Scan.AppID, wechat.QRCodeRequest{
		Scene: view.ID, Page: snap.Scan.Page, EnvVersion: snap.Scan.EnvVersion,
	})
	if err != nil {
		p.warn(ctx, req, "qr.link_instead", slog.String("wechat_appid", snap.Scan.AppID), slog.String("reason", AsError(err).LogReason))
		return
	}
	view.Image, view.ImageType = drawn.Image, drawn.MediaType
}

func scanKey(id string) storage.Digest { return digest("scan", id) }

// ownScan reads the ticket of a code of the request's browser; it is not found
// for every other.
func (p *Provider) ownScan(ctx context.Context, req Request, id string) (*ticket, error) {
	missing := func(reason string) error { return fail(NotFound, msgScanMissing).reason(reason) }
	if !isScanID(id) || req.Browser == "" {
		return nil, missing("ticket_malformed")
	}
	t, err := p.ticket(ctx, scanKey(id))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, missing("ticket_missing")
	case err != nil:
		return nil, err
	case t.Kind != ticketScan || t.Browser != tokenDigest(req.Browser):
		return nil, missing("other_browser")
	}
	return t, nil
}

// scanState says how a code of the request's browser stands. It has no Image.
func (p *Provider) scanState(ctx context.Context, req Request, id string) (ScanView, error) {
	t, err := p.ownScan(ctx, req, id)
	if err != nil {
		return ScanView{}, err
	}
	return p.scanView(p.settings(), id, t), nil
}

// showScan is scanState with the Image, for a page that is shown again. A code
// of WeChat's is drawn anew, which counts as one more code.
func (p *Provider) showScan(ctx context.Context, req Request, id string) (ScanView, error) {
	view, err := p.scanState(ctx, req, id)
	if snap := p.settings(); err == nil && snap.Scan.WeChatCode && view.State == ticketWaiting {
		if ok, _ := p.tickets.codes.Allow(req.subscriber()); ok {
			p.draw(ctx, req, snap, &view)
		}
	}
	return view, err
}

func (p *Provider) scanView(snap *snapshot, id string, t *ticket) ScanView {
	view := ScanView{ID: id, State: t.at(time.Now()), Number: t.Number, Link: snap.Scan.Link + "?t=" + id, ExpiresAt: t.expiresAt()}
	switch view.State {
	case ticketDead:
		view.State = ticketDenied
	case ticketDone:
		view.State = ticketExpired // there is nothing left to finish
	}
	return view
}

// waitScan returns as scanState does, once the code's state is another than
// last or 15 s went by. A connection too many is refused with 429; such a
// browser asks by scanState.
func (p *Provider) waitScan(ctx context.Context, req Request, id string, last ticketState) (ScanView, error) {
	key, address := scanKey(id), req.subscriber()
	if !p.tickets.enter(key, address) {
		return ScanView{}, Limited("scan_waits", waitPoll)
	}
	defer p.tickets.leave(key, address)
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

// maxScanWait is how long one wait lasts at most: shorter than proxies bear
// silence, and than a server that ends gives its requests.
const maxScanWait = 15 * time.Second

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
