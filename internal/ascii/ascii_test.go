package ascii

import "testing"

func TestVisible(t *testing.T) {
	for s, want := range map[string]bool{
		"!": true, "~": true, "abcd": true, "": false, "abcde": false, " ": false, "a b": false,
		"a\n": false, "\x00": false, "\x7f": false, "é": false, "\xff": false,
	} {
		if got := Visible(s, 4); got != want {
			t.Errorf("Visible(%q, 4) = %t", s, got)
		}
	}
}
