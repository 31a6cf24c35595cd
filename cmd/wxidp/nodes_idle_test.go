package main

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestNodesIdleDatabaseRestart: connections that died while nobody used them
// cost no request anything.
func TestNodesIdleDatabaseRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	t.Parallel()
	own, dsn := ownPostgres(t)
	c := prepareClusterOn(t, dsn, 2)
	for _, node := range c.nodes {
		node.start()
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		tokens := make([]answer, 64)
		parallel(len(tokens), func(i int) { // so many that the pools are full
			out, err := c.at(i).signIn(testClient, testAppID, fmt.Sprintf("user%d", i), phone())
			if err != nil || out.Status != http.StatusOK {
				t.Errorf("%v, %v", out, err)
			}
			tokens[i] = out
		})
		time.Sleep(1200 * time.Millisecond) // the pool looks at what was idle for a second before it hands it out
		if err := own.Halt(sig); err != nil {
			t.Fatal(err)
		}
		if err := own.Resume(); err != nil {
			t.Fatal(err)
		}
		var failed failures
		parallel(len(tokens), func(i int) {
			node := c.at(i)
			out, err := node.try(http.MethodPost, node.Issuer+"/oauth2/token", refreshForm(tokens[i].str("refresh_token")), phone())
			if err != nil || out.Status != http.StatusOK {
				failed.add(fmt.Sprint(out, err))
			}
		})
		failed.report(t, "refreshes after a restart that nobody noticed")
	}
}
