package provider

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/outbound"
	"github.com/wxidp/wxidp/storage"
)

// How clients are told of logouts. Every client has its own pace: one that is
// slow or away holds up nobody else.
const (
	logoutBatch    = 32 // notices of one client that are taken together
	logoutParallel = 4  // of which so many are under way at once
	logoutClients  = 64 // clients that are told at once
	logoutPoll     = 2 * time.Second
	logoutMaxAge   = 24 * time.Hour // when it is given up
	logoutYield    = 5 * time.Second

	defaultLogoutTimeout = 5 * time.Second
)

// logoutPauses are the pauses after the first, second, … failure of a notice;
// the last goes on.
var logoutPauses = []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}

// maxClientPause bounds how long notices wait because others for the same
// client failed.
const maxClientPause = 5 * time.Minute

func logoutPause(failures int) time.Duration {
	return logoutPauses[min(max(failures, 1), len(logoutPauses))-1]
}

// logouts is what sends logout tokens.
type logouts struct {
	transport http.RoundTripper
	observe   func(outcome string, elapsed time.Duration)
	wake      chan struct{}
}

func (p *Provider) newLogouts(opts Options) logouts {
	out := logouts{observe: opts.ObserveLogout, wake: make(chan struct{}, 1)}
	if out.observe == nil {
		out.observe = func(string, time.Duration) {}
	}
	out.transport = outbound.New(outbound.Options{
		Allowed: func() []netip.Prefix { return p.settings().Logout.AllowedNetworks },
		RootCAs: opts.LogoutRootCAs,
	})
	return out
}

// wakeLogouts has notices that were queued just now sent at once.
func (p *Provider) wakeLogouts() {
	select {
	case p.logouts.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// logoutTimeout bounds one delivery.
func (p *Provider) logoutTimeout() time.Duration {
	if timeout := p.settings().Logout.Timeout; timeout > 0 {
		return timeout
	}
	return defaultLogoutTimeout
}

// RunLogouts tells clients of logouts (OpenID Connect Back-Channel Logout 1.0)
// until ctx ends; what is being sent then is finished, the rest stays queued.
// Every node may run it. A client is told at least once.
func (p *Provider) RunLogouts(ctx context.Context) {
	w := &logoutWorker{Provider: p, busy: map[string]bool{}, troubles: map[string]trouble{}, ended: make(chan logoutBatchEnd)}
	poll := time.NewTicker(logoutPoll)
	defer poll.Stop()
	for ctx.Err() == nil {
		w.round(ctx)
		select {
		case <-ctx.Done():
		case <-poll.C:
		case <-p.logouts.wake:
		case end := <-w.ended:
			w.conclude(ctx, end)
		}
	}
	for len(w.busy) > 0 {
		w.conclude(ctx, <-w.ended)
	}
}

// logoutWorker is the state of one RunLogouts, which alone uses it.
type logoutWorker struct {
	*Provider
	busy     map[string]bool    // clients with a batch under way
	troubles map[string]trouble // clients that could not be told lately
	ended    chan logoutBatchEnd
	failing  bool // the queue could not be read or written
}

// trouble is a client that could not be told.
type trouble struct {
	failures int // batches that failed in a row
	until    time.Time
}

type logoutBatchEnd struct {
	clientID string
	told     bool // at least once
	failed   bool
	rest     []storage.LogoutNotice // not tried
}

// round looks once at what is due, and starts a batch for every client that
// can take one. A notice that is taken is first put off for as long as a batch
// may last, so that it neither hides others nor is lost with this process.
func (w *logoutWorker) round(ctx context.Context) {
	due, err := w.store.DueLogouts(ctx, storage.MaxPage)
	if !w.queueWorks(ctx, err) || len(due) == 0 {
		return
	}
	now := time.Now()
	lease := logoutBatch/logoutParallel*w.logoutTimeout() + 30*time.Second
	var changed []storage.LogoutNotice
	put := func(notice storage.LogoutNotice, next time.Time) {
		notice.Next = next
		changed = append(changed, notice)
	}
	batches := make(map[string][]storage.LogoutNotice)
	for _, notice := range due {
		id := notice.ClientID
		_, started := batches[id]
		switch {
		case w.logoutURI(id) == "":
			put(notice, time.Time{})
		case w.troubles[id].until.After(now):
			put(notice, w.unlessTooOld(ctx, notice, w.troubles[id].until, "client_away"))
		case !w.busy[id] && (started || len(w.busy)+len(batches) < logoutClients) && len(batches[id]) < logoutBatch:
			if w.claim(ctx, notice, lease) {
				put(notice, now.Add(lease))
				batches[id] = append(batches[id], notice)
			}
		case len(due) == storage.MaxPage:
			put(notice, now.Add(logoutYield)) // so that the next page shows others
		}
	}
	if !w.queueWorks(ctx, w.settle(ctx, changed)) {
		for _, batch := range batches {
			w.release(ctx, batch)
		}
		return
	}
	for id, batch := range batches {
		w.busy[id] = true
		go w.tellAll(ctx, id, batch)
	}
}

// tellAll sends one client's batch, and stops at the first failure.
func (w *logoutWorker) tellAll(ctx context.Context, clientID string, batch []storage.LogoutNotice) {
	var group sync.WaitGroup
	var taken atomic.Int64
	var told, failed atomic.Bool
	for range min(logoutParallel, len(batch)) {
		group.Go(func() {
			for !failed.Load() && ctx.Err() == nil {
				i := int(taken.Add(1)) - 1
				if i >= len(batch) {
					return
				}
				if w.tell(ctx, batch[i]) {
					told.Store(true)
				} else {
					failed.Store(true)
				}
			}
		})
	}
	group.Wait()
	w.ended <- logoutBatchEnd{
		clientID: clientID, told: told.Load(), failed: failed.Load(), rest: batch[min(int(taken.Load()), len(batch)):],
	}
}

// tell sends one notice and records what came of it. ok is false where the
// client could not be told now.
func (w *logoutWorker) tell(ctx context.Context, notice storage.LogoutNotice) (ok bool) {
	uri := w.logoutURI(notice.ClientID)
	outcome, status := logoutDropped, 0
	if uri != "" {
		start := time.Now()
		outcome, status = w.sendLogoutToken(ctx, w.settings(), notice)
		w.logouts.observe(outcome, time.Since(start))
	}
	switch outcome {
	case logoutOK, logoutDropped:
		notice.Next, ok = time.Time{}, true
	case logoutRefused:
		w.logoutEvent(ctx, "logout.refused", notice.ClientID, slog.String("sub", notice.UserID), slog.String("sid", notice.FamilyID.String()))
		notice.Next, ok = time.Time{}, true
	default:
		notice.Attempts++
		w.logoutEvent(ctx, "logout.delayed", notice.ClientID, slog.String("reason", outcome), slog.Int("status", status),
			slog.Int("attempts", int(notice.Attempts)))
		notice.Next = w.unlessTooOld(ctx, notice, time.Now().Add(logoutPause(int(notice.Attempts))), outcome)
	}
	if err := w.settle(ctx, []storage.LogoutNotice{notice}); err != nil {
		// Nothing is lost: it is due again when the batch's time is over.
		w.logoutQueueFailed(ctx, err)
	}
	return ok
}

// conclude takes note of the end of a batch.
func (w *logoutWorker) conclude(ctx context.Context, end logoutBatchEnd) {
	delete(w.busy, end.clientID)
	next := time.Now()
	if end.failed {
		failures := w.troubles[end.clientID].failures + 1
		if end.told {
			failures = 1
		}
		next = next.Add(min(logoutPause(failures), maxClientPause))
		w.troubles[end.clientID] = trouble{failures: failures, until: next}
	} else if end.told {
		delete(w.troubles, end.clientID)
	}
	if len(end.rest) == 0 {
		return
	}
	for i := range end.rest {
		end.rest[i].Next = next
	}
	w.release(ctx, end.rest)
	w.queueWorks(ctx, w.settle(ctx, end.rest))
}

// unlessTooOld returns the time that a notice is put off to, or none where that
// would be too late to be of use.
func (w *logoutWorker) unlessTooOld(ctx context.Context, notice storage.LogoutNotice, next time.Time, reason string) time.Time {
	if next.Sub(notice.EndedAt) < logoutMaxAge {
		return next
	}
	w.logouts.observe(logoutGivenUp, 0)
	w.logoutEvent(ctx, "logout.given_up", notice.ClientID, slog.String("sub", notice.UserID), slog.String("sid", notice.FamilyID.String()),
		slog.String("reason", reason), slog.Int("attempts", int(notice.Attempts)))
	return time.Time{}
}

// logoutURI is where the client is told, "" where it is not or not any more.
func (p *Provider) logoutURI(clientID string) string {
	if client := p.settings().client(clientID); client != nil {
		return client.BackchannelLogoutURI
	}
	return ""
}

// claim keeps other nodes from the same attempt at the same notice.
func (w *logoutWorker) claim(ctx context.Context, notice storage.LogoutNotice, lifetime time.Duration) bool {
	taken, err := w.store.Claim(ctx, logoutClaim(notice), lifetime)
	return taken && err == nil
}

func (w *logoutWorker) release(ctx context.Context, notices []storage.LogoutNotice) {
	ctx, cancel := detached(ctx)
	defer cancel()
	for _, notice := range notices {
		_ = w.store.Release(ctx, logoutClaim(notice)) // it runs out by itself
	}
}

func logoutClaim(notice storage.LogoutNotice) storage.Digest {
	return digest("logout notice", string(notice.ID[:]), strconv.FormatUint(uint64(notice.Attempts), 10))
}

// settle writes even where ctx has ended: what was sent must not be sent again.
func (w *logoutWorker) settle(ctx context.Context, notices []storage.LogoutNotice) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	for part := range slices.Chunk(notices, storage.MaxPage) {
		if err := w.store.SettleLogouts(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// queueWorks logs the first of several errors of the queue.
func (w *logoutWorker) queueWorks(ctx context.Context, err error) bool {
	if err != nil && !w.failing && ctx.Err() == nil {
		w.logoutQueueFailed(ctx, err)
	}
	w.failing = err != nil
	return err == nil
}

func (w *logoutWorker) logoutQueueFailed(ctx context.Context, err error) {
	w.log.LogAttrs(ctx, slog.LevelError, "the queue of logouts cannot be used now",
		slog.String("event", "logout.queue_failed"), slog.String("detail", err.Error()))
}
