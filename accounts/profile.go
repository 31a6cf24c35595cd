package accounts

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"

	"github.com/wxidp/wxidp/storage"
)

// Defaults makes the profile of new users. WeChat tells a server neither
// nickname nor picture, so both start as the operator's defaults and are the
// user's own input from then on. It is safe for concurrent use.
type Defaults struct {
	template atomic.Pointer[storage.Profile]
}

// NewDefaults returns Defaults with the given template.
func NewDefaults(template storage.Profile) *Defaults {
	d := new(Defaults)
	d.SetTemplate(template)
	return d
}

// SetTemplate replaces the template. In the nickname, {n} stands for four
// random digits.
func (d *Defaults) SetTemplate(template storage.Profile) { d.template.Store(&template) }

// NewProfile returns the profile of one new user.
func (d *Defaults) NewProfile() storage.Profile {
	profile := *d.template.Load()
	if strings.Contains(profile.Nickname, "{n}") {
		n, err := rand.Int(rand.Reader, big.NewInt(10_000))
		if err != nil {
			panic(err) // crypto/rand does not fail on supported systems
		}
		profile.Nickname = strings.ReplaceAll(profile.Nickname, "{n}", fmt.Sprintf("%04d", n))
	}
	return profile
}
