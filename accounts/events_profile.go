package accounts

import (
	"strings"

	"github.com/wxidp/wxidp/storage"
)

// stale says which values of a profile are not to be shown any longer.
type stale struct{ nickname, picture bool }

// instead is the change that puts defaults in the place of stale values. What
// is a default already stays, so that an event told twice changes nothing the
// second time.
func (d *Defaults) instead(shown storage.Profile, old stale) storage.ProfileChange {
	var change storage.ProfileChange
	fresh := d.NewProfile()
	if old.nickname && !madeFrom(d.template.Load().Nickname, shown.Nickname) {
		change.Nickname = &fresh.Nickname
	}
	if old.picture && shown.Picture != fresh.Picture {
		change.Picture = &fresh.Picture
	}
	return change
}

// madeFrom reports whether a nickname is one that the template makes.
func madeFrom(template, nickname string) bool {
	before, after, random := strings.Cut(template, "{n}")
	if !random {
		return nickname == template
	}
	if strings.Contains(after, "{n}") {
		return false // several places for the same digits: seldom enough to make it anew
	}
	middle, ok := strings.CutPrefix(nickname, before)
	if !ok {
		return false
	}
	middle, ok = strings.CutSuffix(middle, after)
	return ok && len(middle) == 4 && strings.Trim(middle, "0123456789") == ""
}
