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

	"preferred_username": {scopeProfile, func(user *storage.User, family *storage.Family) string {
		if user.Username != "" {
			return quoted(user.Username)
		}
		return attribute("preferred_username")(user, family)
	}},

	// What the product's own account system may say beyond (OIDC Core §5.1).
	"given_name":  {scopeProfile, attribute("given_name")},
	"family_name": {scopeProfile, attribute("family_name")},
	"middle_name": {scopeProfile, attribute("middle_name")},
	"profile":     {scopeProfile, attribute("profile")},
	"website":     {scopeProfile, attribute("website")},
	"gender":      {scopeProfile, attribute("gender")},
	"birthdate":   {scopeProfile, attribute("birthdate")},
	"zoneinfo":    {scopeProfile, attribute("zoneinfo")},
	"locale":      {scopeProfile, attribute("locale")},

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
// the user has. It reads the store only for claims of a user who is nil.
func (p *Provider) addNamed(ctx context.Context, snap *snapshot, client *Client, claims map[string]json.RawMessage, names []string, family *storage.Family, user *storage.User) (map[string]json.RawMessage, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		scope := namedClaims[name].scope
		return !client.mayAsk(name) || scope == scopeRoles && !snap.mayRelease(scope) ||
			fromProduct(name) && !snap.ExternalAccounts
	})
	if len(names) == 0 {
		return claims, nil
	}
	if user == nil && slices.ContainsFunc(names, func(name string) bool { return namedClaims[name].scope != "" }) {
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

// profileNames are the claims of the scope profile that userInfo has no place
// for, sorted.
var profileNames = []string{
	"birthdate", "family_name", "gender", "given_name", "locale", "middle_name", "preferred_username", "profile", "website", "zoneinfo",
}

// fromProduct reports whether only the product's own account system can say a
// claim of the scope profile, and so take it back.
func fromProduct(name string) bool {
	return name != "preferred_username" && slices.Contains(profileNames, name)
}

// attribute is a claim of the product's own account system that must be a
// string and not an empty one.
func attribute(name string) func(*storage.User, *storage.Family) string {
	return func(user *storage.User, _ *storage.Family) string {
		var text string
		if value := user.Attributes.Claims[name]; json.Unmarshal([]byte(value), &text) != nil || text == "" {
			return ""
		}
		return quoted(text)
	}
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
