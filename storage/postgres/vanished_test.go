package postgres

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// vanishing is the network of a machine that loses its power as it sends a
// message with the text: nothing leaves it any more, and nobody is told.
type vanishing struct {
	before []byte

	mu    sync.Mutex
	gone  bool
	conns []net.Conn
}

type vanishingConn struct {
	net.Conn
	from *vanishing
}

func (v *vanishing) dial(ctx context.Context, network, address string) (net.Conn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return nil, errors.New("the machine is off")
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		v.conns = append(v.conns, c)
	}
	return vanishingConn{c, v}, err
}

func (c vanishingConn) Write(data []byte) (int, error) {
	c.from.mu.Lock()
	defer c.from.mu.Unlock()
	if c.from.gone = c.from.gone || bytes.Contains(data, c.from.before); c.from.gone {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

func (c vanishingConn) Close() error {
	c.from.mu.Lock()
	defer c.from.mu.Unlock()
	if c.from.gone {
		return nil
	}
	return c.Conn.Close()
}

// TestVanishedNode: what a node had locked when it vanished from the network is
// free again before others give up, and not when TCP has found out.
func TestVanishedNode(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{}, hooks{})
	user := signIn(t, s, request("o-vanished")).UserID
	network := &vanishing{before: []byte("COMMIT\x00")}
	vanishing := openDatabase(t, Options{DSN: secret.New(s.pool.Config().ConnString()), Timeout: 2 * time.Second},
		hooks{adjust: func(c *pgxpool.Config) { c.ConnConfig.DialFunc = network.dial }})
	defer func() {
		for _, c := range network.conns {
			_ = c.Close()
		}
	}()
	name := "张三"
	if _, err := vanishing.UpdateProfile(t.Context(), user, storage.ProfileChange{Nickname: &name}); !errors.Is(err, storage.ErrUnavailable) {
		t.Fatalf("the node that vanished: %v", err)
	}
	network.mu.Lock()
	gone := network.gone
	network.mu.Unlock()
	if !gone {
		t.Fatal("the node did not vanish: the operation commits in another way")
	}
	begin := time.Now()
	other := "李四"
	if _, err := s.UpdateProfile(t.Context(), user, storage.ProfileChange{Nickname: &other}); err != nil {
		t.Errorf("another node, after %v: %v", time.Since(begin), err)
	}
}
