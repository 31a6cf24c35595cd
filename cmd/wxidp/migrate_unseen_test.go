package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/storage"
)

// TestMoveUnderAServer: a server that a move cannot see, as it goes by another
// name, does not go on with data that are elsewhere: what was revoked there
// would be good here.
func TestMoveUnderAServer(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.WriteConfig(strings.Replace(h.Config(), onBolt, `storage: { driver: postgres, postgres: { dsn: "`+h.database+` application_name=shop" } }`, 1))
	loaded, err := config.Load(h.ConfigPath(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- serve(ctx, loaded, serveOptions{
			logger: slog.New(slog.NewJSONHandler(h.Logs, nil)), level: new(slog.LevelVar), ready: func(*parts) { close(ready) },
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	h.mustMigrate("--from", "postgres:@"+h.Dir+"/secrets/dsn", "--to", "bolt:"+h.Dir+"/data/moved.db")
	select {
	case err := <-done:
		if !errors.Is(err, storage.ErrMoved) {
			t.Errorf("the server ended with %v", err)
		}
	case <-time.After(3 * lookMovedTimes * lookMovedEvery):
		t.Error("the server goes on with data that were moved")
		cancel()
		<-done
	}
}
