package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/wxidp/wxidp/internal/secret"
)

// syntaxError takes the line out of an error of the YAML parser. The rest of
// it may repeat what the file holds.
var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// harmlessSyntax are parser messages that repeat nothing of the file, with
// what to add to their line: the parser, unlike the scanner, counts from 0.
var harmlessSyntax = map[string]int{
	"did not find expected key":                                    1,
	"did not find expected '-' indicator":                          1,
	"did not find expected node content":                           1,
	"did not find expected ',' or '}'":                             1,
	"did not find expected ',' or ']'":                             1,
	"mapping values are not allowed in this context":               0,
	"block sequence entries are not allowed in this context":       0,
	"could not find expected ':'":                                  0,
	"found character that cannot start any token":                  0,
	"found a tab character that violates indentation":              0,
	"found a tab character where an indentation space is expected": 0,
	"found unexpected end of stream":                               0,
	"found unknown escape character":                               0,
	"control characters are not allowed":                           0,
}

// parseYAML returns the one mapping of a config file, nil for an empty file.
func parseYAML(r *report, data []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = decoder.Decode(&second)
		if err == nil {
			r.addLine(second.Line, "", "a second YAML document", "put everything into one")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		line, problem := 1, "this is not valid YAML"
		if m := syntaxError.FindStringSubmatch(err.Error()); m != nil {
			offset, harmless := harmlessSyntax[m[2]]
			if n, err := strconv.Atoi(m[1]); err == nil {
				line = n + offset
			}
			if harmless {
				problem += ": " + m[2]
			}
		}
		r.addLine(line, "", problem, "look at this line and the one before it: indentation, quotes, colons; within [ ] and { } put ${NAME} in quotes")
		return nil
	}
	root := document.Content[0]
	if isNull(root) {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		r.addLine(root.Line, "", "the file must be a mapping of keys", "start with issuer: https://…")
		return nil
	}
	return root
}

// section turns a mapping into the values of a section's keys, each of the
// type its field wants, and reports what does not fit.
func (r *report) section(n *yaml.Node, t reflect.Type, path string) map[string]any {
	values := map[string]any{}
	seen := map[string]int{}
	known := fields(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, ok := fieldOf(known, key)
		if !ok {
			r.unknownKey(key, t, path)
			continue
		}
		p := join(path, f.key)
		if first, dup := seen[f.key]; dup {
			r.addLine(key.Line, p, "is given twice", fmt.Sprintf("line %d has it already", first))
			continue
		}
		seen[f.key] = key.Line
		if isNull(value) {
			continue // as if the key were absent
		}
		r.lines[p] = key.Line
		if v, ok := r.value(value, f.typ, p); ok {
			values[f.key] = v
		}
	}
	return values
}

func fieldOf(known []field, key *yaml.Node) (field, bool) {
	if key.Kind == yaml.ScalarNode {
		for _, f := range known {
			if f.key == key.Value {
				return f, true
			}
		}
	}
	return field{}, false
}

// printableKey is what an unknown key must look like to be repeated in a
// message: no random secret that slipped into its place does.
var printableKey = regexp.MustCompile(`^[A-Za-z_]{1,31}$`)

func (r *report) unknownKey(key *yaml.Node, t reflect.Type, path string) {
	switch {
	case len(r.faults) >= maxPrintedFaults: // nobody will read the advice
		r.addLine(key.Line, path, "unknown key", "")
	case key.Kind == yaml.ScalarNode && key.Value == "<<":
		r.addLine(key.Line, path, "merge keys are not supported", "write the keys out")
	case key.Kind == yaml.ScalarNode && printableKey.MatchString(key.Value):
		r.addLine(key.Line, path, fmt.Sprintf("unknown key %q", key.Value), suggest(strings.ToLower(key.Value), t))
	default:
		r.addLine(key.Line, path, "unknown key", suggest("", t))
	}
}

func (r *report) value(n *yaml.Node, t reflect.Type, path string) (any, bool) {
	if n.Kind == yaml.AliasNode {
		r.addUnread(n.Line, path, "YAML aliases are not supported", "write the value out")
		return nil, false
	}
	switch {
	case isSection(t):
		if n.Kind != yaml.MappingNode {
			r.addUnread(n.Line, path, "must be a section of keys", suggest("", t))
			return nil, false
		}
		return r.section(n, t, path), true
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			r.addUnread(n.Line, path, "must be a list", "write [a, b], or one - line per entry")
			return nil, false
		}
		return r.list(n, t.Elem(), path), true
	default:
		if n.Kind != yaml.ScalarNode {
			r.addUnread(n.Line, path, "must be a single value", "")
			return nil, false
		}
		v, problem, fix := scalar(n, t)
		if problem != "" {
			r.addUnread(n.Line, path, problem, fix)
			return nil, false
		}
		return v, true
	}
}

// list keeps the place of entries that could not be read, so that the others
// keep their numbers.
func (r *report) list(n *yaml.Node, t reflect.Type, path string) []any {
	list := make([]any, len(n.Content))
	for i, entry := range n.Content {
		p := item(path, i)
		r.lines[p] = entry.Line
		v, ok := any(nil), false
		if isNull(entry) {
			r.addUnread(entry.Line, p, "is empty", "")
		} else {
			v, ok = r.value(entry, t, p)
		}
		if !ok {
			v = zero(t)
		}
		list[i] = v
	}
	return list
}

func zero(t reflect.Type) any {
	if isSection(t) {
		return map[string]any{}
	}
	return reflect.Zero(t).Interface()
}

// scalar reads a value of the file as its field's type.
func scalar(n *yaml.Node, t reflect.Type) (v any, problem, fix string) {
	tag := n.ShortTag()
	switch {
	case t == typeDuration && tag == "!!int" && n.Value == "0":
		return time.Duration(0), "", ""
	case t == typeDuration && tag != "!!str", t.Kind() == reflect.Bool && tag != "!!bool", t.Kind() == reflect.Int && tag != "!!int":
		problem, fix = mustBe(t)
		return nil, problem, fix
	case (t == typeSecret || t == typePrefix || t.Kind() == reflect.String) && tag != "!!str":
		return nil, "must be text", "put it in quotes: YAML reads it as something else"
	case t.Kind() == reflect.String && strings.HasPrefix(n.Value, "${"):
		return nil, "takes no ${NAME}, only secrets do", "write the value; outside lists a WXIDP_ variable can set it"
	}
	return parse(n.Value, t)
}

// parse reads text as a value of type t. Its problem never repeats the text.
func parse(text string, t reflect.Type) (v any, problem, fix string) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return nil, "must be one line without control characters", ""
	}
	var err error
	switch {
	case t == typeDuration:
		v, err = time.ParseDuration(text)
	case t == typePrefix:
		v, err = netip.ParsePrefix(text)
	case t == typeSecret:
		v = secret.New(text)
	case t.Kind() == reflect.Bool:
		v, err = strconv.ParseBool(text)
	case t.Kind() == reflect.Int:
		v, err = strconv.Atoi(text)
	default:
		v = text
	}
	if err != nil {
		problem, fix = mustBe(t)
		return nil, problem, fix
	}
	return v, "", ""
}

func mustBe(t reflect.Type) (problem, fix string) {
	switch {
	case t == typeDuration:
		return "must be a duration with its unit", "write 90s, 15m or 720h (30 days)"
	case t == typePrefix:
		return "must be a network in CIDR form", "write 10.0.0.0/8, or 192.0.2.7/32 for one address"
	case t.Kind() == reflect.Bool:
		return "must be true or false", ""
	default:
		return "must be a whole number", "write it with digits only"
	}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
