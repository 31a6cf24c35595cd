package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNoPrintedFormShowsTheValue(t *testing.T) {
	const canary = "canary-7f3a"
	s := New(canary)
	type inner struct{ S String }
	holder := struct {
		S       String
		P       *String
		private String
		pointer *inner
		Pointer *inner
		Map     map[string]String
	}{s, &s, s, &inner{s}, &inner{s}, map[string]String{"k": s}}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", holder)
	}
	raw, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(raw)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", s, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", s, "holder", holder)

	for _, form := range []string{canary, fmt.Sprintf("%x", canary)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("a printed form holds %q:\n%s", form, out.String())
		}
	}
	if s.Reveal() != canary || New("").Reveal() != "" {
		t.Error("Reveal lost the value")
	}
	if !New(canary).Equal(s) || New("other").Equal(s) || !New("").Equal(String{}) || New("").Equal(s) ||
		!New("").IsZero() || s.IsZero() {
		t.Error("secrets do not compare by value")
	}
}
