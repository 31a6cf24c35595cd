package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skip(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return keyboard, terminal
}

// TestEraseAsks: on a terminal the id must be typed.
func TestEraseAsks(t *testing.T) {
	s := startServer(t, manyPhones())
	tokens := signIn(s, "alice")
	id := sub(t, tokens)
	keyboard, terminal := openTerminal(t)
	erase := func(in *os.File) (code int, errs string) {
		t.Helper()
		var out, stderr bytes.Buffer
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		root := rootCommand()
		root.SetArgs([]string{"users", "erase", id, "--socket", s.Socket()})
		root.SetIn(in)
		root.SetOut(&out)
		root.SetErr(&stderr)
		if err := root.ExecuteContext(ctx); err != nil {
			printError(&stderr, err)
			code = 1
		}
		return code, stderr.String()
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if code, errs := erase(null); code != 1 || !strings.Contains(errs, "say --yes, since there is nobody to ask") {
		t.Errorf("nobody to ask: code %d, %s", code, errs)
	}
	_, _ = io.WriteString(keyboard, "yes\n")
	if code, errs := erase(terminal); code != 1 || !strings.Contains(errs, "Type the id") || !strings.Contains(errs, "that is not the id") {
		t.Errorf("another word: code %d, %s", code, errs)
	}
	signedIn(s, "a wrong answer", tokens)
	_, _ = io.WriteString(keyboard, id+"\n")
	if code, errs := erase(terminal); code != 0 {
		t.Errorf("the id: code %d, %s", code, errs)
	}
	dead(s, "the erased user", tokens)
}

// TestPasswordAtTerminal: a terminal asks for passwords, shows nothing of them
// and is as it was afterwards.
func TestPasswordAtTerminal(t *testing.T) {
	s := startServer(t, manyPhones())
	keyboard, terminal := openTerminal(t)
	echoes := func() bool {
		t.Helper()
		state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	// run types lines, each when it is asked for; nil: it interrupts.
	run := func(lines []string, args ...string) (stderr string, err error) {
		t.Helper()
		errs := new(logBuffer)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		root := rootCommand()
		root.SetArgs(append(args, "--socket", s.Socket()))
		root.SetIn(terminal)
		root.SetOut(io.Discard)
		root.SetErr(errs)
		ended := make(chan error, 1)
		go func() { ended <- root.ExecuteContext(ctx) }()
		for i, prompt := range []string{"Password: ", "The same again: "}[:max(len(lines), 1)] {
			eventually(t, "it asks", func() bool { return strings.Contains(errs.String(), prompt) && !echoes() })
			if lines == nil {
				cancel()
				break
			}
			if _, err := io.WriteString(keyboard, lines[i]+"\n"); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-ended:
			if !echoes() {
				t.Error("the terminal shows nothing any more")
			}
			return errs.String(), err
		case <-time.After(30 * time.Second):
			t.Fatal("the command does not end")
			return "", nil
		}
	}
	add := []string{"users", "add", "--username", "ming"}
	if errs, err := run([]string{testPassword, testPassword}, add...); err != nil || errs != "Password: \nThe same again: \n" {
		t.Errorf("%q, %v", errs, err)
	}
	if out := tryBind(s, "alice", "ming", testPassword); sub(t, out) != shown(s, "username:ming").ID {
		t.Errorf("the password is another: %v", out)
	}
	set := []string{"users", "set-password", "username:ming"}
	for _, test := range []struct {
		want  string
		lines []string
	}{
		{"the second password is not the first", []string{"one password", "another"}},
		{"a password is not empty", []string{""}},
		{"interrupted; nothing was changed", nil},
	} {
		if errs, err := run(test.lines, set...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %q, %v", test.lines, errs, err)
		}
	}
	_, _ = io.WriteString(keyboard, "\n") // lets the interrupted reader go
	if out := tryBind(s, "alice", "ming", testPassword); out.Status != http.StatusOK {
		t.Errorf("the password was changed: %v", out)
	}
	_ = terminal.Close() // lets the reader of the keyboard's end see all
	shownThere, _ := io.ReadAll(keyboard)
	noneOf(t, "the terminal", string(shownThere), testPassword, "one password", "another")
}

// TestProgress: a terminal gets one line that changes, a log whole lines, and
// neither before its time.
func TestProgress(t *testing.T) {
	keyboard, terminal := openTerminal(t)
	p := newProgress(terminal)
	p.every = time.Hour
	p.show("%d rows", 1)
	p.show("%d rows", 2) // too soon
	p.clear()
	p.show("%d rows", 3)
	const want = "\r\x1b[K1 rows\r\x1b[K\r\x1b[K3 rows"
	got := make([]byte, len(want)) // a terminal gives what it has, in pieces
	if _, err := io.ReadFull(keyboard, got); err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	var log bytes.Buffer
	p = newProgress(&log)
	p.show("too soon")
	p.last = p.last.Add(-time.Minute)
	p.show("a line")
	p.clear()
	if log.String() != "a line\n" {
		t.Errorf("%q", log.String())
	}
}
