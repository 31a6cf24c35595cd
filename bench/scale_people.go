package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// population makes the rows of people and their sign-ins. The same seed makes
// the same people; ids, keys and nonces are random, as in life. What is
// personal is really sealed, each user's values under a key of their own.
type population struct {
	vault    *storage.Vault
	mac      keys.MACKey
	weChat   *simulator.Simulator // knows everybody's openid and unionid
	seed     uint64
	now      time.Time
	sampled  int     // the first so many users have a sign-in whose refresh token is known
	families float64 // sign-ins of each other user, on average
}

// The lifetimes of the sign-ins: those of the configuration's defaults.
const (
	idleLifetime     = 720 * time.Hour
	absoluteLifetime = 4320 * time.Hour
)

// Of a hundred users so many have what is named.
const (
	percentUnionID  = 70
	percentPhone    = 20
	percentAccount  = 2 // username, password and an id of the product's own
	percentNickname = 40
)

// passwordHash has the form and length of a hash. Nobody signs in with it.
const passwordHash = "$argon2id$v=19$m=19456,t=2,p=1$c2NhbGVzY2FsZXNjYWxlcw$8Yq0ulYwCBo2n7mBXqJY0v8E1cWl3m9uQ2dT5gH6jKs"

// sampledUser is a user whose newest refresh token is known.
type sampledUser struct {
	Sub     string `json:"sub"`
	Refresh string `json:"refresh"`
}

// person makes the rows of user number i and hands each to emit. The result is
// set for one of those sampled.
func (p *population) person(i int, emit func(storage.Row)) (known *sampledUser, err error) {
	r := rand.New(rand.NewPCG(p.seed, uint64(i)))
	// Three years of a business that grows.
	born := p.now.Add(-time.Duration(r.Float64() * r.Float64() * 3 * 365 * 24 * float64(time.Hour))).Add(-time.Minute)
	user, identity, err := p.user(i, r, born, emit)
	if err != nil {
		return nil, err
	}
	n := 0
	for share := p.families / (1 + p.families); r.Float64() < share; {
		n++
	}
	if i < p.sampled {
		n = max(n, 1)
	}
	for k := range n {
		f := p.family(r, user, identity, born)
		emit(familyRow(&f))
		if i < p.sampled && k == 0 {
			known = &sampledUser{user, p.refreshToken(&f)}
		}
	}
	return known, nil
}

// user drafts a new user as the engines do.
func (p *population) user(i int, r *rand.Rand, born time.Time, emit func(storage.Row)) (id string, identity storage.Digest, err error) {
	name := userName(i)
	openID, unionID, platform := p.weChat.OpenID(appID, name), "", ""
	if r.IntN(100) < percentUnionID {
		platform, unionID = openPlatform, p.weChat.UnionID(openPlatform, name)
	}
	profile := storage.Profile{Nickname: "微信用户"}
	if r.IntN(100) < percentNickname {
		profile = storage.Profile{Nickname: fmt.Sprintf("小明%05d", r.IntN(100_000)), Picture: fmt.Sprintf("https://cdn.shop.example/avatars/%016x.jpg", r.Uint64())}
	}
	draft := storage.NewDraft(noRows{}, p.vault, born)
	if kind := r.IntN(100); kind < percentAccount {
		c, err := p.vault.PrepareImport([]storage.ImportRow{{
			AppID: appID, WeChatOpenID: openID, UnionID: unionID, OpenPlatform: platform, ExternalID: fmt.Sprintf("member-%d", i),
			Username: name, PasswordHash: passwordHash, Profile: profile,
		}})
		if err != nil {
			return "", identity, err
		}
		if _, err := c.Judge(draft); err != nil {
			return "", identity, err
		}
	} else {
		in := storage.SignIn{AppID: appID, WeChatOpenID: openID, UnionID: unionID, OpenPlatform: platform, NewProfile: profile}
		if kind < percentAccount+percentPhone {
			in.Phone = &storage.PhoneProof{E164: fmt.Sprintf("+861%010d", i), VerifiedAt: born}
		}
		c, err := p.vault.PrepareSignIn(in)
		if err != nil {
			return "", identity, err
		}
		if _, _, err := c.Judge(draft); err != nil {
			return "", identity, err
		}
	}
	changes, err := draft.Changes()
	if err != nil {
		return "", identity, err
	}
	if len(changes.Users) != 1 || len(changes.Identities) != 1 {
		return "", identity, fmt.Errorf("a new user is %d users and %d identities", len(changes.Users), len(changes.Identities))
	}
	id, identity = changes.Users[0].ID, changes.Identities[0].Index
	emit(storage.Row{Kind: storage.RowUser, Key: []byte(id), Value: changes.Users[0].Data})
	emit(storage.Row{Kind: storage.RowIdentity, Key: identity[:], Value: changes.Identities[0].Data})
	for _, o := range changes.Owners {
		emit(storage.Row{Kind: storage.RowOwner, Key: storage.OwnerKey(o.Kind, o.Index), Value: []byte(o.UserID)})
	}
	return id, identity, nil
}

// family makes a sign-in that is live: begun within its absolute lifetime and
// refreshed within its idle lifetime.
func (p *population) family(r *rand.Rand, user string, identity storage.Digest, born time.Time) storage.Family {
	began := p.now.Add(-time.Duration(r.Float64() * float64(absoluteLifetime-24*time.Hour)))
	if began.Before(born) {
		began = born
	}
	rotated := p.now.Add(-time.Duration(r.Float64() * float64(idleLifetime-time.Hour)))
	if rotated.Before(began) {
		rotated = began
	}
	f := newFamily(p.mac, user, identity, began)
	f.Generation = uint32(rotated.Sub(began) / (24 * time.Hour)) // as of somebody who comes every day
	f.RotatedAt = storage.RoundTime(rotated)
	f.IdleExpiresAt = storage.RoundTime(rotated.Add(idleLifetime))
	return f
}

// newFamily is a sign-in at the mini-program that began at a time.
func newFamily(mac keys.MACKey, user string, identity storage.Digest, began time.Time) storage.Family {
	f := storage.Family{
		ID: storage.NewFamilyID(), Secret: storage.NewFamilySecret(), ClientID: miniProgram, WeChatAppID: appID,
		Scope: []string{"openid", "profile", "orders.read"}, Audience: []string{audience}, AMR: []string{"wechat"},
		AuthTime: began, MACKeyID: mac.ID,
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(began.UnixMilli()))
	copy(f.ID[:6], ms[2:])
	f.Start(user, identity, storage.Parties{}, began, idleLifetime, absoluteLifetime)
	return f
}

func familyRow(f *storage.Family) storage.Row {
	id := f.ID
	return storage.Row{Kind: storage.RowFamily, Key: id[:], Value: storage.EncodeFamily(f)}
}

// refreshToken is the live refresh token of a family, as the server makes it.
func (p *population) refreshToken(f *storage.Family) string {
	raw := append([]byte{1}, f.ID[:]...)
	raw = binary.BigEndian.AppendUint32(raw, f.Generation)
	raw = binary.BigEndian.AppendUint32(raw, f.MACKeyID)
	h := hmac.New(sha256.New, p.mac.Key[:])
	h.Write([]byte("wxidp refresh token\x00"))
	h.Write(raw)
	h.Write(f.Secret[:])
	h.Write([]byte(f.ClientID))
	return "wxrt_" + base64.RawURLEncoding.EncodeToString(h.Sum(raw))
}

// noRows are the rows of a store that has nobody.
type noRows struct{}

func (noRows) UserRow(string) ([]byte, error)                          { return nil, nil }
func (noRows) IdentityRow(storage.Digest) ([]byte, error)              { return nil, nil }
func (noRows) Owner(storage.IndexKind, storage.Digest) (string, error) { return "", nil }
func (noRows) SessionKeysRow(storage.Digest) ([]byte, error)           { return nil, nil }
func (noRows) Families(string, int) ([]storage.Family, bool, error)    { return nil, true, nil }
func (noRows) LoginRow(storage.LoginID) ([]byte, error)                { return nil, nil }
func (noRows) Logins(string, int) ([]storage.LoginRecord, error)       { return nil, nil }
func (noRows) ConsentsRow(string) ([]byte, error)                      { return nil, nil }

// openRing returns the key that the refresh tokens of a store are made with;
// a store without keys gets its first ones.
func openRing(ctx context.Context, store keys.Store, o keys.Options) (keys.MACKey, error) {
	o.Store = store
	o.Settings = keys.Settings{RotateEvery: 720 * time.Hour, PublishAhead: 24 * time.Hour, TokenLifetime: 6 * time.Hour, RefreshLifetime: absoluteLifetime}
	ring, err := keys.Open(ctx, o)
	if err != nil {
		return keys.MACKey{}, err
	}
	return ring.MACKey(), nil
}
