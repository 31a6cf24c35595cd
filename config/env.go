package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const envPrefix = "WXIDP_"

// envMasterKey holds the master keys themselves, in place of master_key_file.
const envMasterKey = "WXIDP_MASTER_KEY"

// envElsewhere are variables that wxidp reads and that set no key.
var envElsewhere = []string{envMasterKey, "WXIDP_CONFIG"}

// envService matches what Kubernetes sets by itself in every pod of a
// namespace with a Service called wxidp or wxidp-something.
var envService = regexp.MustCompile(`^WXIDP_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// reference matches a secret that is taken from the environment. Only capitals,
// so that a secret which happens to look similar is not repeated in a message.
var reference = regexp.MustCompile(`^\$\{([A-Z_][A-Z0-9_]{0,127})\}$`)

// environment turns the form of os.Environ into a map.
func environment(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok {
			m[name] = value
		}
	}
	return m
}

// overrides returns the values that the environment sets, by path, and
// reports WXIDP_ variables that set nothing.
func (r *report) overrides(env map[string]string, root *yaml.Node) map[string]any {
	values := map[string]any{}
	taken := map[string]bool{}
	var known []string
	eachKey(reflect.ValueOf(Default()).Elem(), "", func(path string, v reflect.Value) {
		list := v.Kind() == reflect.Slice
		if list && isSection(v.Type().Elem()) {
			return // only the file can hold it
		}
		name := envName(path)
		known, taken[name] = append(known, name), true
		text := env[name]
		if text == "" {
			return
		}
		r.env[path] = name
		delete(r.bad, path)
		var value any
		var problem, fix string
		if list {
			value, problem, fix = parseList(text, v.Type().Elem())
		} else {
			value, problem, fix = parse(text, v.Type())
		}
		if problem != "" {
			r.addEnv(name, problem, fix)
			r.bad[path] = true
			return
		}
		values[path] = value
	})
	for _, name := range envElsewhere {
		taken[name] = true
	}
	eachReference(root, func(name string) { taken[name] = true })
	for _, name := range sortedKeys(env) {
		if strings.HasPrefix(name, envPrefix) && !taken[name] && !envService.MatchString(name) {
			r.addEnv(name, "sets no key", unknownEnvFix(name, known))
		}
	}
	return values
}

func unknownEnvFix(name string, known []string) string {
	if strings.HasPrefix(name, "WXIDP_CLIENTS") || strings.HasPrefix(name, "WXIDP_WECHAT_APPS") {
		return "clients and wechat.apps are set in the file; a secret in them may be ${NAME}"
	}
	if len(name) <= 80 {
		if guess := closest(name, known); guess != "" {
			return "did you mean " + guess + "?"
		}
	}
	return "remove it, or choose a name without " + envPrefix
}

func parseList(text string, t reflect.Type) (v any, problem, fix string) {
	var list []any
	for _, entry := range strings.Split(text, ",") {
		v, problem, fix := parse(strings.TrimSpace(entry), t)
		if problem != "" {
			return nil, "every entry, between commas, " + problem, fix
		}
		list = append(list, v)
	}
	return list, "", ""
}

// eachReference calls yield with the NAME of every ${NAME} below n.
func eachReference(n *yaml.Node, yield func(name string)) {
	if n == nil {
		return
	}
	if n.Kind == yaml.ScalarNode {
		if m := reference.FindStringSubmatch(n.Value); m != nil {
			yield(m[1])
		}
	}
	for _, child := range n.Content {
		eachReference(child, yield)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
