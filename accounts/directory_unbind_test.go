package accounts

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// bindings is a DirectoryStore that has one user's WeChat identities.
type bindings struct {
	DirectoryStore // nil: a call of anything else panics
	bound          []storage.Identity
	before         func(call int) // of each Unbind, what another request does
	asked          []storage.Unbinding
	password       bool
}

func (b *bindings) Identities(context.Context, string) ([]storage.Identity, error) {
	bound := slices.Clone(b.bound)
	for i := range bound {
		bound[i].Index = index(bound[i].AppID)
	}
	return bound, nil
}

func index(appID string) (d storage.Digest) {
	copy(d[:], appID)
	return d
}

func (b *bindings) Unbind(_ context.Context, in storage.Unbinding) (storage.UnbindVerdict, error) {
	b.asked = append(b.asked, in)
	if b.before != nil {
		b.before(len(b.asked))
	}
	rest := slices.DeleteFunc(slices.Clone(b.bound), func(i storage.Identity) bool { return slices.Contains(in.Identities, index(i.AppID)) })
	switch {
	case len(b.bound)-len(rest) != len(in.Identities):
		return storage.UnbindMissing, nil
	case len(rest) == 0 && !b.password:
		return storage.UnbindLastWayIn, nil
	}
	b.bound = rest
	return storage.UnbindOK, nil
}

func (b *bindings) drop(appID string) {
	b.bound = slices.DeleteFunc(b.bound, func(i storage.Identity) bool { return i.AppID == appID })
}

func unbindDirectory(store *bindings) *Directory {
	d := newDirectory(nil)
	d.Store = store
	return d
}

func identitiesIn(appIDs ...string) (out []storage.Identity) {
	for _, appID := range appIDs {
		out = append(out, storage.Identity{AppID: appID, WeChatOpenID: "o-" + appID})
	}
	return out
}

func TestUnbindChooses(t *testing.T) {
	for name, test := range map[string]struct {
		bound []storage.Identity
		appID string
		all   bool
		want  string // appids gone, or a part of the error
	}{
		"the only one":      {identitiesIn("wx1"), "", false, "wx1"},
		"one of two":        {identitiesIn("wx1", "wx2"), "wx2", false, "wx2"},
		"all":               {identitiesIn("wx1", "wx2"), "", true, "wx1 wx2"},
		"several":           {identitiesIn("wx1", "wx2"), "", false, "several WeChat accounts, in wx1, wx2"},
		"not there":         {identitiesIn("wx1"), "wx3", false, "those of the user are in wx1"},
		"none":              {nil, "", false, "no WeChat account"},
		"none of all":       {nil, "", true, "no WeChat account"},
		"none of that name": {nil, "wx1", false, "no WeChat account"},
	} {
		store := &bindings{bound: test.bound, password: true}
		out, err := unbindDirectory(store).Unbind(t.Context(), storage.User{ID: "u1"}, test.appID, test.all)
		if err == nil {
			if got := strings.Join(out.AppIDs, " "); got != test.want || out.Left != len(test.bound)-len(out.AppIDs) {
				t.Errorf("%s: %+v, want %s gone", name, out, test.want)
			}
			continue
		}
		if _, ok := errors.AsType[*ChooseError](err); !ok || !strings.Contains(err.Error(), test.want) || len(store.asked) != 0 || strings.Contains(err.Error(), "wx3") {
			t.Errorf("%s: %v, asked %v", name, err, store.asked)
		}
	}
	store := &bindings{bound: identitiesIn("wx1")}
	if out, err := unbindDirectory(store).Unbind(t.Context(), storage.User{ID: "u1"}, "", true); !errors.Is(err, ErrLastWayIn) || out.AppIDs != nil {
		t.Errorf("the last way in: %+v, %v", out, err)
	}
	if want := (storage.WaysIn{Password: true, ExternalID: true, Phone: true}); store.asked[0].WaysIn != want || store.asked[0].UserID != "u1" {
		t.Errorf("asked %+v", store.asked[0])
	}
}

// TestThreat72UnbindRaces: a WeChat account that a silent sign-in adds while all
// are removed does not stay, and one that goes meanwhile does no harm.
func TestThreat72UnbindRaces(t *testing.T) {
	user := storage.User{ID: "u1"}
	added := &bindings{bound: identitiesIn("wx1"), password: true}
	added.before = func(call int) {
		if call == 1 {
			added.bound = append(added.bound, identitiesIn("wx2")...)
		}
	}
	if out, err := unbindDirectory(added).Unbind(t.Context(), user, "", true); err != nil || strings.Join(out.AppIDs, " ") != "wx1 wx2" || out.Left != 0 || len(added.bound) != 0 {
		t.Errorf("added meanwhile: %+v, %v, %v left", out, err, added.bound)
	}
	gone := &bindings{bound: identitiesIn("wx1", "wx2"), password: true}
	gone.before = func(int) { gone.drop("wx2") }
	if out, err := unbindDirectory(gone).Unbind(t.Context(), user, "", true); err != nil || strings.Join(out.AppIDs, " ") != "wx1" {
		t.Errorf("removed meanwhile: %+v, %v", out, err)
	}
	gone.bound = identitiesIn("wx1", "wx2")
	if out, err := unbindDirectory(gone).Unbind(t.Context(), user, "wx2", false); err == nil || !strings.Contains(err.Error(), "those of the user are in wx1") {
		t.Errorf("the named one removed meanwhile: %+v, %v", out, err)
	}
	restless := &bindings{bound: identitiesIn("wx1"), password: true}
	restless.before = func(call int) {
		restless.bound = append(restless.bound, identitiesIn("wx"+strings.Repeat("x", call))...)
	}
	out, err := unbindDirectory(restless).Unbind(t.Context(), user, "", true)
	if !errors.Is(err, ErrChanging) || len(out.AppIDs) != 4 {
		t.Errorf("never at rest: %+v, %v", out, err)
	}
}

func TestUnbindLeadsBack(t *testing.T) {
	identity := func(appID, platform, unionID string) storage.Identity {
		return storage.Identity{AppID: appID, OpenPlatform: platform, UnionID: unionID}
	}
	for name, test := range map[string]struct {
		gone, left storage.Identity
		want       bool
	}{
		"one unionid":            {identity("wx1", "main", "u"), identity("wx3", "main", "u"), true},
		"two unionids":           {identity("wx1", "main", "u"), identity("wx3", "main", "v"), false},
		"two platforms":          {identity("wx1", "main", "u"), identity("wx3", "other", "u"), false},
		"not known yet":          {identity("wx1", "", ""), identity("wx3", "main", "u"), true},
		"no platform":            {identity("wx2", "", ""), identity("wx3", "main", "u"), false},
		"an app that is no more": {identity("wx9", "", ""), identity("wx3", "main", "u"), false},
		"none on the other":      {identity("wx1", "main", "u"), identity("wx3", "", ""), false},
		"none at all":            {identity("wx2", "", ""), identity("wx3", "", ""), false},
	} {
		store := &bindings{bound: []storage.Identity{test.gone, test.left}}
		out, err := unbindDirectory(store).Unbind(t.Context(), storage.User{ID: "u1"}, test.gone.AppID, false)
		if err != nil || out.Left != 1 || (len(out.LeadBack) == 1) != test.want {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}
