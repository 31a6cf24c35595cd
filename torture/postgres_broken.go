package main

import (
	"context"
	"os"
	"time"
)

// breakEnv names what a server of databaseBuilds does wrong.
const breakEnv = "TORTURE_BREAK"

// databasePatches make one server of which the environment says what it does
// wrong, because each build takes long.
var databasePatches = []patch{
	{"storage/postgres/torture_break.go", "", "package postgres\n\nimport (\n\t\"os\"\n\t\"time\"\n)\n\n" +
		"func breaks(name string) bool { return os.Getenv(\"" + breakEnv + "\") == name }\n\n" +
		"func linger() { time.Sleep(time.Millisecond) }\n"},
	// Many at once would hide what one does wrong.
	{"storage/postgres/families.go", "\treturn s.rotations.do(ctx, in, func() (storage.RotateResult, error) { return s.rotate(ctx, in) })\n",
		"\treturn s.rotate(ctx, in)\n"},
	{"storage/postgres/families.go", "\t\tvar row familyRow\n\t\terr := c.QueryRow(ctx, s.sql(rotateUsual), ",
		"\t\tvar row familyRow\n\t\tsql := rotateUsual\n" +
			"\t\tif breaks(\"rotate\") || breaks(\"revocation\") {\n" +
			"\t\t\tvar generation int64\n\t\t\tvar revoked *time.Time\n" +
			"\t\t\tif err := c.QueryRow(ctx, `SELECT generation, revoked_at FROM families WHERE id = $1`, [16]byte(in.FamilyID)).Scan(&generation, &revoked); err == nil {\n" +
			"\t\t\t\tlinger()\n" +
			"\t\t\t\tif breaks(\"rotate\") && generation == int64(in.Generation) {\n" +
			"\t\t\t\t\tsql = strings.Replace(sql, `f.generation = $3`, `f.generation >= $3`, 1)\n\t\t\t\t}\n" +
			"\t\t\t\tif breaks(\"revocation\") && revoked == nil {\n" +
			"\t\t\t\t\tsql = strings.Replace(strings.Replace(sql, `AND f.revoked_at IS NULL`, ``, 1), `SET generation`, `SET revoked_at = NULL, generation`, 1)\n\t\t\t\t}\n" +
			"\t\t\t}\n\t\t}\n\t\terr := c.QueryRow(ctx, s.sql(sql), "},
	{"storage/postgres/families.go", "import (\n", "import (\n\t\"strings\"\n"},
	{"storage/postgres/codes.go", "\t\tcode, stored, err := r.code(in.Code)\n",
		"\t\tcode, stored, err := r.code(in.Code)\n\t\tif breaks(\"consume\") {\n\t\t\tif seen == nil {\n\t\t\t\tseen = &code\n\t\t\t\tlinger()\n\t\t\t}\n\t\t\tcode = *seen\n\t\t}\n"},
	{"storage/postgres/codes.go", "\terr = s.decide(ctx, func(_ *storage.Draft, r *rows) (bool, error) {\n\t\tres = storage.RedeemResult{Verdict: storage.RedeemMissing}\n",
		"\tvar seen *storage.CodeRecord\n\terr = s.decide(ctx, func(_ *storage.Draft, r *rows) (bool, error) {\n\t\tres = storage.RedeemResult{Verdict: storage.RedeemMissing}\n"},
	{"storage/postgres/postgres.go", "\tconfig.MinConns = min(config.MinConns, config.MaxConns)\n",
		"\tconfig.MinConns = min(config.MinConns, config.MaxConns)\n\tif breaks(\"async\") {\n\t\tconfig.ConnConfig.RuntimeParams[\"synchronous_commit\"] = \"off\"\n\t}\n"},
}

// databaseBuilds are the faults on PostgreSQL that the rig must be able to find.
func databaseBuilds() []build {
	return []build{
		{"consume", "a code is looked at in one operation and used up in another", nil, catchOnDatabase("consume", 0), []string{"R3"}},
		{"rotate", "a rotation compares in one operation and sets in another", nil, catchOnDatabase("rotate", 0), []string{"R1", "R2", "R3", "R5"}},
		{"revocation", "a revocation is looked for outside of the rotation's operation", nil, catchOnDatabase("revocation", 0), []string{"R2", "R5"}},
		{"async", "commits do not wait for the disk of the database", nil, catchOnDatabase("async", 6), []string{"R1", "R2", "R4", "R5"}},
	}
}

// runDatabaseBroken runs servers that are wrong on PostgreSQL, each of which
// must be caught, and the same one without a fault, which must not be.
func runDatabaseBroken(ctx context.Context, t *Trial) error {
	binary, err := t.buildPatched(ctx, "postgres", databasePatches)
	if err != nil {
		return err
	}
	found, err := catchOnDatabase("nothing", 1)(ctx, t, binary)
	if err != nil {
		return err
	}
	t.judged(found)
	for _, b := range databaseBuilds() {
		if err := t.mustCatch(ctx, b, binary); err != nil {
			return err
		}
	}
	return nil
}

// catchOnDatabase lets clients work on two nodes that do something wrong, and
// PostgreSQL crash a number of times meanwhile.
func catchOnDatabase(wrong string, crashes int) func(ctx context.Context, t *Trial, binary string) ([]Violation, error) {
	return func(ctx context.Context, t *Trial, binary string) ([]Violation, error) {
		folder, err := t.subFolder(wrong)
		if err != nil {
			return nil, err
		}
		db, err := t.startDatabase(memoryFolder())
		if err != nil {
			return nil, err
		}
		defer func() { _ = db.Stop() }() // which is tried again at the end of the trial
		r, err := t.NewRig(RigOptions{Dir: folder, Binary: binary, Nodes: 2, Env: []string{breakEnv + "=" + wrong},
			Storage: func(*Node) string { return onDatabase(db.DSN()) }})
		if err != nil {
			return nil, err
		}
		defer r.Close()
		if _, err := r.StartAll(ctx); err != nil {
			return nil, err
		}
		load := NewLoad(r, 8, t.Rand.Uint64())
		load.Users = 200
		if err := load.Prepare(ctx); err != nil {
			return nil, err
		}
		guards, err := newGuards(ctx, r)
		if err != nil {
			return nil, err
		}
		load.RunFor(ctx, 3*time.Second)
		for i := 0; i < crashes && ctx.Err() == nil; i++ {
			if _, err := t.databaseRestart(ctx, r, db, load, guards); err != nil {
				// A server that has lost a guard's refresh never works for it again.
				return Check(r.History, standardRules), nil
			}
			load.Probe(20)
			if len(Check(r.History, standardRules)) > 0 {
				break
			}
		}
		load.Probe(30)
		return Check(r.History, standardRules), nil
	}
}

// memoryFolder is a folder in memory, where there is one: what a crash of
// PostgreSQL loses is the same there, and a start takes less time.
func memoryFolder() string {
	const folder = "/dev/shm"
	if info, err := os.Stat(folder); err == nil && info.IsDir() {
		return folder
	}
	return ""
}
