package provider

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/storage"
)

const (
	// repeatLifetime is how long a request may be repeated with its
	// Idempotency-Key.
	repeatLifetime = time.Minute
	// maxRepeats bounds the table of requests under way and refused ones.
	maxRepeats = 1 << 14
)

// repeats lets a repeated request wait for the first and share its refusal.
// Successes are found in the storage, where the sign-in's commit put them, and
// so are refusals that another node gave.
type repeats struct {
	mu     sync.Mutex
	byKey  map[storage.Digest]*repeat
	oldest []*repeat // in the order of their end

	elsewhere chan struct{} // a place for each request that waits for another node; nil: there is none
}

// repeat is one request with an Idempotency-Key.
type repeat struct {
	table *repeats
	key   storage.Digest // client and Idempotency-Key
	form  storage.Digest // all parameters but the client's credentials

	done    chan struct{} // closed at the end
	refusal *Error        // after the end; nil: success, or not to be remembered
	ended   time.Time
}

// newRepeats returns an empty table; nodes says whether there may be other ones.
func newRepeats(nodes bool) *repeats {
	t := &repeats{byKey: make(map[storage.Digest]*repeat)}
	if nodes {
		t.elsewhere = make(chan struct{}, maxElsewhere)
	}
	return t
}

// begin registers the request, waiting while another with the same key is
// under way. It returns nil for a request without an Idempotency-Key, and the
// refusal that the first request met, if it met one.
func (t *repeats) begin(ctx context.Context, sess *session) (*repeat, error) {
	values := sess.req.HTTP.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 || !ascii.Visible(values[0], 255) {
		return nil, fail(InvalidRequest, msgIdempotencyKey).reason("idempotency_key")
	}
	mine := &repeat{
		table: t,
		key:   digest("idempotency key", sess.client.ID, values[0]),
		form:  formDigest(sess.req.HTTP.PostForm),
		done:  make(chan struct{}),
	}
	for {
		first, err := t.enter(mine)
		if err != nil {
			return nil, err
		}
		if first == mine {
			return mine, nil
		}
		if first.form != mine.form {
			return nil, fail(InvalidRequest, msgIdempotencyForm).reason("idempotency_form")
		}
		select {
		case <-first.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if first.refusal != nil {
			shared := *first.refusal
			return nil, &shared
		}
	}
}

// enter returns the request that holds mine's key; mine itself if it is the
// first.
func (t *repeats) enter(mine *repeat) (*repeat, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(time.Now())
	if first := t.byKey[mine.key]; first != nil {
		return first, nil
	}
	if len(t.byKey) >= maxRepeats {
		if len(t.oldest) == 0 {
			return nil, Limited("idempotency", time.Second)
		}
		t.drop(t.oldest[0])
		t.oldest = t.oldest[1:]
	}
	t.byKey[mine.key] = mine
	return mine, nil
}

// end lets those who wait go on. Refusals that a repetition would meet again
// are remembered; anything temporary is not. Only the first call counts.
func (r *repeat) end(err error) {
	if r == nil {
		return
	}
	t := r.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if !r.ended.IsZero() {
		return
	}
	r.ended = time.Now()
	r.refusal = t.lasting(err)
	close(r.done)
	if r.refusal == nil {
		t.drop(r)
		return
	}
	t.oldest = append(t.oldest, r)
}

// lasting returns the refusal that a repetition would meet again; nil for
// success and for anything temporary.
func (t *repeats) lasting(err error) *Error {
	if err == nil || t.mayBeElsewhere(err) {
		return nil
	}
	if refusal := AsError(err); refusal.Code != TemporarilyUnavailable && refusal.Code != ServerError {
		return refusal
	}
	return nil
}

func (t *repeats) forget(now time.Time) {
	n := 0
	for n < len(t.oldest) && now.Sub(t.oldest[n].ended) > repeatLifetime {
		t.drop(t.oldest[n])
		n++
	}
	t.oldest = t.oldest[n:]
}

func (t *repeats) drop(r *repeat) {
	if t.byKey[r.key] == r {
		delete(t.byKey, r.key)
	}
}

// earlierOutcome returns the family of an earlier request with the same key,
// or nil where there is none. The refresh token of that family is the first
// one's answer only while nobody has used it, and only for who holds the same
// key.
func (p *Provider) earlierOutcome(ctx context.Context, sess *session) (_ *storage.Family, err error) {
	r := sess.proof.repeat
	defer func() {
		if err != nil {
			r.end(nil) // the storage remembers: a later request is judged by itself
		}
	}()
	record, ok, err := p.store.Idempotency(ctx, r.key)
	if err != nil || !ok {
		return nil, err
	}
	if record.Form != r.form {
		return nil, fail(InvalidRequest, msgIdempotencyForm).reason("idempotency_form")
	}
	access, err := p.store.CheckAccess(ctx, storage.AccessCheck{FamilyID: record.FamilyID})
	if err != nil {
		return nil, err
	}
	lives, err := p.macKeyLives(ctx, access.Family)
	if err != nil {
		return nil, err
	}
	if access.Verdict != storage.AccessActive || access.Family.Generation != 0 || !lives {
		return nil, fail(InvalidGrant, msgIdempotencyMoved).reason("idempotency_moved_on")
	}
	if access.Family.DPoPThumbprint != sess.jkt {
		return nil, fail(InvalidGrant, msgDPoPOtherKey).reason("dpop_other_key")
	}
	return &access.Family, nil
}

// formDigest covers every parameter except the client's credentials, of which
// an assertion is different each time.
func formDigest(form url.Values) storage.Digest {
	var parts []string
	for name, values := range form {
		switch name {
		case "client_secret", "client_assertion", "client_assertion_type":
		default:
			for _, value := range values {
				parts = append(parts, name+"="+url.QueryEscape(value))
			}
		}
	}
	slices.Sort(parts)
	return digest("form", parts...)
}

// digest hashes a purpose and values so that no two lists read the same.
func digest(purpose string, values ...string) storage.Digest {
	h := sha256.New()
	var size [4]byte
	for _, part := range append([]string{purpose}, values...) {
		binary.BigEndian.PutUint32(size[:], uint32(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	var out storage.Digest
	h.Sum(out[:0])
	return out
}
