package keys

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// # Keys that another node has just made
//
// A revoked current key is followed at once by the next, known to other nodes or
// not. Until a node's next round it may therefore meet tokens of keys that it
// does not know. Where refusing such a token does harm, MACKeyLatest and
// VerifyLatest read the document again before they do. Anybody can name a key
// that does not exist, so these readings are few: who waits shares one.

const (
	lookGap     = 50 * time.Millisecond // between two readings
	lookTimeout = 2 * time.Second       // of one
)

// looks are the readings that requests have asked for.
type looks struct {
	turn chan struct{} // held by who reads
	last atomic.Pointer[look]
}

type look struct {
	began time.Time
	err   error
}

// MACKeyLatest is MACKeyByID for a token that was presented: a key that this
// node does not know, or takes for one that makes no tokens yet, is looked for
// in the store first. known is false where there surely is no such key.
func (r *Ring) MACKeyLatest(ctx context.Context, id uint32) (mac MACKey, known bool, err error) {
	s := r.snap.Load()
	mac, known = s.macs[id]
	switch {
	case !known && id <= s.doc.LastMAC:
		return MACKey{}, false, nil // gone: no id is given twice
	case known && s.records[macName(id)].State != StateNext:
		return mac, true, nil
	}
	if err = r.lookAgain(ctx); err != nil && known {
		return mac, true, nil // what it knows is enough
	}
	if err != nil {
		return MACKey{}, false, err
	}
	mac, known = r.MACKeyByID(id)
	return mac, known, nil
}

// VerifyLatest is Verify, but looks in the store for a key that this node does
// not know. An error that is not an ErrInvalidToken says that it could not.
func (r *Ring) VerifyLatest(ctx context.Context, token string, typs ...string) (*Verified, error) {
	verified, err := r.Verify(token, typs...)
	if !errors.Is(err, errUnknownKID) {
		return verified, err
	}
	if err := r.lookAgain(ctx); err != nil {
		return nil, err
	}
	return r.Verify(token, typs...)
}

// lookAgain returns when the document was read by a reading that began after
// the call.
func (r *Ring) lookAgain(ctx context.Context) error {
	asked := time.Now()
	select {
	case r.looks.turn <- struct{}{}:
		defer func() { <-r.looks.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if last := r.looks.last.Load(); last != nil {
		if last.began.After(asked) {
			return last.err
		}
		select {
		case <-time.After(lookGap - time.Since(last.began)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	mine := &look{began: time.Now()}
	// Others rely on it, whatever becomes of this request.
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	r.mu.Lock()
	_, _, mine.err = r.load(within)
	r.mu.Unlock()
	r.looks.last.Store(mine)
	return mine.err
}
