package provider

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// interactionLifetime is how long a person may take to sign in and agree.
const interactionLifetime = 15 * time.Minute

// The purposes of an interaction.
const (
	purposeAuthorize = "authorize" // an authorization request of a client
	purposeDevice    = "device"    // a device's user code that was entered here
	purposeAccount   = "account"   // the account page
)

// interaction is something that waits for a person: what the pages under
// /signin/ are about. It belongs to the browser in which it began (RFC 9700
// §4.7): whoever opens its address in another one gets nothing of it.
type interaction struct {
	Purpose   string         `json:"purpose"`
	Params    url.Values     `json:"params,omitempty"`    // of the authorization request
	UserCode  string         `json:"user_code,omitempty"` // of the device
	Browser   storage.Digest `json:"browser"`
	LoginHint string         `json:"login_hint,omitempty"`
	Locales   string         `json:"locales,omitempty"` // ui_locales

	// LoginToken is that of the login session which an authentication within
	// this interaction has begun, and so what satisfies prompt=login and
	// max_age.
	LoginToken storage.Digest `json:"login_token,omitzero"`
	Chosen     storage.Digest `json:"chosen,omitzero"` // the LoginToken that the person has chosen to go on with
	Switch     bool           `json:"switch,omitempty"`
	Scan       string         `json:"scan,omitempty"` // the ticket of the code that is shown
	Finished   bool           `json:"finished,omitempty"`
}

// openInteraction is an interaction as it was read.
type openInteraction struct {
	interaction
	id      string
	version uint64
}

func tokenDigest(token string) storage.Digest { return sha256.Sum256([]byte(token)) }

// mayBegin limits what one address has kept for it until somebody comes back.
func (p *Provider) mayBegin(req Request) error {
	if ok, wait := p.begun.Allow(req.subscriber()); !ok {
		return Limited("authorizations_per_ip", wait)
	}
	return nil
}

// mayGrant limits the codes for one user: each becomes a sign-in that is kept
// for as long as it may be refreshed.
func (p *Provider) mayGrant(userID string) error {
	if ok, wait := p.granted.Allow(userID); !ok {
		return Limited("sign_in_user", wait)
	}
	return nil
}

// beginInteraction stores a new interaction of the request's browser.
func (p *Provider) beginInteraction(ctx context.Context, req Request, ix interaction) (string, error) {
	if !storage.IsToken(req.Browser) {
		return "", fail(InvalidRequest, msgInteraction).reason("no_browser_cookie")
	}
	if err := p.mayBegin(req); err != nil {
		return "", err
	}
	ix.Browser = tokenDigest(req.Browser)
	value, err := json.Marshal(ix)
	if err != nil {
		return "", err
	}
	id := storage.NewToken()
	stored, err := p.store.PutState(ctx, storage.StateInteraction, tokenDigest(id), value, interactionLifetime)
	if err == nil && !stored {
		err = errors.New("the id of an interaction was taken")
	}
	return id, err
}

// interaction reads an interaction of the request's browser.
func (p *Provider) interaction(ctx context.Context, req Request, id string) (*openInteraction, error) {
	missing := fail(InvalidRequest, msgInteraction).reason("interaction_missing")
	if !storage.IsToken(id) || !storage.IsToken(req.Browser) {
		return nil, missing
	}
	state, err := p.store.State(ctx, storage.StateInteraction, tokenDigest(id))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	ix := &openInteraction{id: id, version: state.Version}
	if err := json.Unmarshal(state.Value, &ix.interaction); err != nil {
		return nil, err
	}
	switch {
	case ix.Browser != tokenDigest(req.Browser):
		return nil, fail(InvalidRequest, msgInteraction).reason("interaction_of_another_browser")
	case ix.Finished:
		return nil, fail(InvalidRequest, msgInteraction).reason("interaction_finished")
	}
	return ix, nil
}

// save stores what became of an interaction. Where somebody else has changed
// it meanwhile, which only the same browser can have done, change is made to
// what is there now.
func (p *Provider) save(ctx context.Context, req Request, ix *openInteraction, change func(*interaction)) error {
	for range 5 {
		change(&ix.interaction)
		value, err := json.Marshal(ix.interaction)
		if err != nil {
			return err
		}
		swapped, err := p.store.SwapState(ctx, storage.StateInteraction, tokenDigest(ix.id), ix.version, value)
		if err != nil {
			return err
		}
		if swapped {
			ix.version++
			return nil
		}
		current, err := p.interaction(ctx, req, ix.id)
		if err != nil {
			return err
		}
		*ix = *current
	}
	return fail(TemporarilyUnavailable, msgBusy).reason("interaction_contended").retry(time.Second)
}

// absent is the answer about an interaction that is not the browser's to those
// who ask for a part of it: as about one that does not exist (RFC 9110 §15.5.5).
func absent(err error) error {
	if refusal := AsError(err); refusal.Status == http.StatusBadRequest {
		refusal.Status = http.StatusNotFound
		return refusal
	}
	return err
}

// finishInteraction makes sure that an interaction leads to one answer: who
// opens or sends its pages again, even at the same moment, gets no other.
// Nothing is to be done where the answer came without one.
func (p *Provider) finishInteraction(ctx context.Context, req Request, ix *openInteraction) error {
	if ix.id == "" {
		return nil
	}
	return p.save(ctx, req, ix, func(i *interaction) { i.Finished = true })
}

// Next is where a browser goes from here: exactly one of the first four.
type Next struct {
	Response    *AuthorizationResponse // back to the client
	Interaction string                 // to the page of this interaction
	Path        string                 // to another page of ours, below the issuer
	Device      string                 // name of the device's client, which has its answer
	Approved    bool                   // the answer of Device

	// Login is a new value for the login session's cookie, "" where it stays.
	Login         string
	LoginLifetime time.Duration
}

// Step is what a page of an interaction asks a person for.
type Step string

// The steps of an interaction, in order.
const (
	StepSignIn  Step = "sign_in"
	StepSelect  Step = "select_account"
	StepConsent Step = "consent"
	stepFinish  Step = "finish"
)

// InteractionView is what a page of an interaction shows.
type InteractionView struct {
	ID        string
	Step      Step
	ClientID  string // "": wxidp's own account page
	Client    string // name
	Device    bool   // it is about a device elsewhere
	Agent     string // that device, such as "TV"
	Place     string // where it is, coarsely
	UserCode  string // that it shows
	Since     time.Time
	Account   string // name of who is signed in
	LoginHint string
	Locales   string // ui_locales of the request
	Scope     []string
	Claims    []string // asked for beyond the scopes
	Offline   bool
	Terms     string // digest of what the consent page asks for; comes back with its form
	CanScan   bool
	Scan      *ScanView // a code is shown
}
