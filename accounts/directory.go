package accounts

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// DirectoryStore is what a Directory needs of a storage.Store.
type DirectoryStore interface {
	User(ctx context.Context, id string) (storage.User, error)
	UserBy(ctx context.Context, kind storage.IndexKind, value string) (storage.User, error)
	IdentityUser(ctx context.Context, appID, weChatOpenID string) (storage.User, storage.Digest, error)
	Identities(ctx context.Context, userID string) ([]storage.Identity, error)
	PageUsers(ctx context.Context, after string, limit int) (users []storage.User, next string, err error)
	PageFamilies(ctx context.Context, userID, after string, limit int) (families []storage.Family, next string, err error)
	AccountByUsername(ctx context.Context, username string) (storage.Account, error)
	CreateAccount(ctx context.Context, in storage.NewAccount) (storage.AccountResult, error)
	SetPassword(ctx context.Context, userID, oldHash, newHash string, endFamilies bool) (swapped bool, err error)
	Unbind(ctx context.Context, in storage.Unbinding) (storage.UnbindVerdict, error)
	ImportUsers(ctx context.Context, rows []storage.ImportRow, dryRun bool) ([]storage.ImportVerdict, error)
}

var _ DirectoryStore = storage.Store(nil)

// Directory is what an operator does with people: finding, describing, adding
// and importing them. It is safe for concurrent use.
type Directory struct {
	Store     DirectoryStore
	Passwords *Passwords
	Defaults  *Defaults
	// OpenPlatform returns the open platform of a configured app, "" where the
	// app shares unionids with no other.
	OpenPlatform func(appID string) (name string, configured bool)
	// Notified returns the clients that are told where login sessions end; nil:
	// none.
	Notified func() []string
}

// Errors of a Directory, with text for the operator. None repeats a value.
var (
	// ErrWho means that a user was named in no form that there is.
	ErrWho = errors.New("name the user by id, or as username:NAME, phone:+8613…, external:ID or wechat:APPID/OPENID")
	// ErrRetired means that a user was merged or erased. It wraps
	// storage.ErrNotFound.
	ErrRetired = fmt.Errorf("this user was merged into another or erased; nothing is left of them (%w)", storage.ErrNotFound)
	// ErrNoUsername means that a user without a username cannot have a password.
	ErrNoUsername = errors.New("this user has no username, so a password would open nothing")
	// ErrLastWayIn means that nothing else would let the user in.
	ErrLastWayIn = errors.New("nothing else would let this user in, so nothing was removed: give the user a password first (wxidp users set-password, for a user with a username), or disable or erase the user")
	// ErrBanned means that a ban would not follow a WeChat account.
	ErrBanned = errors.New("the user is disabled, and the WeChat account would come back as a new user without the ban: enable the user first, or leave it bound")
	// ErrChanging means that a user's WeChat accounts came and went meanwhile.
	ErrChanging = errors.New("the user's WeChat accounts changed at the same moment; look at the user and try again")
)

var (
	userID    = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)
	e164Phone = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
)

// Find returns the user whom who names: a user id, or one of username:NAME,
// phone:E164, external:ID and wechat:APPID/OPENID. A retired user is found by
// id only, and has nothing but ID and Retired. The error is or wraps ErrWho or
// one of storage's.
func (d *Directory) Find(ctx context.Context, who string) (storage.User, error) {
	kind, value, named := strings.Cut(who, ":")
	if !named {
		if !userID.MatchString(who) {
			return storage.User{}, ErrWho
		}
		return d.Store.User(ctx, who)
	}
	switch kind {
	case "username":
		name, err := CanonicalUsername(value)
		if err != nil {
			return storage.User{}, fmt.Errorf("%w: that cannot be a username", ErrWho)
		}
		return d.Store.UserBy(ctx, storage.IndexUsername, name)
	case "phone":
		if !e164Phone.MatchString(value) {
			return storage.User{}, fmt.Errorf("%w: a phone number begins with + and the country's code, and has digits only", ErrWho)
		}
		return d.Store.UserBy(ctx, storage.IndexPhone, value)
	case "external":
		if !validExternalID(value) {
			return storage.User{}, fmt.Errorf("%w: that cannot be an external id", ErrWho)
		}
		return d.Store.UserBy(ctx, storage.IndexExternalID, value)
	case "wechat":
		appID, weChatOpenID, ok := strings.Cut(value, "/")
		if !ok || !plainID(appID) || !plainID(weChatOpenID) {
			return storage.User{}, fmt.Errorf("%w: after wechat: come the appid, a slash and the openid", ErrWho)
		}
		user, _, err := d.Store.IdentityUser(ctx, appID, weChatOpenID)
		return user, err
	}
	return storage.User{}, ErrWho
}

// FindLiving is Find for what a retired user cannot take part in.
func (d *Directory) FindLiving(ctx context.Context, who string) (storage.User, error) {
	user, err := d.Find(ctx, who)
	if err == nil && user.Retired {
		err = ErrRetired
	}
	if err != nil {
		return storage.User{}, err
	}
	return user, nil
}

// NewUser is an account to add.
type NewUser struct {
	Username   string        // as entered; "" only with an ExternalID
	Password   secret.String // zero: none
	ExternalID string
	Nickname   string // "": the default
	Picture    string // "": the default
}

// Add creates an account. The error is an [*Error] of kind InvalidInput or
// Busy, or storage's.
func (d *Directory) Add(ctx context.Context, in NewUser) (storage.AccountResult, error) {
	account := storage.NewAccount{ExternalID: in.ExternalID}
	var err error
	if in.Username != "" || in.ExternalID == "" {
		if account.Username, err = CanonicalUsername(in.Username); err != nil {
			return storage.AccountResult{}, err
		}
	}
	if in.ExternalID != "" && !validExternalID(in.ExternalID) {
		return storage.AccountResult{}, invalid("external_id", reasonCharacter)
	}
	if account.Profile, err = d.newProfile(in.Nickname, in.Picture); err != nil {
		return storage.AccountResult{}, err
	}
	if !in.Password.IsZero() {
		if account.Username == "" {
			return storage.AccountResult{}, ErrNoUsername
		}
		if account.PasswordHash, err = d.Passwords.Hash(ctx, in.Password); err != nil {
			return storage.AccountResult{}, err
		}
	}
	return d.Store.CreateAccount(ctx, account)
}

// newProfile is the default profile with what is given in its place.
func (d *Directory) newProfile(nickname, picture string) (storage.Profile, error) {
	profile := d.Defaults.NewProfile()
	var err error
	if nickname != "" {
		if profile.Nickname, err = Nickname(nickname); err != nil {
			return storage.Profile{}, err
		}
	}
	if picture != "" {
		if profile.Picture, err = Picture(picture); err != nil {
			return storage.Profile{}, err
		}
	}
	return profile, nil
}

// SetPassword gives a user another password, or a first one, and ends all of
// the user's sign-ins. WeChat accounts stay bound, also one that somebody bound
// by the old password: see Unbind. The error is ErrNoUsername, an [*Error] of kind
// InvalidInput or Busy, or storage's.
func (d *Directory) SetPassword(ctx context.Context, user storage.User, password secret.String) error {
	if user.Username == "" {
		return ErrNoUsername
	}
	next, err := d.Passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	for range 3 { // a sign-in may upgrade the old hash at the same moment
		account, err := d.Store.AccountByUsername(ctx, user.Username)
		if err != nil {
			return err
		}
		if account.UserID != user.ID {
			return storage.ErrNotFound // merged meanwhile
		}
		if swapped, err := d.Store.SetPassword(ctx, user.ID, account.PasswordHash, next, true); err != nil || swapped {
			return err
		}
	}
	return &Error{Kind: Busy, RetryAfter: time.Second}
}

// ChooseError means that the WeChat account to remove is not there, or not
// clear. Its text names appids only.
type ChooseError struct {
	Named  bool     // an appid was named; none of the user's has it
	AppIDs []string // of the user's WeChat accounts
}

func (e *ChooseError) Error() string {
	list := strings.Join(e.AppIDs, ", ")
	switch {
	case len(e.AppIDs) == 0:
		return "this user has no WeChat account"
	case e.Named:
		return "this user has no WeChat account in that mini-program; those of the user are in " + list
	}
	return "this user has several WeChat accounts, in " + list + ": name one by its appid (--appid), or say all (--all)"
}

// Unbound is what Unbind removed.
type Unbound struct {
	AppIDs []string // of the WeChat accounts that are gone
	Left   int      // WeChat accounts that stay
	// LeadBack are those of AppIDs that share a unionid with one that stays, as
	// far as is known: the next sign-in there is the user again.
	LeadBack []string
}

// Unbind removes the user's WeChat account of an app and ends all that the user
// is signed in to; with all, every WeChat account; with neither, the only one
// there is. The error is a [*ChooseError], ErrBanned, ErrLastWayIn, ErrChanging or storage's;
// something may have been removed before it.
func (d *Directory) Unbind(ctx context.Context, user storage.User, appID string, all bool) (out Unbound, err error) {
	if user.Disabled {
		return out, ErrBanned
	}
	for range 4 { // a sign-in may add one, and the user remove one, at the same moment
		bound, err := d.Store.Identities(ctx, user.ID)
		if err != nil {
			return out, err
		}
		if len(bound) == 0 && len(out.AppIDs) > 0 {
			return out, nil
		}
		gone, left, err := choose(bound, appID, all)
		if err != nil {
			return out, err
		}
		verdict, err := d.remove(ctx, user.ID, gone)
		switch {
		case err != nil:
			return out, err
		case verdict == storage.UnbindLastWayIn:
			return out, ErrLastWayIn
		case verdict != storage.UnbindOK:
			continue
		}
		for _, identity := range gone {
			out.AppIDs = append(out.AppIDs, identity.AppID)
			if slices.ContainsFunc(left, func(other storage.Identity) bool { return d.samePerson(identity, other) }) {
				out.LeadBack = append(out.LeadBack, identity.AppID)
			}
		}
		if out.Left = len(left); !all {
			return out, nil
		}
	}
	return out, ErrChanging
}

// choose parts the identities to remove from those that stay.
func choose(bound []storage.Identity, appID string, all bool) (gone, left []storage.Identity, err error) {
	for _, identity := range bound {
		if all || identity.AppID == appID || appID == "" && len(bound) == 1 {
			gone = append(gone, identity)
		} else {
			left = append(left, identity)
		}
	}
	if len(gone) > 0 {
		return gone, left, nil
	}
	e := &ChooseError{Named: appID != ""}
	for _, identity := range bound {
		e.AppIDs = append(e.AppIDs, identity.AppID)
	}
	return nil, nil, e
}

// remove unbinds identities in one commit. Whatever could let a user in counts
// as a way in: an operator knows how the product is used.
func (d *Directory) remove(ctx context.Context, userID string, identities []storage.Identity) (storage.UnbindVerdict, error) {
	in := storage.Unbinding{UserID: userID, WaysIn: storage.WaysIn{Password: true, ExternalID: true, Phone: true}}
	for _, identity := range identities {
		in.Identities = append(in.Identities, identity.Index)
	}
	if d.Notified != nil {
		in.Notify = d.Notified()
	}
	return d.Store.Unbind(ctx, in)
}

// samePerson reports whether a unionid says, or may say as soon as it is known,
// that two identities are of one person.
func (d *Directory) samePerson(gone, left storage.Identity) bool {
	switch {
	case left.UnionID == "":
		return false
	case gone.UnionID == "":
		platform, _ := d.OpenPlatform(gone.AppID)
		return platform != "" && platform == left.OpenPlatform
	}
	return gone.UnionID == left.UnionID && gone.OpenPlatform == left.OpenPlatform
}

// validExternalID reports whether s can be a user's id in the product.
func validExternalID(s string) bool {
	return s != "" && len(s) <= maxExternalID && strings.TrimSpace(s) == s && printable(s)
}

// plainID reports whether s can be one of WeChat's ids: 1 to 128 characters of
// visible ASCII.
func plainID(s string) bool { return ascii.Visible(s, 128) }
