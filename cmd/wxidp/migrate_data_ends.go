package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
	"github.com/wxidp/wxidp/storage/postgres"
)

// moveTimeout is how long the database may take for one step of a move, such
// as to count a table's rows.
const moveTimeout = 5 * time.Minute

// dataEnd is an end of a move that is open.
type dataEnd struct {
	storage.MoveEnd
	close func() error
}

// endOpener opens what --from and --to name.
type endOpener struct {
	configPath string
}

// endPlace is what --from or --to means.
type endPlace struct {
	bolt     string        // path of the data file; "": a database
	dsn      secret.String //
	keyring  *seal.Keyring
	insecure bool // files may be readable by others
}

// source opens the storage to move from, which must exist.
func (o *endOpener) source(ctx context.Context, spec string) (*dataEnd, error) {
	place, err := o.place(spec)
	if err != nil {
		return nil, err
	}
	if place.bolt != "" {
		if _, err := os.Stat(place.bolt); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no data file %s", place.bolt)
		}
	}
	return place.open(ctx)
}

// destination opens the storage to move to, and makes it if there is none. The
// master keys there must open what is at the source.
func (o *endOpener) destination(ctx context.Context, spec string, from *dataEnd) (*dataEnd, error) {
	place, err := o.place(spec)
	if err != nil {
		return nil, err
	}
	if _, err := storage.OpenVault(ctx, from.Store, place.keyring); err != nil {
		return nil, fmt.Errorf("the master key there does not open the data of --from: %w", err)
	}
	end, err := place.open(ctx)
	if !errors.Is(err, postgres.ErrSchema) {
		return end, err
	}
	schema, statusErr := postgres.MigrateStatus(ctx, place.dsn)
	if statusErr != nil || schema.Version > 0 {
		return nil, err
	}
	if _, err := postgres.Migrate(ctx, place.dsn, nil); err != nil {
		return nil, fmt.Errorf("make the schema: %w", err)
	}
	return place.open(ctx)
}

// place reads what --from or --to says.
func (o *endOpener) place(spec string) (p endPlace, err error) {
	kind, rest, _ := strings.Cut(spec, ":")
	path := o.configPath
	if kind == "config" && rest != "" {
		path = rest
	}
	loaded, err := config.Load(path, os.Environ())
	if err != nil {
		return p, err
	}
	keys, err := loaded.MasterKeys()
	if err != nil {
		return p, err
	}
	if p.keyring, err = seal.ParseKeyring([]byte(keys.Reveal())); err != nil {
		return p, err
	}
	p.insecure = loaded.Config.Insecure.AllowWorldReadableSecrets
	switch {
	case kind == "config" && loaded.Config.Storage.Driver == config.DriverPostgres:
		p.dsn = loaded.Config.Storage.Postgres.DSN
	case kind == "config":
		p.bolt = loaded.Config.Storage.Bolt.Path
	case kind == "bolt" && rest != "":
		p.bolt, err = filepath.Abs(rest)
	case kind == "postgres" || kind == "postgresql":
		p.dsn, err = readDSN(spec, rest, p.insecure)
	default:
		// What it says may hold a password.
		err = errors.New("this is no storage; say config, config:FILE, bolt:FILE, postgres:@FILE, postgres:env:NAME or postgres:DSN")
	}
	return p, err
}

// readDSN reads the DSN that is named behind "postgres:", or is it.
func readDSN(spec, rest string, insecure bool) (secret.String, error) {
	if file, ok := strings.CutPrefix(rest, "@"); ok {
		return config.ReadSecret(file, insecure)
	}
	if name, ok := strings.CutPrefix(rest, "env:"); ok {
		if os.Getenv(name) == "" {
			return secret.String{}, fmt.Errorf("the environment variable %s is empty", name)
		}
		return secret.New(os.Getenv(name)), nil
	}
	dsn := secret.New(rest)
	if strings.HasPrefix(rest, "//") { // a URL
		dsn = secret.New(spec)
	}
	if postgres.HasPassword(dsn) {
		return secret.String{}, errors.New("this DSN has a password, which other users of this machine can see on the command line; " +
			"change it, put the DSN into a file with mode 0600, and say postgres:@FILE")
	}
	return dsn, nil
}

func (p *endPlace) open(ctx context.Context) (*dataEnd, error) {
	if p.bolt != "" {
		store, err := bolt.Open(ctx, bolt.Options{Path: p.bolt, Keyring: p.keyring, InsecurePermissions: p.insecure})
		if err != nil {
			return nil, err
		}
		return &dataEnd{storage.MoveEnd{Store: store, Name: "bolt:" + p.bolt}, store.Close}, nil
	}
	name, err := postgres.Describe(p.dsn)
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, postgres.Options{DSN: p.dsn, Keyring: p.keyring, Moving: true, MaxConns: 4, Timeout: moveTimeout})
	if err != nil {
		return nil, err
	}
	return &dataEnd{storage.MoveEnd{Store: store, Name: "postgres:" + name, Idle: store.Alone, Settle: store.Analyze}, store.Close}, nil
}
