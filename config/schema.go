package config

import (
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

var (
	typeDuration = reflect.TypeFor[time.Duration]()
	typeSecret   = reflect.TypeFor[secret.String]()
	typePrefix   = reflect.TypeFor[netip.Prefix]()
)

// field is a key of a mapping, in the order of the struct.
type field struct {
	key   string
	index int
	typ   reflect.Type
}

// fields lists the keys of a section's type.
func fields(section reflect.Type) []field {
	var out []field
	for i := range section.NumField() {
		f := section.Field(i)
		if key := f.Tag.Get("mapstructure"); key != "-" && key != "" {
			out = append(out, field{key, i, f.Type})
		}
	}
	return out
}

// isSection reports whether a value of the type is a mapping of keys.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != typeSecret && t != typePrefix
}

// eachKey calls yield for every key below value that is not itself a section,
// with its path and present value.
func eachKey(value reflect.Value, path string, yield func(path string, v reflect.Value)) {
	for _, f := range fields(value.Type()) {
		v, p := value.Field(f.index), join(path, f.key)
		if isSection(f.typ) {
			eachKey(v, p, yield)
		} else {
			yield(p, v)
		}
	}
}

// envName is the environment variable that sets the key at path.
func envName(path string) string {
	return "WXIDP_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// suggest returns advice for an unknown key of a section: a close key of the
// same section, or the section where the key belongs.
func suggest(key string, section reflect.Type) string {
	var known []string
	for _, f := range fields(section) {
		known = append(known, f.key)
	}
	if guess := closest(key, known); guess != "" {
		return "did you mean " + guess + "?"
	}
	home := ""
	var search func(t reflect.Type, path string)
	search = func(t reflect.Type, path string) {
		for _, f := range fields(t) {
			if f.key == key && t != section && home == "" {
				home = path
			}
			switch {
			case isSection(f.typ):
				search(f.typ, join(path, f.key))
			case f.typ.Kind() == reflect.Slice && isSection(f.typ.Elem()):
				search(f.typ.Elem(), join(path, f.key)+"[]")
			}
		}
	}
	search(reflect.TypeFor[Config](), "")
	if home != "" {
		return "it belongs in " + home
	}
	return "known here: " + strings.Join(known, ", ")
}

// closest returns the known word that a typo of word most likely meant, or "".
func closest(word string, known []string) string {
	best, bestDistance := "", max(2, len(word)/4)+1
	for _, k := range known {
		if d := distance(word, k); d < bestDistance && d < len(k) {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
