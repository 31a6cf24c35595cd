package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Kind says what a request asked for.
type Kind string

// The kinds of operation.
const (
	SignIn       Kind = "sign_in"       // a js_code for a family
	Authorize    Kind = "authorize"     // an authorization code within a login session
	Redeem       Kind = "redeem"        // an authorization code for a family
	Refresh      Kind = "refresh"       // a refresh token for its successor
	Introspect   Kind = "introspect"    // of an access token
	UserInfo     Kind = "userinfo"      // with an access token
	Revoke       Kind = "revoke"        // by refresh token: the family ends
	RevokeAccess Kind = "revoke_access" // by access token: this token ends
	Disable      Kind = "disable"       // of a user: all that the user has ends, and no more begins
	Enable       Kind = "enable"
	EndUser      Kind = "end_user" // all sign-ins of a user end
	Other        Kind = "other"    // anything whose answer is judged by its status alone
)

// Outcome is what the client knows afterwards.
type Outcome string

// The outcomes. A refusal for want of storage is Unknown like an answer that
// was lost: it may have happened.
const (
	OK      Outcome = "ok"
	Denied  Outcome = "denied"
	Unknown Outcome = "unknown"
)

// Op is one request with its answer. Credentials are fingerprints; times count
// from the start of the history on this process's monotonic clock.
type Op struct {
	ID     int    `json:"id"`
	Kind   Kind   `json:"kind"`
	Node   string `json:"node"`
	User   string `json:"user,omitempty"` // as the rig calls the person
	Client string `json:"client,omitempty"`
	Token  string `json:"token,omitempty"`  // the credential that was presented
	Key    string `json:"key,omitempty"`    // Idempotency-Key
	Family string `json:"family,omitempty"` // sid, where it is known

	Start   time.Duration `json:"start"`
	End     time.Duration `json:"end"`
	Outcome Outcome       `json:"outcome"`
	Status  int           `json:"status,omitempty"` // 0: no answer
	Error   string        `json:"error,omitempty"`  // the OAuth error code, or why there was no answer
	// RetryAfter: the answer had that header.
	RetryAfter bool `json:"retry_after,omitempty"`
	// Cut: the client itself hung up.
	Cut bool `json:"cut,omitempty"`

	Sub          string `json:"sub,omitempty"` // these five are of the answer
	AnswerClient string `json:"answer_client,omitempty"`
	Audience     string `json:"audience,omitempty"`
	Access       string `json:"access,omitempty"`
	Issued       string `json:"issued,omitempty"` // the refresh token, or the authorization code
}

// String shows the operation in one line.
func (o *Op) String() string {
	text := fmt.Sprintf("#%d %s %s", o.ID, o.Kind, o.Outcome)
	if o.Status != 0 || o.Error != "" {
		text += fmt.Sprintf(" (%d %s)", o.Status, o.Error)
	}
	text += fmt.Sprintf(" at %s, %s to %s", o.Node, o.Start.Round(time.Microsecond), o.End.Round(time.Microsecond))
	for _, part := range [][2]string{{"user", o.User}, {"family", o.Family}, {"token", o.Token}, {"issued", o.Issued}} {
		if part[1] != "" {
			text += " " + part[0] + "=" + part[1]
		}
	}
	return text
}

// Fault is a time in which a node may answer 503 with Retry-After, or not at
// all.
type Fault struct {
	Node  string        `json:"node"` // "": all of them
	What  string        `json:"what"`
	Start time.Duration `json:"start"`
	End   time.Duration `json:"end"` // 0: until the end
	// Unreachable: connections may be refused or break, too.
	Unreachable bool `json:"unreachable,omitempty"`
}

// Death is a moment from which a node's process was gone: what it had not done
// by then it never does.
type Death struct {
	Node string        `json:"node"`
	At   time.Duration `json:"at"`
}

// History is what clients asked and were answered. It is safe for concurrent
// use.
type History struct {
	begin time.Time

	mu     sync.Mutex // guards the fields below
	ops    []*Op
	faults []*Fault
	deaths []Death
	file   *os.File
	out    *bufio.Writer
	failed error // of the file
}

// NewHistory begins a history, which is also appended to the file at path; ""
// keeps it in memory only.
func NewHistory(path string) (*History, error) {
	h := &History{begin: time.Now()}
	if path == "" {
		return h, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	h.file, h.out = file, bufio.NewWriterSize(file, 256<<10)
	return h, nil
}

// Now is the time on the history's clock.
func (h *History) Now() time.Duration { return time.Since(h.begin) }

// line is one line of the file.
type line struct {
	Op    *Op    `json:"op,omitempty"`
	Fault *Fault `json:"fault,omitempty"`
	Death *Death `json:"death,omitempty"`
}

func (h *History) write(l line) {
	if h.out == nil || h.failed != nil {
		return
	}
	h.failed = json.NewEncoder(h.out).Encode(l)
}

// Add appends a finished operation and numbers it.
func (h *History) Add(op *Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op.ID = len(h.ops) + 1
	h.ops = append(h.ops, op)
	h.write(line{Op: op})
}

// BeginFault notes that a fault begins now; end notes its end.
func (h *History) BeginFault(node, what string, unreachable bool) (end func()) {
	f := &Fault{Node: node, What: what, Start: h.Now(), Unreachable: unreachable}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		f.End = h.Now()
		h.write(line{Fault: f})
	})
}

// Died notes that a node's process is gone.
func (h *History) Died(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := Death{node, h.Now()}
	h.deaths = append(h.deaths, d)
	h.write(line{Death: &d})
}

// Len is the number of operations so far.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Count is the number of operations so far by kind and outcome.
func (h *History) Count(kind Kind, outcome Outcome) int {
	n := 0
	for _, op := range h.snapshot() {
		if op.Kind == kind && op.Outcome == outcome {
			n++
		}
	}
	return n
}

func (h *History) snapshot() []*Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

// Close writes what is buffered and closes the file.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return nil
	}
	err := errors.Join(h.failed, h.out.Flush(), h.file.Close())
	h.file, h.out = nil, nil
	return err
}

// ReadHistory reads a file of an earlier run.
func ReadHistory(path string) (*History, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	h := &History{begin: time.Now()}
	decoder := json.NewDecoder(bufio.NewReader(file))
	for {
		var l line
		err := decoder.Decode(&l)
		switch {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		case l.Op != nil:
			h.ops = append(h.ops, l.Op)
		case l.Fault != nil:
			h.faults = append(h.faults, l.Fault)
		case l.Death != nil:
			h.deaths = append(h.deaths, *l.Death)
		}
	}
}

// fingerprint stands for a credential: equal for equal ones, and useless to
// whoever reads the history.
func fingerprint(credential string) string {
	if credential == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(credential))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
