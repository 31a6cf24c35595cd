package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"

	"github.com/spf13/viper"

	"github.com/wxidp/wxidp/internal/secret"
)

// Loaded is a configuration with where it came from.
type Loaded struct {
	Config *Config
	Path   string   // the config file, absolute
	Files  []string // the config file and every file read on its behalf, absolute, sorted

	// origin is a function because fmt prints what is in unexported fields,
	// behind a pointer too, and the environment holds secrets.
	origin func() origin
}

// origin is what a load went by.
type origin struct {
	env    []string
	states map[string]fileState // by absolute path
}

// Load reads and checks the config file at path. env is the environment in
// the form of [os.Environ]; it overrides keys and fills ${NAME} in secrets.
// An error is of type [Faults] and names everything that is wrong.
func Load(path string, env []string) (*Loaded, error) {
	loaded, _, err := load(path, env)
	return loaded, err
}

// load also returns, with an error too, the state of every file it read.
func load(path string, env []string) (*Loaded, map[string]fileState, error) {
	l := &loading{
		report: report{file: path, lines: map[string]int{}, env: map[string]string{}, bad: map[string]bool{}},
		env:    environment(env),
		states: map[string]fileState{},

		secretKeys: map[string]string{},
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		l.addLine(0, "", "the working directory is gone", "name the config file by its full path")
		return nil, l.states, l.err()
	}
	l.dir = filepath.Dir(absolute)

	data, state, problem := readFile(absolute, maxConfigFile)
	l.states[absolute] = state
	if problem != "" {
		l.addLine(0, "", problem, "wxidp init writes a new one")
		return nil, l.states, l.err()
	}
	l.inlineSecrets = state.private()

	c := l.decode(data)
	if c == nil {
		return nil, l.states, l.err()
	}
	l.anySecretMode = c.Insecure.AllowWorldReadableSecrets
	l.resolve(c)
	l.validate(c)
	if err := l.err(); err != nil {
		return nil, l.states, err
	}
	from := origin{env, l.states}
	return &Loaded{Config: c, Path: absolute, Files: sortedKeys(l.states), origin: func() origin { return from }}, l.states, nil
}

// MasterKeys returns the text of the master keys, from WXIDP_MASTER_KEY or
// else from the file master_key_file, which must be as private as any secret.
// Nothing is ever generated here.
func (l *Loaded) MasterKeys() (secret.String, error) {
	if text := environment(l.origin().env)[envMasterKey]; text != "" {
		return secret.New(text), nil
	}
	if l.Config.MasterKeyFile == "" {
		return secret.String{}, errors.New("there is no master key: set master_key_file or " + envMasterKey)
	}
	value, _, problem, fix := readSecret(l.Config.MasterKeyFile, l.Config.Insecure.AllowWorldReadableSecrets)
	if problem != "" {
		return secret.String{}, fmt.Errorf("master_key_file: %s; %s; wxidp init writes a new one, which opens nothing that an older one sealed", problem, fix)
	}
	return value, nil
}

// loading is the state of one run of load.
type loading struct {
	report
	env           map[string]string
	dir           string // folder of the config file
	inlineSecrets bool   // the config file is private
	anySecretMode bool
	states        map[string]fileState
	secretKeys    map[string]string // by client: the path of its first secret
}

// decode lays the file over the defaults and the environment over both. It
// returns nil where there is nothing that further checks could look at.
func (l *loading) decode(data []byte) *Config {
	root := parseYAML(&l.report, data)
	if len(l.faults) > 0 {
		return nil
	}
	file := map[string]any{}
	if root != nil {
		file = l.section(root, reflect.TypeFor[Config](), "")
	}
	overrides := l.overrides(l.env, root)

	// A viper of its own for every load: the one that watches a file by
	// itself empties the configuration while a file is half-written.
	v := viper.New()
	eachKey(reflect.ValueOf(Default()).Elem(), "", func(path string, value reflect.Value) {
		v.SetDefault(path, value.Interface())
	})
	if err := v.MergeConfigMap(file); err != nil {
		l.addLine(0, "", "cannot be merged with the defaults", "")
		return nil
	}
	// Set, not BindEnv: it takes the environment that was passed in, typed
	// and checked already.
	for path, value := range overrides {
		v.Set(path, value)
	}
	c := &Config{}
	if err := v.UnmarshalExact(c); err != nil {
		l.addLine(0, "", "does not fit the configuration", "") // the error repeats values
		return nil
	}
	return c
}
