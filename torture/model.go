package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// runModel runs the contract's random operations against the reference model
// of storage/storagetest, for millions of steps, on every engine.
func runModel(ctx context.Context, t *Trial) error {
	engines := []struct {
		name  string
		steps int
	}{
		{"bolt", t.Size(1_000_000, 50_000_000)},
		{"postgres", t.Size(20_000, 2_000_000)},
	}
	for _, engine := range engines {
		if engine.name == "postgres" && !havePostgres() {
			if os.Getenv("CI") == "true" {
				return fmt.Errorf("PostgreSQL is not installed")
			}
			t.Note("postgres SKIPPED: it is not installed")
			continue
		}
		begin := time.Now()
		seed := t.Rand.IntN(1<<30) + 1
		cmd := exec.CommandContext(ctx, "go", "test", "./storage/"+engine.name, "-run", "^TestContractInBubble$/^Model$", "-count=1", "-timeout=24h", "-v")
		cmd.Dir = t.Source
		cmd.Env = append(os.Environ(), "WXIDP_MODEL_STEPS="+strconv.Itoa(engine.steps), "WXIDP_MODEL_SEED="+strconv.Itoa(seed))
		// What is tested is what the engine decides; power cuts are another scenario.
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && engine.name == "bolt" {
			cmd.Env = append(cmd.Env, "TMPDIR=/dev/shm")
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fail("%s, seed %d: %v\n%s", engine.name, seed, err, out[max(0, len(out)-3000):])
			continue
		}
		if !bytes.Contains(out, []byte("--- PASS: TestContractInBubble/Model")) {
			t.Fail("%s: the model did not run:\n%s", engine.name, out[max(0, len(out)-3000):])
			continue
		}
		t.Note("%s: %s steps in %.0f s", engine.name, thousands(engine.steps), time.Since(begin).Seconds())
	}
	return ctx.Err()
}

// havePostgres reports whether PostgreSQL's programs are there; Debian keeps
// them out of PATH.
func havePostgres() bool {
	if _, err := exec.LookPath("initdb"); err == nil {
		return true
	}
	found, _ := os.ReadDir("/usr/lib/postgresql")
	return len(found) > 0
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	var parts []string
	for len(text) > 3 {
		parts = append([]string{text[len(text)-3:]}, parts...)
		text = text[:len(text)-3]
	}
	return strings.Join(append([]string{text}, parts...), ",")
}
