package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxidp/wxidp/internal/seal"
)

// memory is a Store that several rings can share.
type memory struct {
	mu      sync.Mutex
	value   []byte
	version uint64
	swaps   int   // that succeeded
	fails   error // when set, every call returns it
	read    int   // calls of Record
}

func (m *memory) Record(_ context.Context, name string) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read++
	if name != recordName {
		return nil, 0, errors.New("unexpected record " + name)
	}
	return bytes.Clone(m.value), m.version, m.fails
}

func (m *memory) SwapRecord(_ context.Context, _ string, version uint64, value []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails != nil || version != m.version {
		return false, m.fails
	}
	m.value, m.version = bytes.Clone(value), m.version+7 // versions need not be consecutive
	m.swaps++
	return true, nil
}

func (m *memory) reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

func (m *memory) set(value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.value, m.version = value, m.version+1
}

func (m *memory) state() (value []byte, swaps int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.value), m.swaps
}

// rsaPool has more keys than any test keeps at one time, and fewer than a year
// of rotations needs: making them is slow.
var rsaPool = sync.OnceValue(func() []crypto.Signer {
	pool := make([]crypto.Signer, 12)
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			for i := half; i < len(pool); i += 2 {
				key, err := newSigner(RS256)
				if err != nil {
					panic(err)
				}
				pool[i] = key
			}
		})
	}
	wg.Wait()
	return pool
})

// signerSource is newSigner with RSA keys from the pool, which repeat.
func signerSource() func(string) (crypto.Signer, error) {
	pool := rsaPool()
	var mu sync.Mutex
	next := 0
	return func(alg string) (crypto.Signer, error) {
		if alg != RS256 {
			return newSigner(alg)
		}
		mu.Lock()
		defer mu.Unlock()
		next++
		return pool[next%len(pool)].(*rsa.PrivateKey), nil
	}
}

func newKeyring(t testing.TB, lines ...string) *seal.Keyring {
	t.Helper()
	if len(lines) == 0 {
		lines = []string{seal.GenerateKey()}
	}
	keyring, err := seal.ParseKeyring([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return keyring
}

func defaults() Settings {
	return Settings{
		RotateEvery:     720 * time.Hour,
		PublishAhead:    24 * time.Hour,
		TokenLifetime:   time.Hour,
		RefreshLifetime: 4320 * time.Hour,
		EdDSA:           true,
	}
}

// world is what the nodes of one deployment share.
type world struct {
	store   *memory
	options Options
	signers func(string) (crypto.Signer, error)
}

func newWorld(t testing.TB, settings Settings) *world {
	t.Helper()
	w := &world{store: &memory{}, signers: signerSource()}
	w.options = Options{Store: w.store, Keyring: newKeyring(t), Settings: settings, Logger: slog.New(failOnError{t})}
	return w
}

func (w *world) open(t testing.TB) *Ring {
	t.Helper()
	r, err := open(t.Context(), w.options, w.signers)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts a node and returns what stops it.
func run(t testing.TB, r *Ring) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// logTo makes the nodes opened from now on log into the buffer.
func (w *world) logTo(out *syncBuffer) {
	w.options.Logger = slog.New(slog.NewJSONHandler(out, nil))
}

// failOnError is the logger of worlds in which nothing is meant to go wrong.
type failOnError struct{ t testing.TB }

func (h failOnError) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}
func (h failOnError) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h failOnError) WithGroup(string) slog.Handler      { return h }
func (h failOnError) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(attr slog.Attr) bool {
		h.t.Errorf("%s: %s", record.Message, attr)
		return true
	})
	return nil
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// current is the id of the current key of alg, MAC included.
func current(t testing.TB, r *Ring, alg string) string { return inState(t, r, alg, StateCurrent) }

func inState(t testing.TB, r *Ring, alg, state string) string {
	t.Helper()
	for _, info := range r.List() {
		if info.Alg == alg && info.State == state {
			return info.ID
		}
	}
	t.Fatalf("no %s key is %s: %+v", alg, state, r.List())
	return ""
}

func sign(t testing.TB, r *Ring, alg, typ, claims string) string {
	t.Helper()
	token, err := r.Sign(alg, typ, []byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// parseSet reads a JWK Set with go-jose.
func parseSet(t testing.TB, body []byte) jose.JSONWebKeySet {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(body, &set); err != nil {
		t.Fatalf("JWK Set: %v\n%s", err, body)
	}
	return set
}

// validator is a resource server: it caches the JWK Set for max-age and never
// asks sooner.
type validator struct {
	set   jose.JSONWebKeySet
	etag  string
	until time.Time
}

func (v *validator) refresh(t testing.TB, from *Ring) {
	if time.Now().Before(v.until) {
		return
	}
	doc := from.JWKS()
	v.until = time.Now().Add(doc.MaxAge)
	if doc.ETag != v.etag {
		v.set, v.etag = parseSet(t, doc.Body), doc.ETag
	}
}

func (v *validator) knows(kid string) bool { return len(v.set.Key(kid)) == 1 }

// verifies checks token with go-jose alone.
func (v *validator) verifies(t testing.TB, token string) {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
	if err != nil {
		t.Fatalf("%v: go-jose cannot parse %s: %v", time.Now(), token, err)
	}
	header := jws.Signatures[0].Protected
	found := v.set.Key(header.KeyID)
	if len(found) != 1 {
		t.Fatalf("%v: validator met unknown kid %s (%s)", time.Now(), header.KeyID, header.Algorithm)
	}
	if found[0].Algorithm != header.Algorithm {
		t.Fatalf("JWK alg %s, header alg %s", found[0].Algorithm, header.Algorithm)
	}
	if _, err := jws.Verify(found[0].Key); err != nil {
		t.Fatalf("go-jose: %v", err)
	}
}
