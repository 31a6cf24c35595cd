package main

import (
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPatchesFit: whoever changes the code that a wrong server is made of
// learns it here, not only when the rig runs.
func TestPatchesFit(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]patch{"clock": clockPatches(filepath.Join(strings.TrimSpace(string(root)), "src", "time"))}
	all["postgres"] = databasePatches
	for _, b := range brokenBuilds() {
		all[b.name] = b.patches
	}
	for name, patches := range all {
		texts, err := patched("..", patches)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for file, text := range texts {
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestPatchesThatDoNotFit(t *testing.T) {
	for name, p := range map[string]patch{
		"a text that is gone":      {"torture/broken.go", "no such" + " text", ""},
		"a text that stands twice": {"torture/broken.go", "return", ""},
		"a file that is not there": {"torture/nothing.go", "package", ""},
	} {
		if _, err := patched("..", []patch{p}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
