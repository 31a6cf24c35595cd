package main

import (
	"strings"
	"testing"
)

// TestArguments: a wrong command line is answered by what is missing or too
// much, and where to read about it.
func TestArguments(t *testing.T) {
	const oneWho = "it takes no more than WHO, and there are 2 arguments; a value with spaces stands in quotes"
	for _, test := range []struct{ command, args, want string }{
		{"users import", "", "FILE is missing"},
		{"users import", "a b", "it takes no more than FILE, and there are 2 arguments; a value with spaces stands in quotes"},
		{"users show", "", "WHO is missing"},
		{"users show", "external:my id", oneWho},
		{"users disable", "", "WHO is missing"},
		{"users enable", "a b", oneWho},
		{"users erase", "--yes", "WHO is missing"},
		{"users export", "-o x", "WHO is missing"},
		{"users unbind", "--all", "WHO is missing"},
		{"users set-password", "", "WHO is missing"},
		{"users merge", "", "FROM and INTO are missing"},
		{"users merge", "a", "INTO is missing"},
		{"users merge", "a b c", "it takes no more than FROM and INTO, and there are 3 arguments; a value with spaces stands in quotes"},
		{"users list", "extra", "it takes no arguments, only flags"},
		{"users add", "ming secret", "it takes no arguments, only flags"},
		{"sessions list", "extra", "it takes no arguments, only flags"},
		{"sessions revoke", "a b", "it takes no more than [SID], and there are 2 arguments; a value with spaces stands in quotes"},
		{"backup", "", "FILE is missing"},
		{"compact", "now", "it takes no arguments, only flags"},
	} {
		code, out, errs := runCLI(t, append(strings.Fields(test.command), strings.Fields(test.args)...)...)
		want := "wxidp: " + test.command + ": " + test.want + "; see \"wxidp " + test.command + " --help\"\n"
		if code != 1 || out != "" || errs != want {
			t.Errorf("%s %s: code %d, %q, %q, want %q", test.command, test.args, code, out, errs, want)
		}
	}
	if code, _, errs := runCLI(t, "users", "show", ""); code != 1 || !strings.Contains(errs, "WHO is missing") {
		t.Errorf("an empty argument: code %d, %s", code, errs)
	}
	for _, list := range []string{"users", "sessions"} {
		if code, out, errs := runCLI(t, list, "list", "--limit", "-1"); code != 1 || out != "" || !strings.Contains(errs, "--limit is a number of lines, from 1") {
			t.Errorf("%s list: code %d, %s%s", list, code, out, errs)
		}
	}
}
