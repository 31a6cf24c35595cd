package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/secret"
)

// TestExecModes: modes that could not send what is stored are refused at the
// start, and not with the first request.
func TestExecModes(t *testing.T) {
	for mode, want := range map[string]error{
		"":                nil,
		"cache_statement": nil,
		"cache_describe":  nil,
		"exec":            errExecMode,
		"simple_protocol": errExecMode,
	} {
		dsn := "postgres://wxidp@db.example/wxidp"
		if mode != "" {
			dsn += "?default_query_exec_mode=" + mode
		}
		config, err := poolConfig(Options{DSN: secret.New(dsn)})
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", mode, err, want)
		}
		if mode == "cache_describe" && err == nil && config.ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheDescribe {
			t.Errorf("%q is not what connections use", mode)
		}
	}
}
