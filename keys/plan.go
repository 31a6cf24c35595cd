package keys

import (
	"time"
)

// # The life of a key
//
// A key is made as next and published; becomes current and signs; becomes
// previous and only verifies; and is dropped. Its successor is made in the same
// change that makes it current.
//
// No validator meets an unknown kid. Let a key be served from S on (ServedAt,
// recorded by a node that had been serving it; other nodes follow within lag).
// It signs from T on, T ≥ S + PublishAhead and T ≥ S + lag + MaxAge. A JWK Set
// that a validator may still use at T was fetched after T − MaxAge, hence after
// S + lag, when every node served the key. That speaks of what was served and
// not of what was running: if all nodes are down for any part of the time
// between S and T, or across T, fewer sets without the key have been handed
// out, never more. So downtime neither delays a rotation nor spoils it, and a
// key that was made but never served before a crash starts waiting when it is.
// MaxAge is what was really sent and not only what is configured, so lowering
// PublishAhead does not let a key overtake the caches of before.
//
// Exceptions: the very first keys sign at once, since nobody can hold a set
// without them; and a revoked current key is replaced at once.
//
// No token outlives its key. A previous key stays for the longest lifetime in
// force while it signed, after its retirement plus lag, in which other nodes may
// still have signed with it, plus leeway for clocks.
//
// MAC keys go the same way, but only the nodes need to know them: they wait for
// lag instead of PublishAhead.

const (
	// leeway is what the clocks of nodes and validators may differ by.
	leeway = 60 * time.Second
	// maxRetired bounds how many retired keys a ring can pile up.
	maxRetired = 256
)

// plan decides what is to change in the document. It does no input or output.
type plan struct {
	now      time.Time
	settings Settings
	lag      time.Duration        // within which every node has taken over a change
	served   func(id string) bool // this node has been serving the key
}

func (p plan) apply(d *document, fresh *pool) error {
	p.followMaxAge(d)
	for _, alg := range algorithms {
		if err := p.turn(d, alg, fresh); err != nil {
			return err
		}
	}
	for _, rec := range d.sorted() {
		if rec.State == StatePrevious && !p.now.Before(p.removal(rec)) {
			d.remove(rec)
		}
	}
	return nil
}

// followMaxAge raises d.MaxAge at once and lowers it when the sets sent with
// the old one have run out.
func (p plan) followMaxAge(d *document) {
	want := seconds(p.settings.maxAge())
	switch {
	case want > d.MaxAge:
		d.MaxAge, d.MaxAgeUntil = want, time.Time{}
	case want == d.MaxAge:
	case d.MaxAgeUntil.IsZero():
		d.MaxAgeUntil = p.now.Add(time.Duration(d.MaxAge)*time.Second + p.lag)
	case !p.now.Before(d.MaxAgeUntil):
		d.MaxAge, d.MaxAgeUntil = want, time.Time{}
	}
}

// turn moves one ring on.
func (p plan) turn(d *document, alg string, fresh *pool) error {
	p.note(d, alg)
	current, next := d.only(alg, StateCurrent), d.only(alg, StateNext)
	if !p.enabled(alg) {
		p.windDown(d, current, next)
		return nil
	}
	switch {
	case current == nil && d.first:
		rec, err := fresh.take(d, alg, p.now)
		if err != nil {
			return err
		}
		rec.ServedAt = p.now
		p.promote(rec)
	case next != nil && p.ready(d, next) && (current == nil || p.due(current)):
		p.retire(current)
		p.promote(next)
	}
	if d.only(alg, StateNext) == nil {
		_, err := fresh.take(d, alg, p.now)
		return err
	}
	return nil
}

// note records what this node knows of the keys of alg.
func (p plan) note(d *document, alg string) {
	for _, rec := range d.Keys {
		if rec.Alg != alg {
			continue
		}
		if rec.ServedAt.IsZero() && p.served(rec.ID) {
			rec.ServedAt = p.now
		}
		// A key retired a moment ago counts too: this node signed with it
		// until now.
		if rec.State == StateCurrent || (rec.State == StatePrevious && p.now.Before(rec.RetiredAt.Add(p.lag))) {
			rec.Lifetime = max(rec.Lifetime, seconds(p.lifetime(alg)))
		}
	}
}

// windDown lets the ring of a disabled algorithm end when its current key is
// due. It does not end it at once, because while a change of configuration
// spreads, other nodes may still want it.
func (p plan) windDown(d *document, current, next *record) {
	switch {
	case current != nil && p.due(current):
		p.retire(current)
		d.remove(next)
	case current == nil && next != nil && !p.now.Before(next.CreatedAt.Add(p.rotateEvery(next.Alg))):
		d.remove(next)
	}
}

func (p plan) promote(rec *record) {
	rec.State, rec.SigningAt = StateCurrent, p.now
	rec.Lifetime = seconds(p.lifetime(rec.Alg))
}

func (p plan) retire(rec *record) {
	if rec != nil {
		rec.State, rec.RetiredAt, rec.Requested = StatePrevious, p.now, false
	}
}

func (p plan) enabled(alg string) bool { return alg != EdDSA || p.settings.EdDSA }

// lifetime is how long what a key of alg makes now can be presented.
func (p plan) lifetime(alg string) time.Duration {
	if alg == MAC {
		return p.settings.RefreshLifetime
	}
	return p.settings.TokenLifetime
}

func (p plan) rotateEvery(alg string) time.Duration {
	return max(p.settings.RotateEvery, p.lifetime(alg)/maxRetired)
}

// due is about a current key.
func (p plan) due(rec *record) bool {
	return rec.Requested || !p.now.Before(rec.SigningAt.Add(p.rotateEvery(rec.Alg)))
}

// ready is about a next key.
func (p plan) ready(d *document, rec *record) bool {
	return !rec.ServedAt.IsZero() && !p.now.Before(p.earliest(d, rec))
}

// earliest is when a next key may begin to sign; for one not known to be served
// yet, an estimate.
func (p plan) earliest(d *document, rec *record) time.Time {
	served := rec.ServedAt
	if served.IsZero() {
		served = p.now.Add(p.lag / 2)
	}
	if rec.Alg == MAC {
		return served.Add(p.lag)
	}
	return served.Add(max(p.settings.PublishAhead, time.Duration(d.MaxAge)*time.Second+p.lag))
}

// rotation is when the current key will be followed by the next, as things stand.
func (p plan) rotation(d *document, current *record) time.Time {
	at := current.SigningAt.Add(p.rotateEvery(current.Alg))
	if current.Requested || at.Before(p.now) {
		at = p.now
	}
	if next := d.only(current.Alg, StateNext); next != nil {
		if earliest := p.earliest(d, next); earliest.After(at) {
			at = earliest
		}
	}
	return at
}

// removal is when a previous key is dropped.
func (p plan) removal(rec *record) time.Time {
	return rec.RetiredAt.Add(time.Duration(rec.Lifetime)*time.Second + p.lag + leeway)
}
