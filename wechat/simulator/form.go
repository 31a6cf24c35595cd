package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// form is the input of a control request: the query, and a body that is a JSON
// object or a form. Which of them it is shows in its first character, because
// curl -d calls both a form.
type form struct {
	values map[string][]string
	used   []string
	err    error // the first value that could not be read
}

func readForm(r *http.Request) (*form, error) {
	body, ok := readBody(r)
	if !ok {
		return nil, errors.New("the body cannot be read or has more than 64 KiB")
	}
	return parseForm(r.URL.RawQuery, body)
}

func parseForm(query string, body []byte) (*form, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the query is malformed")
	}
	f := &form{values: values}
	body = bytes.TrimSpace(body)
	var more url.Values
	if len(body) > 0 && body[0] == '{' {
		more, err = parseObject(body)
	} else if more, err = url.ParseQuery(string(body)); err != nil {
		err = errors.New("the body is neither a JSON object nor a form")
	}
	if err != nil {
		return nil, err
	}
	for name, v := range more {
		if _, twice := f.values[name]; twice {
			return nil, fmt.Errorf("%s is in the query and in the body", strconv.Quote(cut(name)))
		}
		f.values[name] = v
	}
	for name, v := range f.values {
		for _, text := range v {
			if !utf8.ValidString(name) || !utf8.ValidString(text) {
				return nil, errors.New("the input is not UTF-8")
			}
		}
	}
	return f, nil
}

// parseObject reads a JSON object of strings, numbers, booleans and arrays of strings.
func parseObject(body []byte) (url.Values, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var members map[string]any
	if err := d.Decode(&members); err != nil {
		return nil, errors.New("the body is not a JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	out := url.Values{}
	for name, v := range members {
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		out[name] = []string{}
		for _, item := range list {
			switch item := item.(type) {
			case string:
				out.Add(name, item)
			case json.Number:
				out.Add(name, item.String())
			case bool:
				out.Add(name, strconv.FormatBool(item))
			default:
				return nil, fmt.Errorf("%s is not a string, number, boolean or array of strings", strconv.Quote(cut(name)))
			}
		}
	}
	return out, nil
}

func (f *form) has(name string) bool { return len(f.values[name]) > 0 }

func (f *form) text(name string) string {
	f.used = append(f.used, name)
	switch v := f.values[name]; len(v) {
	case 0:
		return ""
	case 1:
		return v[0]
	}
	f.fail(name, "is given twice")
	return ""
}

// list takes repeated values and values with commas.
func (f *form) list(name string) []string {
	f.used = append(f.used, name)
	var out []string
	for _, v := range f.values[name] {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
	}
	if len(out) > 100 {
		f.fail(name, "has more than 100 items")
	}
	return out
}

func (f *form) flag(name string) bool {
	text := f.text(name)
	if text == "" {
		return false
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		f.fail(name, "is true or false")
	}
	return v
}

func (f *form) number(name string) int64 {
	text := f.text(name)
	if text == "" {
		return 0
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f.fail(name, "is a whole number")
	}
	return v
}

func (f *form) duration(name string) time.Duration {
	text := f.text(name)
	if text == "" {
		return 0
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		f.fail(name, "is a duration such as 300s or 5m")
	}
	return v
}

func (f *form) fail(name, why string) {
	if f.err == nil {
		f.err = errors.New(name + " " + why)
	}
}

// done returns the first fault of the input: a value that could not be read,
// or a name that nobody asked for.
func (f *form) done() error {
	if f.err != nil {
		return f.err
	}
	var unknown []string
	for name := range f.values {
		if !slices.Contains(f.used, name) {
			unknown = append(unknown, strconv.Quote(cut(name)))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	slices.Sort(f.used)
	return fmt.Errorf("%s is not known here; known: %s", unknown[0], strings.Join(f.used, ", "))
}

func (f *form) int(name string) int {
	v := f.number(name)
	if int64(int(v)) != v {
		f.fail(name, "is out of range")
	}
	return int(v)
}
