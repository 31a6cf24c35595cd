package provider

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/storage"
)

const (
	// elsewhereWait is how long a request whose code another node has taken
	// waits for what became of it there: for as long as a sign-in usually
	// takes. Only maxElsewhere requests do so at once.
	elsewhereWait = 5 * time.Second
	maxElsewhere  = 256
)

// mayBeElsewhere reports whether a refusal says that another node is perhaps at
// work on the same request.
func (t *repeats) mayBeElsewhere(refusal error) bool {
	r, ok := errors.AsType[*grants.Refusal](refusal)
	return ok && r.Kind == grants.Replayed && t.elsewhere != nil
}

// outcomeElsewhere is for a request that met refusal. Where that is because the
// code was presented before, and not to this node under this key, another node
// may be at work on the same request: then its outcome is this one's, too.
func (p *Provider) outcomeElsewhere(ctx context.Context, sess *session, refusal error) (*storage.Family, error) {
	if sess.proof.repeat == nil || !p.repeats.mayBeElsewhere(refusal) {
		return nil, refusal
	}
	select {
	case p.repeats.elsewhere <- struct{}{}:
		defer func() { <-p.repeats.elsewhere }()
	default:
		return nil, refusal
	}
	deadline := time.Now().Add(elsewhereWait)
	for pause := 50 * time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, 400*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if family, err := p.earlierOutcome(ctx, sess); family != nil || err != nil {
			return family, err
		}
		if err := p.earlierRefusal(ctx, sess.proof.repeat); err != nil {
			return nil, err
		}
	}
	return nil, refusal
}

// endRepeat ends a repeat, here and on other nodes. Only the first call counts.
func (p *Provider) endRepeat(ctx context.Context, r *repeat, err error) {
	if r != nil && r.under() {
		p.tellNodes(ctx, r, err)
	}
	r.end(err)
}

// under reports whether the request is still under way.
func (r *repeat) under() bool {
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	return r.ended.IsZero()
}

// tellNodes leaves a refusal for repetitions at other nodes, which find the
// code spent. What any node finds again by itself need not be left.
func (p *Provider) tellNodes(ctx context.Context, r *repeat, err error) {
	refusal := r.table.lasting(err)
	if r.table.elsewhere == nil || refusal == nil || refusal.Code == InvalidRequest {
		return
	}
	value, err := json.Marshal(sharedRefusal{r.form, refusal.Code, refusal.Status, refusal.Message, refusal.Detail, refusal.LogReason})
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	// Where it cannot be left, a repetition is refused as well, for another reason.
	_, _ = p.store.PutState(ctx, storage.StateRefusal, r.key, value, repeatLifetime)
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
// met at another node, or nil.
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
	r.end(nil) // the storage remembers
	if was.Form != r.form {
		return fail(InvalidRequest, msgIdempotencyForm).reason("idempotency_form")
	}
	return &Error{Code: was.Code, Status: was.Status, Message: was.Message, Detail: was.Detail, LogReason: was.Reason}
}
