package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned returns a certificate for 127.0.0.1 and its key, in PEM.
func selfSigned(t testing.TB, serial int64) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "wxidp test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// prepareTLS prepares a server that serves HTTPS itself.
func prepareTLS(t testing.TB) (s *testServer, roots *x509.CertPool) {
	t.Helper()
	s = prepareServer(t, withConfig(func(yaml string) string {
		return "tls: { cert_file: tls/cert.pem, key_file: tls/key.pem }\n" + strings.Replace(yaml, "issuer: ISSUER", "issuer: https://LISTEN", 1)
	}))
	s.Issuer = "https://" + strings.TrimPrefix(s.Issuer, "http://")
	cert, key := selfSigned(t, 1)
	s.writeFile("tls/cert.pem", cert)
	s.writeFile("tls/key.pem", key)
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cert))
	return s, roots
}

func TestThreat89TLS(t *testing.T) {
	s, roots := prepareTLS(t)
	s.start()
	address := strings.TrimPrefix(s.Issuer, "https://")
	handshake := func(config *tls.Config) (tls.ConnectionState, error) {
		config.RootCAs = roots
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	for name, version := range map[string]uint16{"TLS 1.0": tls.VersionTLS10, "TLS 1.1": tls.VersionTLS11} {
		if state, err := handshake(&tls.Config{MinVersion: version, MaxVersion: version}); err == nil {
			t.Errorf("%s is accepted: %x", name, state.Version)
		}
	}
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		if state, err := handshake(&tls.Config{MinVersion: version, MaxVersion: version}); err != nil || state.Version != version {
			t.Errorf("%s is refused: %v", name, err)
		}
	}
	if state, err := handshake(&tls.Config{}); err != nil || state.Version != tls.VersionTLS13 {
		t.Errorf("a modern client gets %x, %v", state.Version, err)
	}
	for _, suite := range append(tls.InsecureCipherSuites(), &tls.CipherSuite{ID: tls.TLS_RSA_WITH_AES_128_GCM_SHA256, Name: "without forward secrecy"}) {
		if _, err := handshake(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}}); err == nil {
			t.Errorf("weak suite %s is accepted", suite.Name)
		}
	}

	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	resp, err := client.Get(s.Issuer + "/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("discovery over HTTPS: %d", resp.StatusCode)
	}
	if got := resp.Header.Get("Strict-Transport-Security"); got == "" {
		t.Error("no HSTS where TLS is served here")
	}
	// Plain HTTP at the HTTPS port gets nothing out.
	if out, err := s.try(http.MethodGet, "http://"+address+"/.well-known/openid-configuration", nil); err == nil && out.Status == http.StatusOK {
		t.Errorf("plain HTTP: %v", out)
	}
}

func TestThreat89BadCertificates(t *testing.T) {
	for name, spoil := range map[string]func(s *testServer){
		"no certificate": func(s *testServer) { _ = os.Remove(filepath.Join(s.Dir, "tls", "cert.pem")) },
		"not PEM":        func(s *testServer) { s.writeFile("tls/cert.pem", "nonsense") },
		"another's key":  func(s *testServer) { _, key := selfSigned(t, 2); s.writeFile("tls/key.pem", key) },
		"a readable key": func(s *testServer) { _ = os.Chmod(filepath.Join(s.Dir, "tls", "key.pem"), 0o644) },
	} {
		s, _ := prepareTLS(t)
		spoil(s)
		if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "tls") {
			t.Errorf("%s: the server starts, or says %v", name, err)
		}
	}
	// Plain HTTP off loopback needs an explicit switch.
	s := prepareServer(t)
	s.editConfig("listen: "+strings.TrimPrefix(s.Issuer, "http://"), "listen: 0.0.0.0:0")
	if err := s.startErr(); err == nil || !strings.Contains(err.Error(), "listen") {
		t.Errorf("plain HTTP on all addresses: %v", err)
	}
}

// TestCertificateIsReloaded looks at the certificate that a handshake gets
// while the files change.
func TestCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(cert, key string, at time.Time) {
		t.Helper()
		for path, text := range map[string]string{certFile: cert, keyFile: key} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := &certificate{certFile: certFile, keyFile: keyFile}
	serial := func() int64 {
		t.Helper()
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	elapse := func() { // the pause between two looks
		c.mu.Lock()
		defer c.mu.Unlock()
		c.checked = c.checked.Add(-certificateCheck)
	}
	begin := time.Now().Add(-time.Hour)
	cert1, key1 := selfSigned(t, 1)
	write(cert1, key1, begin)
	if serial() != 1 {
		t.Fatal("the first certificate is not served")
	}
	cert2, key2 := selfSigned(t, 2)
	write(cert2, key2, begin.Add(time.Minute))
	if serial() != 1 {
		t.Error("the files are looked at in every handshake")
	}
	elapse()
	if serial() != 2 {
		t.Error("the renewed certificate is not served")
	}
	// Half-way through a renewal the two do not fit: the last good pair stays.
	cert3, key3 := selfSigned(t, 3)
	write(cert3, key2, begin.Add(2*time.Minute))
	elapse()
	if serial() != 2 {
		t.Error("a pair that does not fit took the place of a good one")
	}
	write(cert3, key3, begin.Add(2*time.Minute)) // within the same tick of the clock
	elapse()
	if serial() != 3 {
		t.Error("the completed renewal is not served")
	}
	for _, path := range []string{certFile, keyFile} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	elapse()
	if serial() != 3 {
		t.Error("without files the last good certificate is not served")
	}
}
