package wxidp_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wxidp/wxidp"

// mayImport says which packages of ours a package may import. A package that
// is not in the table fails the test; "…/*" stands for a folder's subpackages.
var mayImport = map[string][]string{
	"cmd/wxidp": {"config", "web", "web/pages", "provider", "grants", "accounts", "wechat", "wechat/simulator",
		"keys", "storage", "storage/bolt", "storage/postgres", "internal/*"},
	"web":                      {"web/pages", "provider", "accounts", "keys", "storage", "internal/*"},
	"web/pages":                {"internal/*"},
	"provider":                 {"grants", "accounts", "wechat", "keys", "storage", "internal/*"},
	"grants":                   {"accounts", "wechat", "storage", "internal/*"},
	"accounts":                 {"wechat", "storage", "internal/*"},
	"keys":                     {"internal/*"},
	"storage":                  {"internal/*"},
	"storage/bolt":             {"storage", "internal/*"},
	"storage/postgres":         {"storage", "internal/*"},
	"storage/postgres/pgtest":  {},
	"storage/storagetest":      {"storage", "internal/*"},
	"wechat":                   {"internal/*"},
	"wechat/simulator":         {"internal/*"},
	"config":                   {"internal/*"},
	"internal/admit":           {},
	"internal/ascii":           {},
	"internal/breaker":         {},
	"internal/secret":          {},
	"internal/seal":            {},
	"internal/limit":           {"internal/seal"},
	"internal/limit/limittest": {"internal/limit", "internal/seal"},
	"internal/outbound":        {},
	"torture":                  {"storage/postgres", "storage/postgres/pgtest", "wechat/simulator", "internal/*"},
	"bench":                    {"keys", "storage", "storage/bolt", "storage/postgres", "storage/postgres/pgtest", "wechat", "wechat/simulator", "internal/*"},
}

// onlyImporters says which packages may import a library, so that replacing it
// stays a change in one place.
var onlyImporters = map[string][]string{
	"github.com/ory/":               {"provider"},
	"github.com/go-jose/go-jose/v3": {"provider"},
	"github.com/go-jose/go-jose/v4": {"keys", "provider", "config", "bench"},
	"github.com/go-chi/chi/":        {"web"},
	"github.com/prometheus/":        {"web"},
	"github.com/spf13/viper":        {"config"},
	"github.com/spf13/cobra":        {"cmd/wxidp"},
	"go.etcd.io/bbolt":              {"storage/bolt", "bench"},
	"github.com/jackc/pgx/":         {"storage/postgres", "storage/postgres/pgtest", "bench", "torture"},
	"github.com/pressly/goose/":     {"storage/postgres"},
	"github.com/sony/gobreaker":     {"internal/breaker"},
	"github.com/boombuler/barcode":  {"web/pages"},
	"go.yaml.in/yaml/":              {"config"},
	"net/http/pprof":                {"web"},
	"github.com/coreos/go-oidc":     {},
	"golang.org/x/oauth2":           {},
	module + "/config":              {"cmd/wxidp"},
	module + "/wechat/simulator":    {"cmd/wxidp", "bench", "torture"},
}

// TestImports holds the layout: who may import whom.
func TestImports(t *testing.T) {
	for _, pkg := range listPackages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(pkg.ImportPath, module), "/")
		if name == "" {
			continue // this package has only tests
		}
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("%s is not in the table of mayImport: decide where it belongs", name)
			continue
		}
		for _, imported := range pkg.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !matches(allowed, ours) {
				t.Errorf("%s imports %s; it may import only %v", name, ours, allowed)
			}
			for library, importers := range onlyImporters {
				if strings.HasPrefix(imported, library) && !slices.Contains(importers, name) &&
					!strings.HasPrefix(imported, module+"/"+name) {
					t.Errorf("%s imports %s, which only %v may", name, imported, importers)
				}
			}
		}
	}
}

func matches(allowed []string, name string) bool {
	return slices.ContainsFunc(allowed, func(rule string) bool {
		folder, wild := strings.CutSuffix(rule, "*")
		return rule == name || wild && strings.HasPrefix(name, folder)
	})
}

type listed struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var pkg listed
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, pkg)
	}
}
