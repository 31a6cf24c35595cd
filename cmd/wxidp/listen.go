package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/web"
)

// listeners are the open sockets; admin and socket may be nil.
type listeners struct {
	public, admin, socket net.Listener
}

// listen opens all sockets of the configuration, or none.
func listen(c *config.Config, refused func(limit string)) (_ *listeners, err error) {
	l := new(listeners)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.public, err = listenTCP("listen", c.Listen); err != nil {
		return nil, err
	}
	l.public = web.LimitListener(l.public, web.MaxConnections, web.MaxConnectionsPerIP, c.TrustedProxies, refused)
	if c.TLS.Enabled() {
		if l.public, err = listenTLS(l.public, c.TLS); err != nil {
			return nil, err
		}
	}
	if c.Admin.Listen != "" {
		if l.admin, err = listenTCP("admin.listen", c.Admin.Listen); err != nil {
			return nil, err
		}
	}
	if c.Admin.Socket != "" {
		if l.socket, err = listenSocket(c.Admin.Socket); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *listeners) close() {
	for _, listener := range []net.Listener{l.public, l.admin, l.socket} {
		if listener != nil {
			_ = listener.Close() // closed before by the server that served it
		}
	}
}

func listenTCP(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is in use; stop what listens there or choose another port", key, address)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// listenSocket opens the admin socket with mode 0600. A socket file that
// nobody answers at was left behind by a crash and makes room; the lock on the
// data file has already proven that no other server uses this folder.
func listenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("admin.socket: another server answers at %s", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("admin.socket: %s is there and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("admin.socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	return l, nil
}
