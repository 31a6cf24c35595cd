package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
)

// TestServeWithoutDatabase: a server whose database is not there says so and
// ends soon, for whoever started it to start it again.
func TestServeWithoutDatabase(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // nobody accepts
	host, port, err := net.SplitHostPort(silent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, dsn := range map[string]string{
		"nothing listens": "host=127.0.0.1 port=1 user=wxidp dbname=wxidp",
		"no answer":       fmt.Sprintf("host=%s port=%s user=wxidp dbname=wxidp", host, port),
		"no socket":       "host=/nonexistent user=wxidp dbname=wxidp",
	} {
		s := prepareServer(t, withConfig(func(yaml string) string {
			return strings.Replace(yaml, "STORAGE", fmt.Sprintf("storage: { driver: postgres, postgres: { dsn: %q } }", dsn), 1)
		}))
		begin := time.Now()
		process := startChild(t, "", "serve", "--config", s.ConfigPath())
		code := process.ExitCode()
		failed := process.Stdout.Events("server.failed")
		if code != 1 || len(failed) != 1 || !strings.Contains(fmt.Sprint(failed[0]["detail"]), "database") {
			t.Errorf("%s: code %d, %v\n%s%s", name, code, failed, process.Stdout, process.Stderr)
		}
		t.Logf("%s: after %v: %v", name, time.Since(begin).Round(time.Millisecond), failed)
	}
}

// TestNodesMasterKey: a node with another master key than the others does not
// start, and harms nothing.
func TestNodesMasterKey(t *testing.T) {
	t.Parallel()
	c := prepareCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	a.start()
	tokens := signIn(a, "alice")
	b.writeFile("data/master.key", seal.GenerateKey()+"\n")
	if err := b.startErr(); err == nil || !strings.Contains(err.Error(), "master key") {
		t.Errorf("started with another master key: %v", err)
	}
	key, err := os.ReadFile(filepath.Join(a.Dir, "data", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	b.writeFile("data/master.key", string(key))
	b.start()
	for _, node := range c.nodes {
		signedIn(node, "begun before", tokens)
	}
}
