package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/internal/seal"
)

const (
	rsaBits = 2048
	macSize = 32

	purposeSigning = "signing key"
	purposeMAC     = "mac key"
)

// newSigner makes a private key for alg. An RSA key takes up to some seconds.
func newSigner(alg string) (crypto.Signer, error) {
	switch alg {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("keys: no keys are made for alg %q", alg)
}

// thumbprint is the kid of a public key: RFC 7638 with SHA-256.
func thumbprint(public crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", errors.New("keys: no thumbprint for this kind of key")
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// needKey says that a change cannot be decided without a new key for alg.
type needKey struct{ alg string }

func (n needKey) Error() string { return "keys: a new " + n.alg + " key is needed" }

// pool holds the keys made for one change, so that deciding again after a lost
// swap does not make them again.
type pool struct {
	keyring *seal.Keyring
	made    []*freshKey
}

type freshKey struct {
	alg   string
	id    string // empty for MAC keys, which are numbered by the document
	plain []byte
	taken bool
}

// rewind makes every key available to the next attempt.
func (p *pool) rewind() {
	for _, key := range p.made {
		key.taken = false
	}
}

func (p *pool) clear() {
	for _, key := range p.made {
		clear(key.plain)
	}
}

func (p *pool) make(alg string, newSigner func(string) (crypto.Signer, error)) error {
	key := &freshKey{alg: alg}
	if alg == MAC {
		key.plain = make([]byte, macSize)
		rand.Read(key.plain)
	} else {
		signer, err := newSigner(alg)
		if err != nil {
			return fmt.Errorf("keys: making an %s key: %w", alg, err)
		}
		if key.id, err = thumbprint(signer.Public()); err != nil {
			return err
		}
		if key.plain, err = x509.MarshalPKCS8PrivateKey(signer); err != nil {
			return fmt.Errorf("keys: encoding an %s key: unsupported kind of key", alg)
		}
	}
	p.made = append(p.made, key)
	return nil
}

// take adds a new key of alg to d, as next. It returns needKey if none is there
// to be taken.
func (p *pool) take(d *document, alg string, now time.Time) (*record, error) {
	for _, key := range p.made {
		if key.alg != alg || key.taken {
			continue
		}
		key.taken = true
		rec := &record{ID: key.id, Alg: alg, State: StateNext, CreatedAt: now}
		if alg == MAC {
			d.LastMAC++
			rec.ID = macName(d.LastMAC)
		}
		rec.seal(p.keyring, key.plain)
		d.Keys = append(d.Keys, rec)
		return rec, nil
	}
	return nil, needKey{alg}
}

func (rec *record) purpose() string {
	if rec.Alg == MAC {
		return purposeMAC
	}
	return purposeSigning
}

func (rec *record) aad() []byte { return []byte(rec.ID + "|" + rec.Alg) }

func (rec *record) seal(keyring *seal.Keyring, plain []byte) {
	rec.Sealed = keyring.Seal(rec.purpose(), rec.aad(), plain)
}

func (rec *record) open(keyring *seal.Keyring) ([]byte, error) {
	plain, err := keyring.Open(rec.purpose(), rec.aad(), rec.Sealed)
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return nil, fmt.Errorf("keys: %s key %s was sealed by a master key that was not given; "+
			"give that master key too (it may follow the new one on a line of its own); nothing was changed: %w",
			rec.Alg, rec.ID, err)
	case err != nil:
		return nil, fmt.Errorf("keys: %s key %s is damaged in the store; nothing was changed: %w", rec.Alg, rec.ID, err)
	}
	return plain, nil
}

// openSigner returns the private key of a signing key's record, checked to be
// the one its id names.
func (rec *record) openSigner(keyring *seal.Keyring) (crypto.Signer, error) {
	plain, err := rec.open(keyring)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	// Parsing precomputes what makes RSA signatures fast.
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, fmt.Errorf("keys: %s key %s is not a PKCS #8 private key", rec.Alg, rec.ID)
	}
	var signer crypto.Signer
	fits := false
	switch private := parsed.(type) {
	case *ecdsa.PrivateKey:
		signer, fits = private, rec.Alg == ES256 && private.Curve == elliptic.P256()
	case *rsa.PrivateKey:
		signer, fits = private, rec.Alg == RS256 && private.N.BitLen() >= rsaBits
	case ed25519.PrivateKey:
		signer, fits = private, rec.Alg == EdDSA
	}
	if !fits {
		return nil, fmt.Errorf("keys: key %s is not one for %s", rec.ID, rec.Alg)
	}
	if id, err := thumbprint(signer.Public()); err != nil || id != rec.ID {
		return nil, fmt.Errorf("keys: %s key %s does not match its id", rec.Alg, rec.ID)
	}
	return signer, nil
}

func (rec *record) openMAC(keyring *seal.Keyring) (MACKey, error) {
	plain, err := rec.open(keyring)
	if err != nil {
		return MACKey{}, err
	}
	defer clear(plain)
	id, ok := rec.macID()
	if !ok || len(plain) != macSize {
		return MACKey{}, fmt.Errorf("keys: MAC key %s has the wrong form", rec.ID)
	}
	return MACKey{ID: id, Key: [macSize]byte(plain)}, nil
}
