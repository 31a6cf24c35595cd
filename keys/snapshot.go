package keys

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/internal/secret"
)

// MACKey makes and checks refresh tokens. It prints as ***.
type MACKey struct {
	ID  uint32
	Key [macSize]byte
}

// String returns the mask.
func (MACKey) String() string { return secret.Mask }

// Format writes the mask for every verb and flag.
func (MACKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(secret.Mask)) }

// MarshalText returns the mask, for encoding/json too.
func (MACKey) MarshalText() ([]byte, error) { return []byte(secret.Mask), nil }

// LogValue returns the mask.
func (MACKey) LogValue() slog.Value { return slog.StringValue(secret.Mask) }

// Document is the JWK Set (RFC 7517 section 5), ready to be sent. It is never
// changed; a new set is a new Document.
type Document struct {
	Body   []byte
	ETag   string        // strong, in quotes; changes only when the set does
	MaxAge time.Duration // whole seconds; how long validators may cache it
}

// snapshot is all that requests read, put in force as one.
type snapshot struct {
	doc     *document          // never changed once in a snapshot
	value   []byte             // doc as the store has it
	records map[string]*record // by id
	keys    map[string]*signingKey
	current map[string]*signingKey // by alg, without disabled ones
	headers map[string]headerRef   // encoded JOSE headers as Sign writes them
	macs    map[uint32]MACKey
	mac     MACKey
	body    []byte
	etag    string
	jwks    *Document
}

type headerRef struct {
	key *signingKey
	typ string
}

// build opens every key of d, which value encodes. Keys that are open already
// are not opened again.
func (r *Ring) build(d *document, value []byte) (*snapshot, error) {
	old := r.snap.Load()
	if old == nil {
		old = &snapshot{}
	}
	s := &snapshot{
		doc:     d,
		value:   value,
		records: make(map[string]*record, len(d.Keys)),
		keys:    make(map[string]*signingKey, len(d.Keys)),
		headers: make(map[string]headerRef, len(d.Keys)*len(usualTypes)),
		macs:    make(map[uint32]MACKey),
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, rec := range d.sorted() {
		s.records[rec.ID] = rec
		if rec.Alg == MAC {
			if err := s.addMAC(rec, old, r); err != nil {
				return nil, err
			}
			continue
		}
		key := old.keys[rec.ID]
		if key == nil {
			signer, err := rec.openSigner(r.keyring)
			if err != nil {
				return nil, err
			}
			key = newSigningKey(rec.ID, rec.Alg, signer)
		}
		s.keys[rec.ID] = key
		for typ, header := range key.headers {
			s.headers[header] = headerRef{key, typ}
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: key.signer.Public(), KeyID: key.id, Algorithm: key.alg, Use: "sig",
		})
	}
	if s.mac.ID == 0 {
		return nil, errors.New("keys: the stored key document has no current MAC key")
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, errors.New("keys: the JWK Set cannot be encoded")
	}
	sum := sha256.Sum256(body)
	s.body, s.etag = body, `"`+base64.RawURLEncoding.EncodeToString(sum[:16])+`"`
	return s.with(*r.settings.Load()), nil
}

func (s *snapshot) addMAC(rec *record, old *snapshot, r *Ring) error {
	id, _ := rec.macID()
	mac, ok := old.macs[id]
	if !ok {
		var err error
		if mac, err = rec.openMAC(r.keyring); err != nil {
			return err
		}
	}
	s.macs[id] = mac
	if rec.State == StateCurrent {
		s.mac = mac
	}
	return nil
}

// with returns s under other settings.
func (s *snapshot) with(settings Settings) *snapshot {
	out := *s
	out.current = make(map[string]*signingKey)
	for id, key := range s.keys {
		if s.records[id].State == StateCurrent && (key.alg != EdDSA || settings.EdDSA) {
			out.current[key.alg] = key
		}
	}
	// A longer max-age than the document knows of must not be sent: a next
	// key could begin to sign before it has run out.
	out.jwks = &Document{
		Body:   s.body,
		ETag:   s.etag,
		MaxAge: min(settings.maxAge(), time.Duration(s.doc.MaxAge)*time.Second),
	}
	return &out
}

// JWKS returns the JWK Set in force. The caller must not change it.
func (r *Ring) JWKS() *Document { return r.snap.Load().jwks }

// Algorithms returns the algorithms Sign can use now, ES256 first. One enabled
// a short while ago is missing until its first key has been published long
// enough.
func (r *Ring) Algorithms() []string {
	s := r.snap.Load()
	var out []string
	for _, alg := range algorithms {
		if s.current[alg] != nil {
			out = append(out, alg)
		}
	}
	return out
}

// MACKey returns the key that new refresh tokens are made with.
func (r *Ring) MACKey() MACKey { return r.snap.Load().mac }

// MACKeyByID returns the MAC key with id, which may be current, retired, or
// about to be current. A revoked or long retired one is not found.
func (r *Ring) MACKeyByID(id uint32) (MACKey, bool) {
	mac, ok := r.snap.Load().macs[id]
	return mac, ok
}
