package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// strong passes for a random machine secret.
const strong = "q7Vd0nZ2sKx9LrT4wYbE6uHc1mGfJpAa8oRiBzXt"

const issuerLine = "issuer: https://id.example.com\n"

// folder is where a test's config file and the files it names live.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder { return folder{t, t.TempDir()} }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

// write replaces a file the way a careful program does: at once.
func (f folder) write(name, text string, mode os.FileMode) string {
	f.t.Helper()
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f folder) load(text string, env ...string) (*Loaded, error) {
	f.t.Helper()
	return Load(f.write("config.yaml", text, 0o600), env)
}

func (f folder) mustLoad(text string, env ...string) *Config {
	f.t.Helper()
	loaded, err := f.load(text, env...)
	if err != nil {
		f.t.Fatalf("a good config was refused:\n%v", err)
	}
	return loaded.Config
}

func faultsOf(t *testing.T, err error) Faults {
	t.Helper()
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error is %T (%v), want Faults", err, err)
	}
	return faults
}

// client is a clients section with one client of these lines.
func client(lines ...string) string {
	return "clients:\n  - " + strings.Join(lines, "\n    ") + "\n"
}

func publicClient(lines ...string) string {
	return appsSection + client(append([]string{"client_id: shop-mini", "type: public", "wechat_appid: wx1", "grant_types: [wechat_jscode, refresh_token]"}, lines...)...)
}

func confidentialClient(lines ...string) string {
	return client(append([]string{"client_id: orders-api", "type: confidential", "grant_types: [client_credentials]"}, lines...)...)
}

// webClient signs people in with a browser.
func webClient(lines ...string) string {
	return client(append([]string{"client_id: shop-web", "type: confidential", "client_secret: " + strong, "grant_types: [authorization_code]",
		"redirect_uris: [https://shop.example/cb]"}, lines...)...)
}

const appsSection = "wechat:\n  apps:\n    - {appid: wx1, secret: 0123456789abcdef0123456789abcdeg}\n"

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// jwks returns a JWK Set as a client would publish it.
func jwks(t *testing.T, keys ...jose.JSONWebKey) string {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func publicRSA(bits, exponent int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: exponent}
}

// certificate returns a self-signed certificate and its key, in PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "id.example.com"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}
