package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// patch replaces a text that stands once in a source file, by its path within
// the module or an absolute one. Without an old text it adds the file.
type patch struct{ file, old, new string }

// build is a server that is made wrong on purpose, to see whether the rig finds
// out, or one with a clock that can be moved. Nothing of it exists in the
// sources: the patched files live in a temporary folder and reach the compiler
// through an overlay.
type build struct {
	name    string
	what    string
	patches []patch
	// catch runs a fault on the wrong server and returns what it broke.
	catch func(ctx context.Context, t *Trial, binary string) ([]Violation, error)
	rules []string // of which at least one must have been found broken
}

// brokenBuilds are the faults that the rig must be able to find.
func brokenBuilds() []build {
	return []build{
		{"nosync", "commits do not wait for the disk", []patch{
			{"storage/bolt/open.go", "FreelistType:   bbolt.FreelistMapType,", "FreelistType:   bbolt.FreelistMapType, NoSync: true,"},
		}, catchByPowerCuts, []string{"R1", "R2", "R4", "R5"}},
		{"early", "answers leave before their commit", []patch{
			{"storage/bolt/committer.go", "\tif err := c.commit(tx); err != nil {\n", "\tfor _, op := range ops {\n\t\tclose(op.done)\n\t}\n\ttime.Sleep(2 * time.Millisecond)\n\tif err := c.commit(tx); err != nil {\n"},
			{"storage/bolt/committer.go", "\t\t\t\tclose(op.done)\n\t\t\t}\n\t\t\treturn\n", "\t\t\t\tselect {\n\t\t\t\tcase <-op.done:\n\t\t\t\tdefault:\n\t\t\t\t\tclose(op.done)\n\t\t\t\t}\n\t\t\t}\n\t\t\treturn\n"},
		}, catchByLoad, []string{"R1", "R2"}},
		{"consume", "a code is looked at in one operation and used up in another", []patch{
			{"storage/bolt/codes.go", "\terr = s.write(ctx, func(tx txn) (bool, error) {\n\t\tres = storage.RedeemResult{Verdict: storage.RedeemMissing}\n\t\tcode, stored, err := getCode(tx, in.Code)\n",
				"\tvar seen storage.CodeRecord\n\tvar there bool\n\tif err = s.read(ctx, func(tx txn) (err error) { seen, there, err = getCode(tx, in.Code); return err }); err != nil {\n\t\treturn res, err\n\t}\n" +
					"\terr = s.write(ctx, func(tx txn) (bool, error) {\n\t\tres = storage.RedeemResult{Verdict: storage.RedeemMissing}\n\t\tcode, stored, err := seen, there, error(nil)\n"},
		}, catchByLoad, []string{"R3"}},
		{"rotate", "a rotation compares in one operation and sets in another", []patch{
			{"storage/bolt/families.go", rotateBegins, rotateReadsFirst + "\t\tres = storage.RotateResult{Verdict: storage.RotateMissing}\n\t\tfamily, found, err := seen, there, error(nil)\n"},
		}, catchByLoad, []string{"R1", "R2", "R3", "R5"}},
		{"revocation", "a revocation is looked for outside of the rotation's operation", []patch{
			{"storage/bolt/families.go", rotateBegins, rotateReadsFirst + "\t\tres = storage.RotateResult{Verdict: storage.RotateMissing}\n\t\tfamily, found, err := getFamily(tx, in.FamilyID)\n" +
				"\t\t_, family.RevokedAt, family.RevokedFor = there, seen.RevokedAt, seen.RevokedFor\n"},
		}, catchByLoad, []string{"R2", "R5"}},
		{"reuse", "the reuse of a refresh token ends nothing", []patch{
			{"storage/judge.go", "\tf.RevokedAt, f.RevokedFor = now, RevokedForReuse\n", ""},
		}, catchByLoad, []string{"R2"}},
	}
}

const (
	rotateBegins     = "\terr := s.write(ctx, func(tx txn) (bool, error) {\n\t\tres = storage.RotateResult{Verdict: storage.RotateMissing}\n\t\tfamily, found, err := getFamily(tx, in.FamilyID)\n"
	rotateReadsFirst = "\tvar seen storage.Family\n\tvar there bool\n\terr := s.read(ctx, func(tx txn) (err error) { seen, there, err = getFamily(tx, in.FamilyID); return err })\n" +
		"\tif err != nil {\n\t\treturn res, err\n\t}\n\terr = s.write(ctx, func(tx txn) (bool, error) {\n"
)

// buildPatched compiles the server with patches and returns its path. A patch
// whose text is not there once is an error: the code has changed, and the
// patch would no longer do what it says.
func (t *Trial) buildPatched(ctx context.Context, name string, patches []patch) (string, error) {
	source, err := filepath.Abs(t.Source)
	if err != nil {
		return "", err
	}
	folder := filepath.Join(t.Folder, "build-"+name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	texts, err := patched(source, patches)
	if err != nil {
		return "", fmt.Errorf("the build %q: %w", name, err)
	}
	replace := map[string]string{}
	for file, text := range texts {
		path := filepath.Join(folder, strings.Trim(strings.ReplaceAll(filepath.ToSlash(file), "/", "-"), "-"))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
		replace[absolute(source, file)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlayPath, binary := filepath.Join(folder, "overlay.json"), filepath.Join(folder, "wxidp")
	if err := os.WriteFile(overlayPath, overlay, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-overlay", overlayPath, "-o", binary, "./cmd/wxidp")
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the build %q: %w\n%s", name, err, out)
	}
	return binary, nil
}

// patched returns the files that patches change, after the change.
func patched(source string, patches []patch) (map[string][]byte, error) {
	texts := map[string][]byte{}
	for _, p := range patches {
		text, ok := texts[p.file]
		if p.old == "" {
			texts[p.file] = []byte(p.new)
			continue
		}
		if !ok {
			var err error
			if text, err = os.ReadFile(absolute(source, p.file)); err != nil {
				return nil, err
			}
		}
		if n := bytes.Count(text, []byte(p.old)); n != 1 {
			return nil, fmt.Errorf("%s has the text that a patch replaces %d times: %q", p.file, n, p.old)
		}
		texts[p.file] = bytes.Replace(text, []byte(p.old), []byte(p.new), 1)
	}
	return texts, nil
}

func absolute(source, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(source, filepath.FromSlash(file))
}

// runBroken runs servers that are wrong, each of which must be caught.
func runBroken(ctx context.Context, t *Trial) error {
	for _, b := range brokenBuilds() {
		binary, err := t.buildPatched(ctx, b.name, b.patches)
		if err == nil {
			err = t.mustCatch(ctx, b, binary)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mustCatch runs a wrong server up to three times, until it is caught.
func (t *Trial) mustCatch(ctx context.Context, b build, binary string) error {
	const tries = 3
	caught := ""
	begin := time.Now()
	for try := 0; try < tries && caught == ""; try++ {
		found, err := b.catch(ctx, t, binary)
		if err != nil && t.skipped == "" {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if t.skipped != "" {
			break
		}
		for _, v := range found {
			if slices.Contains(b.rules, v.Rule) {
				caught = v.Rule
				break
			}
		}
	}
	switch {
	case t.skipped != "":
		t.Note("%s SKIPPED: %s", b.name, t.skipped)
		t.skipped = ""
	case caught == "":
		t.Fail("the rig does not see that %s (%s)", b.what, b.name)
	default:
		t.Note("%s caught by %s after %.1f s", b.name, caught, time.Since(begin).Seconds())
	}
	return nil
}

// subFolder is a folder of its own for one of several rigs of a trial.
func (t *Trial) subFolder(name string) (string, error) { return os.MkdirTemp(t.Folder, name+"-") }

// catchByLoad lets clients work on a server.
func catchByLoad(ctx context.Context, t *Trial, binary string) ([]Violation, error) {
	folder, err := t.subFolder("load")
	if err != nil {
		return nil, err
	}
	r, err := t.NewRig(RigOptions{Dir: folder, Binary: binary})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := r.StartAll(ctx); err != nil {
		return nil, err
	}
	load := NewLoad(r, 8, t.Rand.Uint64())
	if err := load.Prepare(ctx); err != nil {
		return nil, err
	}
	load.RunFor(ctx, 4*time.Second)
	load.Probe(30)
	return Check(r.History, standardRules), nil
}
