// Package pgtest starts a PostgreSQL of its own for tests and measurements, in a
// folder that is gone afterwards, unless it is to stay: it listens on a socket there and nowhere else.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a running PostgreSQL. Start makes it.
type Cluster struct {
	dir     string
	keeps   bool   // the folder, when it is stopped
	missing string // why there is none; "": there is
	command []string
	owner   *syscall.Credential // who runs it; nil: whoever runs the test
	process *os.Process
	ended   chan struct{} // closed when the process has ended

	mu    sync.Mutex
	free  []string // databases that nobody uses
	count int
}

const (
	template  = "wxidp_template"
	startWait = 60 * time.Second
)

// Start starts a PostgreSQL and prepares in it what every database begins as.
// Where it is not installed, tests that ask for a database are skipped; with
// CI=true that is an error.
func Start(prepare func(ctx context.Context, dsn string) error) (*Cluster, error) {
	initdb, err := program("initdb")
	if err != nil {
		if os.Getenv("CI") == "true" {
			return nil, err
		}
		fmt.Fprintln(os.Stderr, err)
		return &Cluster{missing: err.Error()}, nil
	}
	base := "/dev/shm" // tens of thousands of commits need not wear a disk out
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	return launch(initdb, base, []string{
		"fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0", "max_wal_size=128MB",
		"shared_buffers=32MB", "max_connections=150", "autovacuum=off", "jit=off",
	}, prepare)
}

// ErrMissing means that PostgreSQL is not installed.
var ErrMissing = errors.New("PostgreSQL is not installed")

// StartDurable starts a PostgreSQL with the settings that it comes with under
// the folder base, "" for the system's for temporary files, and prepares the
// database that DSN names. It may return ErrMissing.
func StartDurable(base string, prepare func(ctx context.Context, dsn string) error) (*Cluster, error) {
	initdb, err := program("initdb")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return launch(initdb, base, nil, prepare)
}

// StartKept starts a PostgreSQL in a folder that stays: with what is there from
// an earlier start, or else anew. Settings are added to those that it comes
// with. It may return ErrMissing.
func StartKept(dir string, settings []string, prepare func(ctx context.Context, dsn string) error) (*Cluster, error) {
	initdb, err := program("initdb")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, keeps: true}
	if err := c.start(initdb, settings, prepare); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func launch(initdb, base string, settings []string, prepare func(ctx context.Context, dsn string) error) (*Cluster, error) {
	dir, err := os.MkdirTemp(base, "wxidp-pg-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	if err := c.start(initdb, settings, prepare); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// program finds a program of PostgreSQL, which some systems keep out of PATH.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.EvalSymlinks(path)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("pgtest: %s is not installed: tests on PostgreSQL cannot run", name)
	}
	return found[len(found)-1], nil
}

func (c *Cluster) start(initdb string, settings []string, prepare func(ctx context.Context, dsn string) error) (err error) {
	if c.owner, err = owner(c.dir); err != nil {
		return err
	}
	data := filepath.Join(c.dir, "data")
	_, err = os.Stat(filepath.Join(data, "PG_VERSION"))
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		build := exec.Command(initdb, "-D", data, "-U", "wxidp", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
		build.Dir, build.SysProcAttr = c.dir, attributes(c.owner)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("initdb: %w: %s", err, out)
		}
	}
	c.command = []string{filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data, "-k", c.dir}
	for _, setting := range append([]string{"listen_addresses=", "timezone=UTC"}, settings...) {
		c.command = append(c.command, "-c", setting)
	}
	if err := c.Resume(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	if fresh {
		if err := c.exec(ctx, "postgres", `CREATE DATABASE `+template); err != nil {
			return err
		}
	}
	return prepare(ctx, c.dsn(template))
}

// owner returns who may run PostgreSQL, which refuses root: nil for whoever
// runs the test.
func owner(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		who, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}, os.Chown(dir, int(uid), int(gid))
}

// Resume starts the server and waits until it takes connections.
func (c *Cluster) Resume() error {
	server := exec.Command(c.command[0], c.command[1:]...)
	server.Dir, server.SysProcAttr = c.dir, attributes(c.owner)
	c.ended = make(chan struct{})
	if err := c.run(server); err != nil {
		close(c.ended)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	return c.await(ctx)
}

// Halt ends the server as a signal makes it: SIGINT cuts all connections in an
// orderly way, SIGQUIT is a crash. Resume must follow.
func (c *Cluster) Halt(sig syscall.Signal) error {
	if err := c.process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-time.After(20 * time.Second):
		return errors.New("pgtest: PostgreSQL does not end")
	}
}

// run starts the server on a thread of its own: with that thread, which is to
// say with this process, the server ends as well.
func (c *Cluster) run(server *exec.Cmd) error {
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		return err
	}
	server.Stdout, server.Stderr = log, log
	started, ended := make(chan error), c.ended
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()     // or the thread would end, and with it whatever else was started on it before
		defer func() { _ = log.Close() }() // nothing of it is kept
		err := server.Start()
		started <- err
		if err == nil {
			_ = server.Wait() // how it ended says nothing about the tests
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	c.process = server.Process
	return nil
}

func (c *Cluster) await(ctx context.Context) error {
	for {
		err := c.exec(ctx, "postgres", `SELECT 1`)
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("pgtest: PostgreSQL ended at once: %s", log)
		case <-ctx.Done():
			return fmt.Errorf("pgtest: PostgreSQL does not start: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Cluster) dsn(database string) string {
	return fmt.Sprintf("host=%s user=wxidp dbname=%s sslmode=disable", c.dir, database)
}

func (c *Cluster) exec(ctx context.Context, database, sql string) (err error) {
	conn, err := pgx.Connect(ctx, c.dsn(database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// Database returns the DSN of a database as it was prepared, which is the
// test's until its end.
func (c *Cluster) Database(t testing.TB) (dsn string) {
	t.Helper()
	if c.missing != "" {
		t.Skip(c.missing)
	}
	name, fresh := c.take()
	ctx := context.Background()
	if fresh {
		if err := c.exec(ctx, "postgres", `CREATE DATABASE `+name+` TEMPLATE `+template); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := c.empty(ctx, name); err != nil {
			t.Error(err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.free = append(c.free, name)
	})
	return c.dsn(name)
}

func (c *Cluster) take() (name string, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		name, c.free = c.free[n-1], c.free[:n-1]
		return name, false
	}
	c.count++
	return "wxidp_" + strconv.Itoa(c.count), true
}

// empty removes all rows but those that say which schema it is.
func (c *Cluster) empty(ctx context.Context, name string) (err error) {
	conn, err := pgx.Connect(ctx, c.dsn(name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var tables []string
	err = conn.QueryRow(ctx, `SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'schema%'`).Scan(&tables)
	if err != nil || len(tables) == 0 {
		return err
	}
	_, err = conn.Exec(ctx, `TRUNCATE `+strings.Join(tables, ", "))
	return err
}

// Files returns all bytes of a database's tables on disk, with the log of what
// was written.
func (c *Cluster) Files(t testing.TB, dsn string) (out []byte) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var oid uint32
	if _, err := conn.Exec(ctx, `CHECKPOINT`); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(ctx, `SELECT oid FROM pg_database WHERE datname = current_database()`).Scan(&oid); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{filepath.Join("base", fmt.Sprint(oid), "*"), filepath.Join("pg_wal", "0*")} {
		files, err := filepath.Glob(filepath.Join(c.dir, "data", pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			out = append(out, data...)
		}
	}
	return out
}

// DSN names the database that was prepared.
func (c *Cluster) DSN() string { return c.dsn(template) }

// Pid is the id of the server's first process.
func (c *Cluster) Pid() int { return c.process.Pid }

// Stop ends the server and removes its folder, unless that is to stay.
func (c *Cluster) Stop() error {
	if c == nil || c.dir == "" {
		return nil
	}
	var err error
	if c.process != nil {
		err = c.process.Signal(syscall.SIGINT) // a fast shutdown
		select {
		case <-c.ended:
			err = nil
		case <-time.After(60 * time.Second):
			err = errors.Join(err, c.process.Kill(), errors.New("pgtest: PostgreSQL did not end by itself"))
			<-c.ended
		}
	}
	if c.keeps {
		return err
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
