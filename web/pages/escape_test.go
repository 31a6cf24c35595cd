package pages

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestThreat13MarkupIsEscaped puts markup and script addresses into every
// string that a page may be given.
func TestThreat13MarkupIsEscaped(t *testing.T) {
	for name, canary := range map[string]string{
		"element":   `<b id="canary">x</b><script>alert(1)</script>`,
		"attribute": `"'><img id="canary" src=x onerror=alert(1)>`,
		"address":   `javascript:alert(1)`,
		"spaced":    "\tjava\nscript:alert(1)",
		"data":      `data:text/html,<script>alert(1)</script>`,
		"template":  "{{.CSRF}}`${1}",
	} {
		t.Run(name, func(t *testing.T) {
			r, err := New("/id", Brand{Name: canary, PrivacyURI: canary, TermsURI: canary})
			if err != nil {
				t.Fatal(err)
			}
			methods := reflect.ValueOf(r)
			tried := 0
			for i := range methods.NumMethod() {
				method := methods.Method(i)
				if method.Type().NumIn() != 2 || method.Type().In(0) != reflect.TypeFor[Context]() {
					continue
				}
				view := reflect.New(method.Type().In(1)).Elem()
				fill(view, canary)
				ctx := Context{Lang: English, CSRF: canary, URL: canary}
				out := method.Call([]reflect.Value{reflect.ValueOf(ctx), view})
				if err, ok := out[1].Interface().(error); ok {
					t.Fatal(err)
				}
				harmless(t, method.Type().In(1).Name(), out[0].Bytes())
				tried++
			}
			if tried != 11 {
				t.Errorf("%d pages were tried", tried)
			}
		})
	}
}

// fill sets every string in a view but those that are declared safe.
func fill(v reflect.Value, canary string) {
	switch v.Kind() {
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() {
			v.SetString(canary)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), canary)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), canary)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), canary)
			}
		}
	}
}

func harmless(t *testing.T, page string, raw []byte) {
	t.Helper()
	doc := parse(t, raw)
	if byID(doc, "canary") != nil {
		t.Errorf("%s: markup came through:\n%s", page, raw)
	}
	if scripts := elements(doc, "script"); len(scripts) != 1 || !strings.HasPrefix(attr(scripts[0], "src"), "/id/assets/") {
		t.Errorf("%s has %d scripts", page, len(scripts))
	}
	for _, n := range elements(doc) {
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") {
				t.Errorf("%s: <%s %s>", page, n.Data, a.Key)
			}
			if a.Key == "href" || a.Key == "src" || a.Key == "action" {
				dangerous(t, page, n, a.Val)
			}
		}
	}
}

// dangerous reads an address as browsers do: without spaces and control
// characters in its scheme.
func dangerous(t *testing.T, page string, n *html.Node, address string) {
	t.Helper()
	address = strings.ToLower(strings.Map(func(r rune) rune {
		if r <= ' ' {
			return -1
		}
		return r
	}, address))
	for _, scheme := range []string{"javascript:", "data:text", "vbscript:"} {
		if strings.HasPrefix(address, scheme) {
			t.Errorf("%s: <%s> leads to %q", page, n.Data, address)
		}
	}
}

func TestHref(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://a.example/x?y=1#z": true, "http://127.0.0.1:8080/": true, "weixin://dl/business/?t=1": true,
		"com.example.app:/out": true, "com.example.app://x": true, "/account": true, "?lang=en": true,
		"": false, "javascript:alert(1)": false, "JavaScript:alert(1)": false, " javascript:alert(1)": false, "java\nscript:alert(1)": false,
		"data:text/html,x": false, "vbscript:x": false, "blob:https://a.example/1": false, "file:///etc/passwd": false, "//evil.example/": false, "/\\evil.example": false, "\\\\evil.example": false, "app:/x": false, "https:": false, "https:evil": false,
	} {
		if got := href(address); (got != "") != ok || got != "" && string(got) != address {
			t.Errorf("%q: %q", address, got)
		}
	}
}
