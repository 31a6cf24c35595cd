package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/wxidp/wxidp/config"
)

// listenTLS wraps l in TLS 1.2 or newer.
func listenTLS(l net.Listener, c config.TLS) (net.Listener, error) {
	certificate := &certificate{certFile: c.CertFile, keyFile: c.KeyFile}
	if _, err := certificate.get(nil); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: certificate.get,
	}), nil
}

// certificateCheck is how often the certificate files are looked at.
const certificateCheck = 10 * time.Second

// certificate serves a certificate that may be renewed on disk. A pair of
// files that does not fit leaves the last good one in place.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
	changed time.Time // of the files when current was read
	checked time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.checked) < certificateCheck {
		return c.current, nil
	}
	c.checked = time.Now()
	changed, err := lastChange(c.certFile, c.keyFile)
	if err == nil && (c.current == nil || !changed.Equal(c.changed)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil {
			c.current, c.changed = &pair, changed
		}
	}
	if c.current == nil {
		return nil, err
	}
	return c.current, nil
}

func lastChange(paths ...string) (last time.Time, err error) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return last, err
		}
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last, nil
}
