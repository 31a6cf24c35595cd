package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
)

const (
	onBolt = "storage: { driver: bolt, bolt: { path: data/wxidp.db } }"
)

// house is a server that moves between a data file and a database.
type house struct {
	*testServer
	database string // DSN
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{database: newDatabase(t)}
	h.testServer = prepareServer(t, withConfig(func(yaml string) string { return strings.Replace(yaml, "STORAGE", onBolt, 1) }))
	h.writeFile("secrets/dsn", h.database+"\n")
	return h
}

// bare empties the database even of its schema.
func (h *house) bare() {
	h.t.Helper()
	dsn := h.database
	execute(h.t, dsn, `CREATE SCHEMA bare`)
	h.t.Cleanup(func() { execute(h.t, dsn, `DROP SCHEMA bare CASCADE`) })
	h.database += " search_path=bare"
	h.writeFile("secrets/dsn", h.database+"\n")
}

func (h *house) onPostgres() string {
	return "storage: { driver: postgres, postgres: { dsn_file: secrets/dsn } }"
}

// toPostgres is what moves from the data file to the database.
func (h *house) toPostgres() []string {
	return []string{"--from", "bolt:" + filepath.Join(h.Dir, "data", "wxidp.db"), "--to", "postgres:@" + filepath.Join(h.Dir, "secrets", "dsn")}
}

func (h *house) migrate(args ...string) (code int, out, errs string) {
	h.t.Helper()
	return runCLI(h.t, slices.Concat([]string{"migrate", "data", "--config", h.ConfigPath()}, args)...)
}

func (h *house) mustMigrate(args ...string) string {
	h.t.Helper()
	code, out, errs := h.migrate(args...)
	if code != 0 {
		h.t.Fatalf("migrate data %v: %d, %s%s", args, code, out, errs)
	}
	return out
}

// wantRefusal fails unless the command line fails and says so.
func (h *house) wantRefusal(says string, args ...string) {
	h.t.Helper()
	if code, out, errs := h.migrate(args...); code != 1 || !strings.Contains(errs, says) {
		h.t.Errorf("migrate data %v: %d, %s%s; want %q", args, code, out, errs, says)
	}
}

func (h *house) wantNoStart(says string) {
	h.t.Helper()
	if err := h.startErr(); err == nil || !strings.Contains(err.Error(), says) {
		h.t.Errorf("the server starts, or says %v; want %q", err, says)
	}
}

// TestMigrateData moves a house to a database and back, with people in it.
func TestMigrateData(t *testing.T) {
	h := newHouse(t)
	h.bare()
	h.start()
	tokens := h.SignIn("alice")
	kids := signingKeys(h.testServer)
	ended := signIn(h.testServer, "bob")
	revoke(h.testServer, ended.str("refresh_token"))
	h.wantRefusal("another process holds the file", h.toPostgres()...)
	h.rehearse()
	h.stop()

	// To the database.
	out := h.mustMigrate(h.toPostgres()...)
	for _, want := range []string{"users", "families", "SHA-256", "read back"} {
		if !strings.Contains(out, want) {
			t.Errorf("it says nothing of %s:\n%s", want, out)
		}
	}
	h.wantNoStart("it was moved to postgres:")
	h.editConfig(onBolt, h.onPostgres())
	h.start()
	tokens = h.lives(tokens, kids, "in the database")
	refused(t, refresh(h.testServer, ended.str("refresh_token")), http.StatusBadRequest, "invalid_grant")
	h.wantRefusal("in use", "--from", "config", "--to", "bolt:"+filepath.Join(h.Dir, "data", "other.db"))
	h.stop()

	// And back, to another file: the first one is taken.
	h.wantRefusal("itself moved", "--from", "config", "--to", "bolt:"+filepath.Join(h.Dir, "data", "wxidp.db"))
	var moved movedData
	raw := h.mustMigrate("--json", "--from", "config", "--to", "bolt:"+filepath.Join(h.Dir, "data", "back.db"))
	if err := json.Unmarshal([]byte(raw), &moved); err != nil || moved.Rows == 0 || moved.Resumed || len(moved.Kinds) != len(storage.RowKinds()) || len(moved.Kinds[0].SHA256) != 64 {
		t.Errorf("%s, %v", raw, err)
	}
	if strings.Contains(raw, "user=") || !strings.HasPrefix(moved.From, "postgres:/") {
		t.Errorf("the database is called %s", moved.From)
	}
	h.wantNoStart("it was moved to bolt:")
	h.editConfig(h.onPostgres(), strings.Replace(onBolt, "wxidp.db", "back.db", 1))
	h.start()
	h.lives(tokens, kids, "back in a file")
}

// rehearse moves a backup of the running server.
func (h *house) rehearse() {
	h.t.Helper()
	backup := filepath.Join(h.Dir, "rehearsal", "wxidp.db")
	if err := os.Mkdir(filepath.Dir(backup), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if code, out, errs := runCLI(h.t, "backup", backup, "--config", h.ConfigPath()); code != 0 {
		h.t.Fatalf("backup: %d, %s%s", code, out, errs)
	}
	h.writeFile("secrets/rehearsal-dsn", newDatabase(h.t)+"\n")
	h.mustMigrate("--from", "bolt:"+backup, "--to", "postgres:@"+filepath.Join(h.Dir, "secrets", "rehearsal-dsn"))
}

// lives holds that everybody is who they were, and returns the newest tokens.
func (h *house) lives(tokens answer, kids []string, where string) answer {
	h.t.Helper()
	if got := signingKeys(h.testServer); !slices.Equal(got, kids) {
		h.t.Errorf("%s: keys %v, before the move %v", where, got, kids)
	}
	if !userInfoOK(h.testServer, tokens.str("access_token")) {
		h.t.Errorf("%s: an access token of before is refused", where)
	}
	next := refresh(h.testServer, tokens.str("refresh_token"))
	if next.Status != http.StatusOK {
		h.t.Fatalf("%s: refresh: %v", where, next)
	}
	again := h.SignIn("alice")
	if a, b := claims(h.t, again.str("access_token"))["sub"], claims(h.t, tokens.str("access_token"))["sub"]; a != b {
		h.t.Errorf("%s: alice is %v and was %v", where, a, b)
	}
	return next
}

// signingKeys are the ids of all published keys.
func signingKeys(s *testServer) (kids []string) {
	s.t.Helper()
	out := s.Do(http.MethodGet, s.Issuer+"/.well-known/jwks.json", nil)
	list, _ := out.JSON["keys"].([]any)
	for _, key := range list {
		kids = append(kids, key.(map[string]any)["kid"].(string))
	}
	if len(kids) == 0 {
		s.t.Fatalf("no keys: %v", out)
	}
	slices.Sort(kids)
	return kids
}

// TestMigrateDataIsResumed ends a move at different moments, once as Ctrl-C and
// otherwise as kill -9 does, and runs it again. Meanwhile neither end is served.
func TestMigrateDataIsResumed(t *testing.T) {
	h := newHouse(t)
	h.start()
	tokens := h.SignIn("alice")
	kids := signingKeys(h.testServer)
	h.stop()
	users := h.crowd(120_000)
	for _, rows := range []int{1, users / 3, 2 * users / 3} {
		c := startChild(t, "", slices.Concat([]string{"migrate", "data", "--config", h.ConfigPath()}, h.toPostgres())...)
		eventually(t, fmt.Sprintf("%d users have moved", rows), func() bool { return c.Gone() || h.count(`SELECT count(*) FROM users`) >= rows })
		if rows == users/3 {
			c.Signal(os.Interrupt)
			if code := c.ExitCode(); code != 1 || !strings.Contains(c.Stderr.String(), "interrupted; run the same command again") {
				t.Errorf("interrupted: %d, %s", code, c.Stderr)
			}
		} else {
			c.Kill()
		}
		if c.ExitCode() == 0 {
			t.Fatalf("the move was over before %d users of %d were there: %s", rows, users, c.Stdout)
		}
		h.wantNoStart("is not complete")
		h.editConfig(onBolt, h.onPostgres())
		h.wantNoStart("is not complete")
		h.editConfig(h.onPostgres(), onBolt)
	}
	h.wantRefusal("is itself the destination of a move", "--from", "postgres:@"+filepath.Join(h.Dir, "secrets", "dsn"), "--to", "bolt:"+filepath.Join(h.Dir, "data", "back.db"))
	var moved movedData
	raw := h.mustMigrate(append(h.toPostgres(), "--json")...)
	if err := json.Unmarshal([]byte(raw), &moved); err != nil || !moved.Resumed || moved.Rows < int64(users) {
		t.Errorf("%s, %v", raw, err)
	}
	if n := h.count(`SELECT count(*) FROM users`); n != users+1 {
		t.Errorf("%d users, want %d", n, users+1)
	}
	h.editConfig(onBolt, h.onPostgres())
	h.start()
	h.lives(tokens, kids, "after an interrupted move")
}

// crowd puts so many users into the data file and returns how many there are
// besides those that signed in.
func (h *house) crowd(n int) int {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.Dir, "data", "master.key"))
	if err != nil {
		h.t.Fatal(err)
	}
	keyring, err := seal.ParseKeyring(raw)
	if err != nil {
		h.t.Fatal(err)
	}
	store, err := bolt.Open(h.t.Context(), bolt.Options{Path: filepath.Join(h.Dir, "data", "wxidp.db"), Keyring: keyring})
	if err != nil {
		h.t.Fatal(err)
	}
	user := storage.EncodeUser(&storage.UserRecord{CreatedAt: time.Now(), UpdatedAt: time.Now(), Retired: true})
	for begin := 0; begin < n; begin += storage.MaxRows {
		var rows []storage.Row
		for i := range storage.MaxRows {
			rows = append(rows, storage.Row{Kind: storage.RowUser, Key: fmt.Appendf(nil, "user-%016d", begin+i), Value: user})
		}
		if err := store.ImportRows(h.t.Context(), rows); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *house) count(sql string) (n int) {
	h.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, h.database)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, sql).Scan(&n); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// TestMigrateDataRefuses: whatever would lose data is refused, and no secret
// is told.
func TestMigrateDataRefuses(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.SignIn("alice")
	h.stop()
	file, dsn := "bolt:"+filepath.Join(h.Dir, "data", "wxidp.db"), "postgres:@"+filepath.Join(h.Dir, "secrets", "dsn")
	before := h.dataSum()
	const password = "canary-dsn-password-41c8"
	t.Setenv("TEST_DSN_WITH_PASSWORD", "postgres://wxidp:"+password+"@127.0.0.1:1/wxidp?connect_timeout=2")
	h.writeFile("data/stranger.key", seal.GenerateKey()+"\n")
	h.writeFile("stranger.yaml", strings.Replace(h.Config(), "data/master.key", "data/stranger.key", 1))
	h.writeFile("secrets/open", h.database)
	if err := os.Chmod(filepath.Join(h.Dir, "secrets", "open"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		says string
		args []string
	}{
		{"--from is missing", []string{"--to", dsn}},
		{"--to is missing", []string{"--from", file}},
		{"there is no data file", []string{"--from", "bolt:" + filepath.Join(h.Dir, "nowhere.db"), "--to", dsn}},
		{"this is no storage", []string{"--from", "mysql://wxidp:" + password + "@db/wxidp", "--to", dsn}},
		{"has a password", []string{"--from", file, "--to", "postgres://wxidp:" + password + "@db/wxidp"}},
		{"has a password", []string{"--from", file, "--to", "postgres:host=db password=" + password}},
		{"127.0.0.1", []string{"--from", file, "--to", "postgres:env:TEST_DSN_WITH_PASSWORD"}},
		{"TEST_NOTHING is empty", []string{"--from", file, "--to", "postgres:env:TEST_NOTHING"}},
		{"other users can read", []string{"--from", file, "--to", "postgres:@" + filepath.Join(h.Dir, "secrets", "open")}},
		{"no such file", []string{"--from", file, "--to", "postgres:@" + filepath.Join(h.Dir, "secrets", "nothing")}},
		{"the DSN cannot be read", []string{"--from", file, "--to", "postgres:?"}},
		{"another process holds the file", []string{"--from", file, "--to", file}},
		{"another master key", []string{"--from", "config:" + filepath.Join(h.Dir, "stranger.yaml"), "--to", dsn}},
		{"another master key", []string{"--from", file, "--to", "config:" + filepath.Join(h.Dir, "stranger.yaml")}},
		{"needs no --to", []string{"--undo", "--from", file, "--to", dsn}},
		{"bears no mark", []string{"--undo", "--from", file}},
	} {
		code, out, errs := h.migrate(test.args...)
		if code != 1 || !strings.Contains(errs, test.says) || strings.Contains(out+errs, password) {
			t.Errorf("migrate data %v: %d, %s%s; want %q", test.args, code, out, errs, test.says)
		}
	}
	if h.dataSum() != before {
		t.Error("a refused move changed the source")
	}

	// A destination that holds something.
	execute(t, h.database, `INSERT INTO clients VALUES ('shop-mini', 1, now(), 'test')`)
	h.wantRefusal("the destination is not empty: it holds clients", "--from", file, "--to", dsn)
	execute(t, h.database, `DELETE FROM clients`)
	h.mustMigrate("--from", file, "--to", dsn)
	h.wantRefusal("has been moved already", "--from", file, "--to", dsn)

	// The way back without what was written since.
	if out := h.mustMigrate("--undo", "--from", file); !strings.Contains(out, "can be served again") {
		t.Error(out)
	}
	h.start()
	h.SignIn("alice")
}

// TestMigrateDataFindsDamage: what is not the same at the destination is found,
// and neither end is served until somebody decides.
func TestMigrateDataFindsDamage(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.SignIn("alice")
	h.stop()
	execute(t, h.database, `CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN NEW.record := set_byte(NEW.record, length(NEW.record) - 1, get_byte(NEW.record, length(NEW.record) - 1) # 1); RETURN NEW; END $$`)
	t.Cleanup(func() { execute(t, h.database, `DROP FUNCTION spoil CASCADE`) })
	execute(t, h.database, `CREATE TRIGGER spoil BEFORE INSERT ON identities FOR EACH ROW EXECUTE FUNCTION spoil()`)
	h.wantRefusal("verify the identities: the destination does not hold what the source does", h.toPostgres()...)
	h.wantNoStart("is not complete")
	h.wantRefusal("verify the identities", h.toPostgres()...)
	if out := h.mustMigrate("--undo", "--from", "config"); !strings.Contains(out, "was not complete") {
		t.Error(out)
	}
	h.start()
	h.SignIn("alice")
	h.stop()
	h.wantRefusal("empty the destination and begin anew", h.toPostgres()...)
}
