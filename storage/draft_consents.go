package storage

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// consentsOf returns what a user has agreed to as the draft has it, in order of
// client ids. The list must not be changed.
func (d *Draft) consentsOf(userID string) ([]Consent, error) {
	if list, ok := d.consents[userID]; ok {
		return list, nil
	}
	data, err := d.rows.ConsentsRow(userID)
	if err != nil || data == nil {
		return nil, err
	}
	list, err := DecodeConsents(data)
	if err != nil {
		return nil, fmt.Errorf("consents: %w", err)
	}
	return list, nil
}

func (d *Draft) keepConsents(userID string, list []Consent) {
	if d.consents == nil {
		d.consents = make(map[string][]Consent, 1)
	}
	d.consents[userID] = list
}

// Consents returns what a user has agreed to, or ErrNotFound.
func (d *Draft) Consents(userID string) ([]Consent, error) {
	if _, err := d.living(userID); err != nil {
		return nil, err
	}
	list, err := d.consentsOf(userID)
	return slices.DeleteFunc(slices.Clone(list), Consent.over), err
}

// over reports whether nothing is left of a consent but its revocation.
func (c Consent) over() bool { return c.GrantedAt.IsZero() }

// changedAt is when something was last said about the client.
func (c Consent) changedAt() time.Time {
	if c.RevokedAt.After(c.GrantedAt) {
		return c.RevokedAt
	}
	return c.GrantedAt
}

// RevokeConsent drafts that a user's consent for a client is forgotten and that
// the user's families there end, with the notices for those that began in a
// browser where notify names the client. That there is nothing of that does
// not say that no code is on its way.
func (d *Draft) RevokeConsent(userID, clientID string, notify []string) (found bool, err error) {
	user, err := d.user(userID)
	if err != nil || user == nil || user.Retired || len(clientID) > maxConsentClientID {
		return false, err
	}
	list, err := d.consentsOf(userID)
	if err != nil {
		return false, err
	}
	rest := slices.DeleteFunc(slices.Clone(list), func(c Consent) bool {
		found = found || c.ClientID == clientID && !c.over()
		return c.ClientID == clientID
	})
	d.keepConsents(userID, boundConsents(append(rest, Consent{ClientID: clientID, RevokedAt: d.now})))
	live, complete, err := d.liveFamilies(userID)
	if err != nil {
		return false, err
	}
	if !complete {
		return true, d.endSignIns(user, RevokedForConsent, notify)
	}
	for _, f := range live {
		if f.ClientID != clientID {
			continue
		}
		found = true
		f.RevokedAt, f.RevokedFor = d.now, RevokedForConsent
		d.families = append(d.families, f)
		login, err := d.login(f.LoginID)
		if err != nil {
			return false, err
		}
		if login != nil && login.Leave(f.ID) {
			login.changed = true // it is told here, and not again at logout
		}
		if !f.LoginID.IsZero() && slices.Contains(notify, clientID) {
			d.notices = append(d.notices, newNotice(clientID, userID, f.ID, d.now))
		}
	}
	return found, nil
}

// agreesTo reports whether a list of consents covers the scope of a grant.
func agreesTo(list []Consent, g *Grant) bool {
	i := slices.IndexFunc(list, func(c Consent) bool { return c.ClientID == g.ClientID && !c.over() })
	return i >= 0 && !slices.ContainsFunc(g.Scope, func(s string) bool { return !slices.Contains(list[i].Scope, s) })
}

// remember drafts that a user has agreed to what a grant says.
func (d *Draft) remember(user *draftUser, g *Grant) error {
	list, err := d.consentsOf(user.id)
	if err != nil {
		return err
	}
	fresh := Consent{ClientID: g.ClientID, Scope: g.Scope, Claims: slices.Concat(g.IDTokenClaims, g.UserInfoClaims), GrantedAt: d.now}
	d.keepConsents(user.id, uniteConsents(list, []Consent{fresh}))
	return nil
}

// moveConsents drafts that what one user has agreed to counts for another.
func (d *Draft) moveConsents(from, into *draftUser) error {
	moving, err := d.consentsOf(from.id)
	if err != nil || len(moving) == 0 {
		return err
	}
	// What was revoked voids grants of the one user, who is no more.
	moving = slices.DeleteFunc(slices.Clone(moving), Consent.over)
	for i := range moving {
		moving[i].RevokedAt = time.Time{}
	}
	list, err := d.consentsOf(into.id)
	if err != nil {
		return err
	}
	d.keepConsents(from.id, nil)
	d.keepConsents(into.id, uniteConsents(list, moving))
	return nil
}

func (d *Draft) dropConsents(user *draftUser) error {
	list, err := d.consentsOf(user.id)
	if err == nil && list != nil {
		d.keepConsents(user.id, nil)
	}
	return err
}

// maxConsentClientID is the longest id that is taken for a client's, in bytes.
const maxConsentClientID = 256

// uniteConsents returns a new list with all that is in either, within bounds.
func uniteConsents(list, more []Consent) []Consent {
	out := slices.Clone(list)
	for _, c := range more {
		at := slices.IndexFunc(out, func(o Consent) bool { return o.ClientID == c.ClientID })
		if at < 0 {
			out = append(out, Consent{ClientID: c.ClientID})
			at = len(out) - 1
		}
		newer, older := c, out[at]
		if older.GrantedAt.After(newer.GrantedAt) {
			newer, older = older, newer
		}
		b := consentNames{left: MaxConsentNames, size: MaxConsentSize}
		scope, claims := b.take(nil, newer.Scope), b.take(nil, newer.Claims)
		scope, claims = b.take(scope, older.Scope), b.take(claims, older.Claims)
		slices.Sort(scope)
		slices.Sort(claims)
		out[at].Scope, out[at].Claims, out[at].GrantedAt = scope, claims, newer.GrantedAt
	}
	return boundConsents(out)
}

// boundConsents puts a list in order of client ids. Where there are too many,
// the oldest are dropped.
func boundConsents(list []Consent) []Consent {
	if len(list) > MaxConsents {
		slices.SortStableFunc(list, func(a, b Consent) int { return b.changedAt().Compare(a.changedAt()) })
		list = list[:MaxConsents]
	}
	slices.SortFunc(list, func(a, b Consent) int { return cmp.Compare(a.ClientID, b.ClientID) })
	return list
}

// consentNames is how much one consent may still remember.
type consentNames struct{ left, size int }

// take adds to list those of names that it lacks and that there is room for.
func (n *consentNames) take(list, names []string) []string {
	for _, name := range names {
		if n.left == 0 || len(name) > n.size || slices.Contains(list, name) {
			continue
		}
		n.left, n.size = n.left-1, n.size-len(name)
		list = append(list, name)
	}
	return list
}
