package provider

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"github.com/wxidp/wxidp/storage"
)

// namedClaim is a claim that the claims parameter can ask for by its name (OIDC
// Core §5.5), beyond the scopes of the request.
type namedClaim struct {
	// scope releases the claim, too. Only a client that may have the scope may
	// ask for the claim; "": every client may.
	scope string
	// value is the claim as JSON, "" where the user or the sign-in has none.
	value func(user *storage.User, family *storage.Family) string
}

// namedClaims are all that can be asked for by name. WeChat's identifiers are
// not among them: their scope alone releases them.
var namedClaims = map[string]namedClaim{
	"name":     {scopeProfile, func(user *storage.User, _ *storage.Family) string { return quoted(user.Profile.Nickname) }},
	"nickname": {scopeProfile, func(user *storage.User, _ *storage.Family) string { return quoted(user.Profile.Nickname) }},
	"picture":  {scopeProfile, func(user *storage.User, _ *storage.Family) string { return quoted(user.Profile.Picture) }},
	"updated_at": {scopeProfile, func(user *storage.User, _ *storage.Family) string {
		return strconv.FormatInt(user.UpdatedAt.Unix(), 10)
	}},

	"phone_number": {scopePhone, func(user *storage.User, _ *storage.Family) string { return quoted(user.Phone) }},
	"phone_number_verified": {scopePhone, func(user *storage.User, _ *storage.Family) string {
		if user.Phone == "" {
			return ""
		}
		return "true"
	}},

	scopeRoles:      {scopeRoles, func(user *storage.User, _ *storage.Family) string { return list(user.Attributes.Roles) }},
	scopeExternalID: {scopeExternalID, func(user *storage.User, _ *storage.Family) string { return quoted(user.ExternalID) }},

	"auth_time": {"", func(_ *storage.User, family *storage.Family) string {
		return strconv.FormatInt(family.AuthTime.Unix(), 10)
	}},
	"acr": {"", func(_ *storage.User, family *storage.Family) string { return quoted(family.ACR) }},
	"amr": {"", func(_ *storage.User, family *storage.Family) string { return list(family.AMR) }},
}

// claimNames returns the names that the claims parameter may ask for, sorted.
func claimNames() []string {
	names := make([]string, 0, len(namedClaims))
	for name := range namedClaims {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// mayAsk reports whether the client may ask for a claim by its name.
func (c *Client) mayAsk(name string) bool {
	claim, ok := namedClaims[name]
	return ok && (claim.scope == "" || slices.Contains(c.Scopes, claim.scope))
}

// idTokenNames are those of names that are not in every ID Token anyway.
func idTokenNames(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return namedClaims[name].scope == "" })
}

// addNamed adds to claims those of names that the client may still ask for and
// the user has. It reads the store only for claims of the user.
func (p *Provider) addNamed(ctx context.Context, snap *snapshot, client *Client, claims map[string]json.RawMessage, names []string, family *storage.Family) (map[string]json.RawMessage, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		scope := namedClaims[name].scope
		return !client.mayAsk(name) || scope == scopeRoles && !snap.mayRelease(scope)
	})
	if len(names) == 0 {
		return claims, nil
	}
	user := new(storage.User)
	if slices.ContainsFunc(names, func(name string) bool { return namedClaims[name].scope != "" }) {
		found, err := p.store.User(ctx, family.UserID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && found.Retired {
			return claims, nil // ended this moment: the token will be inactive
		}
		if err != nil {
			return nil, err
		}
		user = &found
	}
	all := make(map[string]json.RawMessage, len(claims)+len(names))
	for name, value := range claims {
		all[name] = value
	}
	for _, name := range names {
		if value := namedClaims[name].value(user, family); value != "" {
			all[name] = json.RawMessage(value)
		}
	}
	return all, nil
}

// quoted is s as JSON, "" for none.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return string(appendString(nil, s))
}

// list is values as JSON, "" for none.
func list(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return string(appendStrings(nil, values))
}
