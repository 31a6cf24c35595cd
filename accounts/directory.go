package accounts

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

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
// the user's sign-ins. The error is ErrNoUsername, an [*Error] of kind
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

// validExternalID reports whether s can be a user's id in the product.
func validExternalID(s string) bool {
	return s != "" && len(s) <= maxExternalID && strings.TrimSpace(s) == s && printable(s)
}

// plainID reports whether s can be one of WeChat's ids: 1 to 128 characters of
// visible ASCII.
func plainID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
