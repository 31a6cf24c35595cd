package provider

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// ticketKind says what a ticket is for.
type ticketKind string

const (
	// ticketDevice is a device authorization (RFC 8628).
	ticketDevice ticketKind = "device"
	// ticketScan is a browser's sign-in by scanning a code.
	ticketScan ticketKind = "scan"
)

// ticketState is where a ticket stands.
type ticketState string

const (
	ticketWaiting  ticketState = "waiting"  // nobody has seen it
	ticketScanned  ticketState = "scanned"  // somebody looks at it
	ticketApproved ticketState = "approved" // and has agreed
	ticketDenied   ticketState = "denied"
	ticketDead     ticketState = "dead" // a wrong number or a second person
	ticketDone     ticketState = "done" // what was approved has been taken up
	// ticketExpired is never stored: it is what a ticket past its end says.
	ticketExpired ticketState = "expired"
)

const (
	scanLifetime   = 120 * time.Second
	deviceLifetime = 10 * time.Minute
	deviceInterval = 5 * time.Second
	// ticketLinger is how long an expired ticket still says that it has expired.
	ticketLinger = 5 * time.Minute
)

// ticket is a device authorization or a scan on its way from a screen to a
// person and back. Its methods are the state machine and judge by the time
// they are given; whoever calls them stores what they changed, also where they
// refuse: a wrong number ends a ticket.
type ticket struct {
	Kind     ticketKind  `json:"kind"`
	State    ticketState `json:"state"`
	ClientID string      `json:"client"`
	Scope    []string    `json:"scope,omitempty"`
	Audience []string    `json:"audience,omitempty"`
	Created  int64       `json:"created"` // all times are Unix milliseconds
	Expires  int64       `json:"expires"`
	Changed  int64       `json:"changed"` // when State became what it is

	// Where it was asked for, so that a person may recognise it.
	Agent   string `json:"agent,omitempty"`
	Place   string `json:"place,omitempty"`
	Network string `json:"network,omitempty"` // coarser than Place, to compare with the phone's

	// Number is what the person must repeat from the screen: two digits of a
	// scan, the end of a device's user code. Choices are Number and two others.
	Number  string   `json:"number"`
	Choices []string `json:"choices"`
	// Typed: the person is given no choices, because the phone is in another
	// network than the screen.
	Typed bool `json:"typed,omitempty"`

	Browser storage.Digest `json:"browser,omitzero"`  // digest of the cookie of the browser that a scan belongs to
	Scanner string         `json:"scanner,omitempty"` // id of the user who saw it first
	User    *approver      `json:"user,omitempty"`    // from ticketApproved on
}

// approver is who approves a ticket and how they have proven who they are.
type approver struct {
	ID       string   `json:"id"`
	Epoch    uint32   `json:"epoch"`
	AuthTime int64    `json:"auth_time"` // Unix seconds
	AMR      []string `json:"amr"`
	// At is when the ticket was approved, in Unix milliseconds.
	At int64 `json:"at,omitempty"`
}

// authTime is when the approver was authenticated.
func (a approver) authTime() time.Time { return time.Unix(a.AuthTime, 0) }

// approvedAt is when the approver agreed; zero: not known.
func (a approver) approvedAt() time.Time {
	if a.At == 0 {
		return time.Time{}
	}
	return time.UnixMilli(a.At)
}

// encode returns the stored form.
func (t *ticket) encode() ([]byte, error) { return json.Marshal(t) }

var errTicketCorrupt = errors.New("stored ticket cannot be read")

// decodeTicket reads what encode wrote.
func decodeTicket(b []byte) (*ticket, error) {
	t := new(ticket)
	if json.Unmarshal(b, t) != nil {
		return nil, errTicketCorrupt
	}
	switch t.State {
	case ticketWaiting, ticketScanned, ticketApproved, ticketDenied, ticketDead, ticketDone:
	default:
		return nil, errTicketCorrupt
	}
	known := t.Kind == ticketDevice || t.Kind == ticketScan && !t.Browser.IsZero()
	taken := t.State == ticketApproved || t.State == ticketDone
	if !known || taken && t.User == nil || t.Number == "" {
		return nil, errTicketCorrupt
	}
	return t, nil
}

// at is the state at a moment.
func (t *ticket) at(now time.Time) ticketState {
	if now.UnixMilli() >= t.Expires {
		return ticketExpired
	}
	return t.State
}

func (t *ticket) to(state ticketState, now time.Time) { t.State, t.Changed = state, now.UnixMilli() }

func (t *ticket) expiresAt() time.Time { return time.UnixMilli(t.Expires) }

// open refuses a ticket that nothing can be done with any more.
func (t *ticket) open(now time.Time) error {
	switch t.at(now) {
	case ticketExpired:
		return fail(TicketExpired, msgTicketExpired).reason("ticket_expired")
	case ticketWaiting, ticketScanned:
		return nil
	}
	return fail(TicketUsed, msgTicketUsed).reason("ticket_" + string(t.State))
}

// only refuses everybody but the one who saw an open ticket first. A second
// person is a reason to end it: one of the two was led to a foreign screen.
func (t *ticket) only(userID string, now time.Time) error {
	if err := t.open(now); err != nil {
		return err
	}
	if t.State == ticketScanned && t.Scanner != userID {
		t.to(ticketDead, now)
		return fail(TicketTaken, msgTicketTaken).reason("other_user")
	}
	return nil
}

// see records who looks at the ticket, and whether from another network.
func (t *ticket) see(userID string, elsewhere bool, now time.Time) error {
	if err := t.only(userID, now); err != nil {
		return err
	}
	t.Typed = t.Typed || elsewhere
	if t.State == ticketWaiting {
		t.Scanner = userID
		t.to(ticketScanned, now)
	}
	return nil
}

// approve takes the number that the person has repeated from the screen.
func (t *ticket) approve(by approver, number string, now time.Time) error {
	if err := t.only(by.ID, now); err != nil {
		return err
	}
	if t.State == ticketWaiting {
		return fail(TicketUnseen, msgTicketUnseen).reason("ticket_unseen")
	}
	if !sameNumber(number, t.Number) {
		t.to(ticketDead, now)
		return fail(WrongNumber, msgWrongNumber).reason("wrong_number")
	}
	by.At = now.UnixMilli()
	t.User = &by
	t.to(ticketApproved, now)
	return nil
}

// approveTyped takes the word of a person who has typed the whole user code
// of a device.
func (t *ticket) approveTyped(by approver, now time.Time) error {
	if err := t.only(by.ID, now); err != nil {
		return err
	}
	by.At = now.UnixMilli()
	t.Scanner, t.User = by.ID, &by
	t.to(ticketApproved, now)
	return nil
}

// deny ends the ticket, also one that the same person approved a moment ago
// and that nobody has taken up yet.
func (t *ticket) deny(userID string, now time.Time) error {
	switch state := t.at(now); {
	case (state == ticketApproved || state == ticketDenied) && t.Scanner == userID:
	default:
		if err := t.only(userID, now); err != nil {
			return err
		}
	}
	if t.State != ticketDenied {
		t.Scanner, t.User = userID, nil
		t.to(ticketDenied, now)
	}
	return nil
}

// finish takes up what was approved, once.
func (t *ticket) finish(now time.Time) bool {
	if t.at(now) != ticketApproved {
		return false
	}
	t.to(ticketDone, now)
	return true
}

// sameNumber compares what a person chose or typed with what the screen shows.
func sameNumber(given, shown string) bool {
	return strings.ToUpper(strings.TrimSpace(given)) == shown
}

// The alphabet of user codes (RFC 8628 §6.1): no vowels, so that no words
// come about, and nothing that looks like something else.
const userCodeAlphabet = "BCDFGHJKLMNPQRSTVWXZ"

const (
	userCodeLength = 8
	userCodeShown  = 4 // characters at its end that a person compares
)

// newUserCode returns a user code without its dash: 34 random bits, good for
// ten minutes and behind a limit of misses (RFC 8628 §5.1).
func newUserCode() string { return randomText(userCodeAlphabet, userCodeLength) }

// showUserCode writes a user code as people read it.
func showUserCode(code string) string { return code[:4] + "-" + code[4:] }

// parseUserCode takes a user code in any case, with or without its dash and
// with space around and within.
func parseUserCode(typed string) (string, bool) {
	if len(typed) > 32 {
		return "", false
	}
	code := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(typed))
	if len(code) != userCodeLength || strings.Trim(code, userCodeAlphabet) != "" {
		return "", false
	}
	return code, true
}

// newScanID returns 128 random bits as 22 characters, all of which WeChat
// takes for a scene.
func newScanID() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// isScanID reports whether s is what newScanID may return.
func isScanID(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 16 && len(s) == 22
}

// scanNumbers returns a number of two digits, and three to choose from.
func scanNumbers() (number string, choices []string) {
	return numbers(func() string { return randomText("123456789", 1) + randomText("0123456789", 1) })
}

// userCodeNumbers returns the end of a user code, and three to choose from.
func userCodeNumbers(code string) (number string, choices []string) {
	number = code[userCodeLength-userCodeShown:]
	first := true
	return numbers(func() string {
		if first {
			first = false
			return number
		}
		return randomText(userCodeAlphabet, userCodeShown)
	})
}

// numbers returns the first of three different values, and all in random order.
func numbers(next func() string) (number string, choices []string) {
	number = next()
	choices = []string{number}
	for len(choices) < 3 {
		if other := next(); !slices.Contains(choices, other) {
			choices = append(choices, other)
		}
	}
	for i := len(choices) - 1; i > 0; i-- {
		j := randomBelow(i + 1)
		choices[i], choices[j] = choices[j], choices[i]
	}
	return number, choices
}

func randomText(alphabet string, length int) string {
	b := make([]byte, length)
	for i := range b {
		b[i] = alphabet[randomBelow(len(alphabet))]
	}
	return string(b)
}

func randomBelow(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // the system's source of randomness does not fail
	}
	return int(i.Int64())
}

// wideNetwork is the part of an address that two devices of one person in one
// place mostly share: 16 bits of IPv4, 32 of IPv6. "" stands for no address.
func wideNetwork(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	bits := 16
	if ip.Is6() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil || !prefix.IsValid() {
		return ""
	}
	return prefix.String()
}

// coarsePlace shows an address without its end.
func coarsePlace(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		text := ip.String()
		return text[:strings.LastIndexByte(text, '.')] + ".*"
	}
	prefix, err := ip.Prefix(48)
	if err != nil || !prefix.IsValid() {
		return ""
	}
	return strings.TrimSuffix(prefix.Addr().String(), ":") + "*"
}
