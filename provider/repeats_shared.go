package provider

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// How nodes that share a store wait for each other's requests with the same
// Idempotency-Key.
const (
	// leadLifetime outlasts every request, and so does not end under its
	// leader; after a leader that died others wait no longer.
	leadLifetime = requestBudget + 5*time.Second
	firstLook    = 20 * time.Millisecond // pauses between looks at the leader's outcome, doubled each time
	lastLook     = 500 * time.Millisecond
)

// lead returns the outcome of an earlier request with the same key, for which
// it waits where that is under way on another node. Where there is none the
// request is the one to be worked on.
func (p *Provider) lead(ctx context.Context, sess *session) (*storage.Family, error) {
	if !p.shared {
		return p.earlierOutcome(ctx, sess)
	}
	r := sess.proof.repeat
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		// Before the look: a leader that ends between them has left an outcome.
		free, err := p.store.Claim(ctx, leadClaim(r), leadLifetime)
		if err != nil {
			return nil, err
		}
		family, err := p.earlierOutcome(ctx, sess)
		if err == nil && family == nil {
			err = p.earlierRefusal(ctx, r)
		}
		switch known := err != nil || family != nil; {
		case known && free:
			p.releaseLead(ctx, r)
			return family, err
		case known:
			return family, err
		case free:
			r.leads = true
			return nil, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func leadClaim(r *repeat) storage.Digest { return digest("idempotency leader", string(r.key[:])) }

// endRepeat ends a repeat, here and on other nodes. Only the first call counts.
func (p *Provider) endRepeat(ctx context.Context, r *repeat, err error) {
	if r != nil && r.leads {
		r.leads = false
		p.tellRepeats(ctx, r, err)
	}
	r.end(err)
}

// tellRepeats leaves a refusal for other nodes, or lets them try where nothing
// is to be remembered. The storage has successes from the sign-in's commit.
func (p *Provider) tellRepeats(ctx context.Context, r *repeat, err error) {
	if err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if refusal := lasting(err); refusal != nil && refusal.Code != InvalidRequest { // which any node finds again by itself
		value, err := json.Marshal(sharedRefusal{r.form, refusal.Code, refusal.Status, refusal.Message, refusal.Detail, refusal.LogReason})
		if err != nil {
			panic(err) // strings always marshal
		}
		// What cannot be stored is refused again, if with another reason: the
		// code is spent.
		_, _ = p.store.PutState(ctx, storage.StateRefusal, r.key, value, repeatLifetime)
	}
	p.releaseLead(ctx, r)
}

func (p *Provider) releaseLead(ctx context.Context, r *repeat) {
	_ = p.store.Release(ctx, leadClaim(r)) // it runs out by itself
}

// sharedRefusal is a refusal as other nodes repeat it.
type sharedRefusal struct {
	Form    storage.Digest `json:"form"`
	Code    Code           `json:"code"`
	Status  int            `json:"status"`
	Message Message        `json:"message"`
	Detail  string         `json:"detail,omitempty"`
	Reason  string         `json:"reason"`
}

// earlierRefusal returns the refusal that an earlier request with the same key
// met on any node, or nil.
func (p *Provider) earlierRefusal(ctx context.Context, r *repeat) error {
	state, err := p.store.State(ctx, storage.StateRefusal, r.key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var was sharedRefusal
	if err := json.Unmarshal(state.Value, &was); err != nil {
		return err
	}
	r.end(nil) // the storage remembers: a later request is judged by itself
	if was.Form != r.form {
		return fail(InvalidRequest, msgIdempotencyForm).reason("idempotency_form")
	}
	return &Error{Code: was.Code, Status: was.Status, Message: was.Message, Detail: was.Detail, LogReason: was.Reason}
}
