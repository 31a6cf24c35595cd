package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const controlPrefix = "/control/"

// result is the answer of a control request: a JSON value and, where one value
// is what a shell script wants, that value as text.
type result struct {
	value any
	text  string
}

type action func(*Simulator, *form) (result, error)

// actions returns all control requests, by path and method.
func actions() map[string]map[string]action {
	table := map[string]map[string]action{
		"login":              {"POST": login},
		"apps":               {"GET": listApps, "POST": putApp},
		"users":              {"GET": listUsers, "POST": putUser},
		"identity":           {"GET": identity},
		"session_key/rotate": {"POST": rotateSessionKey},
		"session_key/expire": {"POST": expireSessionKey},
		"codes/expire":       {"POST": expireCodes},
		"phone":              {"POST": givePhone},
		"opendata":           {"POST": giveOpenData},
		"event":              {"POST": pushEvent},
		"tokens/check":       {"GET": checkToken},
		"tokens/expire":      {"POST": expireTokens},
		"clock":              {"GET": clock, "POST": clock},
		"faults":             {"GET": listFaults, "POST": addFault, "DELETE": clearFaults},
		"requests":           {"GET": listRequests, "DELETE": clearRequests},
		"reset":              {"POST": resetAll},
	}
	table[""] = map[string]action{"GET": listActions(table)}
	return table
}

// Control returns the control side, which expects paths under /control/. It
// takes parameters from the query, a form or a JSON object, answers JSON, and a
// bare value where the request has Accept: text/plain or format=text.
func (s *Simulator) Control() http.Handler {
	table := actions()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, controlPrefix)
		methods := table[name]
		if !ok || methods == nil {
			writeError(w, http.StatusNotFound, errors.New("no such path; GET /control/ lists them"))
			return
		}
		act := methods[r.Method]
		if act == nil {
			allow := methodsOf(methods)
			w.Header().Set("Allow", strings.Join(allow, ", "))
			writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("use %s", strings.Join(allow, " or ")))
			return
		}
		f, err := readForm(r)
		if err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		format := f.text("format")
		if format != "" && format != "text" && format != "json" {
			f.fail("format", "is text or json")
		}
		out, err := act(s, f)
		if err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		if format == "text" || format == "" && r.Header.Get("Accept") == "text/plain" {
			writeText(w, out)
			return
		}
		writeJSON(w, http.StatusOK, out.value)
	})
}

func methodsOf(methods map[string]action) []string {
	var out []string
	for m := range methods {
		out = append(out, m)
	}
	slices.Sort(out)
	return out
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		http.Error(w, `{"error":"the answer cannot be written as JSON"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

func writeText(w http.ResponseWriter, out result) {
	if out.text == "" {
		writeError(w, http.StatusBadRequest, errors.New("this answer has no text form"))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(out.text + "\n"))
}

type okValue struct {
	OK bool `json:"ok"`
}

var done = result{value: okValue{true}, text: "ok"}

// outcome turns an error of the last step into the end of an action.
func outcome(err error) (result, error) {
	if err != nil {
		return result{}, err
	}
	return done, nil
}

func listActions(table map[string]map[string]action) action {
	return func(_ *Simulator, f *form) (result, error) {
		if err := f.done(); err != nil {
			return result{}, err
		}
		var paths []string
		for path := range table {
			paths = append(paths, path)
		}
		slices.Sort(paths)
		var lines []string
		for _, path := range paths {
			for _, m := range methodsOf(table[path]) {
				lines = append(lines, m+" "+controlPrefix+path)
			}
		}
		return result{value: map[string]any{"control": lines}, text: strings.Join(lines, "\n")}, nil
	}
}
