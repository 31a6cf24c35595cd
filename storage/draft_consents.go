package storage

import (
	"cmp"
	"fmt"
	"slices"
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
	return d.consentsOf(userID)
}

// RevokeConsent drafts that a user's consent for a client is forgotten and that
// the user's families there end. found says whether there was any of that.
func (d *Draft) RevokeConsent(userID, clientID string) (found bool, err error) {
	user, err := d.user(userID)
	if err != nil || user == nil || user.Retired {
		return false, err
	}
	list, err := d.consentsOf(userID)
	if err != nil {
		return false, err
	}
	if at := slices.IndexFunc(list, func(c Consent) bool { return c.ClientID == clientID }); at >= 0 {
		found = true
		d.keepConsents(userID, slices.Concat(list[:at], list[at+1:]))
	}
	live, _, err := d.liveFamilies(userID)
	if err != nil {
		return false, err
	}
	for _, f := range live {
		if f.ClientID == clientID {
			f.RevokedAt, f.RevokedFor = d.now, RevokedForConsent
			d.families = append(d.families, f)
			found = true
		}
	}
	return found, nil
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

// uniteConsents returns a new list with all that is in either, in order of
// client ids. Where there are too many, the oldest are dropped.
func uniteConsents(list, more []Consent) []Consent {
	out := slices.Clone(list)
	for _, c := range more {
		at := slices.IndexFunc(out, func(o Consent) bool { return o.ClientID == c.ClientID })
		if at < 0 {
			out = append(out, Consent{ClientID: c.ClientID})
			at = len(out) - 1
		}
		old := &out[at]
		old.Scope, old.Claims = union(old.Scope, c.Scope), union(old.Claims, c.Claims)
		if c.GrantedAt.After(old.GrantedAt) {
			old.GrantedAt = c.GrantedAt
		}
	}
	if len(out) > MaxConsents {
		slices.SortStableFunc(out, func(a, b Consent) int { return b.GrantedAt.Compare(a.GrantedAt) })
		out = out[:MaxConsents]
	}
	slices.SortFunc(out, func(a, b Consent) int { return cmp.Compare(a.ClientID, b.ClientID) })
	return out
}

// union returns a new sorted list with all that is in either.
func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}
