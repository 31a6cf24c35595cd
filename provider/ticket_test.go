package provider

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTicketStates runs what people, phones and screens may do in order, and
// checks what each step answers and what becomes of the ticket.
func TestTicketStates(t *testing.T) {
	const (
		see     = "see"
		seeFar  = "see from elsewhere"
		right   = "approve"
		wrong   = "approve wrongly"
		typed   = "approve by user code"
		deny    = "deny"
		finish  = "finish"
		timeout = "expire"
	)
	type step struct {
		user, do string
		want     Code // "": it succeeds
		state    ticketState
	}
	for name, steps := range map[string][]step{
		"as it should be": {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"", finish, "", ticketDone}},
		"seen twice":      {{"a", see, "", ticketScanned}, {"a", seeFar, "", ticketScanned}, {"a", right, "", ticketApproved}},
		"not seen":        {{"a", right, TicketUnseen, ticketWaiting}, {"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}},
		"wrong number":    {{"a", see, "", ticketScanned}, {"a", wrong, WrongNumber, ticketDead}, {"a", right, TicketUsed, ticketDead}, {"a", see, TicketUsed, ticketDead}},
		"wrong and unseen": {
			{"a", wrong, TicketUnseen, ticketWaiting}, {"a", see, "", ticketScanned}, {"a", wrong, WrongNumber, ticketDead}},
		"other scanner":     {{"a", see, "", ticketScanned}, {"b", see, TicketTaken, ticketDead}, {"a", right, TicketUsed, ticketDead}},
		"other confirmer":   {{"a", see, "", ticketScanned}, {"b", right, TicketTaken, ticketDead}, {"a", right, TicketUsed, ticketDead}},
		"other guesser":     {{"a", see, "", ticketScanned}, {"b", wrong, TicketTaken, ticketDead}},
		"other denier":      {{"a", see, "", ticketScanned}, {"b", deny, TicketTaken, ticketDead}},
		"other typist":      {{"a", see, "", ticketScanned}, {"b", typed, TicketTaken, ticketDead}},
		"approved twice":    {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"a", right, TicketUsed, ticketApproved}},
		"late other":        {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"b", right, TicketUsed, ticketApproved}, {"b", deny, TicketUsed, ticketApproved}},
		"denied":            {{"a", see, "", ticketScanned}, {"a", deny, "", ticketDenied}, {"a", deny, "", ticketDenied}, {"a", right, TicketUsed, ticketDenied}},
		"denied unseen":     {{"a", deny, "", ticketDenied}, {"b", deny, TicketUsed, ticketDenied}, {"", finish, TicketUsed, ticketDenied}},
		"regretted":         {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"a", deny, "", ticketDenied}, {"", finish, TicketUsed, ticketDenied}},
		"regretted late":    {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"", finish, "", ticketDone}, {"a", deny, TicketUsed, ticketDone}},
		"finished twice":    {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"", finish, "", ticketDone}, {"", finish, TicketUsed, ticketDone}},
		"finished too soon": {{"", finish, TicketUsed, ticketWaiting}, {"a", see, "", ticketScanned}, {"", finish, TicketUsed, ticketScanned}},
		"typed":             {{"a", typed, "", ticketApproved}, {"", finish, "", ticketDone}},
		"typed after seen":  {{"a", see, "", ticketScanned}, {"a", typed, "", ticketApproved}},
		"expired unseen":    {{"", timeout, "", ticketWaiting}, {"a", see, TicketExpired, ticketWaiting}, {"a", typed, TicketExpired, ticketWaiting}, {"a", deny, TicketExpired, ticketWaiting}},
		"expired seen":      {{"a", see, "", ticketScanned}, {"", timeout, "", ticketScanned}, {"a", right, TicketExpired, ticketScanned}, {"b", wrong, TicketExpired, ticketScanned}},
		"expired approved":  {{"a", see, "", ticketScanned}, {"a", right, "", ticketApproved}, {"", timeout, "", ticketApproved}, {"", finish, TicketUsed, ticketApproved}, {"a", deny, TicketExpired, ticketApproved}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.UnixMilli(1_700_000_000_000)
			tick := &ticket{Kind: ticketDevice, State: ticketWaiting, Expires: now.Add(time.Minute).UnixMilli(), Number: "42", Choices: []string{"11", "42", "99"}}
			for i, s := range steps {
				now = now.Add(time.Second)
				by := approver{ID: s.user, Epoch: 3, AuthTime: now.Unix(), AMR: []string{"wechat"}}
				var err error
				switch s.do {
				case see, seeFar:
					err = tick.see(s.user, s.do == seeFar, now)
				case right:
					err = tick.approve(by, " 42 ", now)
				case wrong:
					err = tick.approve(by, "11", now)
				case typed:
					err = tick.approveTyped(by, now)
				case deny:
					err = tick.deny(s.user, now)
				case finish:
					if !tick.finish(now) {
						err = fail(TicketUsed, msgTicketUsed)
					}
				case timeout:
					now = now.Add(time.Minute)
				}
				got := Code("")
				if err != nil {
					got = AsError(err).Code
				}
				if got != s.want || tick.State != s.state {
					t.Fatalf("step %d (%s by %q): %q and %s, want %q and %s", i, s.do, s.user, got, tick.State, s.want, s.state)
				}
				taken := tick.State == ticketApproved || tick.State == ticketDone
				if taken != (tick.User != nil) {
					t.Fatalf("step %d: %s with user %v", i, tick.State, tick.User)
				}
				// Whatever happens, it can be stored and read again.
				stored, err := tick.encode()
				if err != nil {
					t.Fatal(err)
				}
				read, err := decodeTicket(stored)
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if again, _ := read.encode(); !bytes.Equal(again, stored) {
					t.Fatalf("step %d: %s became %s", i, stored, again)
				}
			}
		})
	}
}

func TestTicketRemembersAnotherNetwork(t *testing.T) {
	now := time.Now()
	tick := &ticket{State: ticketWaiting, Expires: now.Add(time.Minute).UnixMilli()}
	for _, elsewhere := range []bool{true, false} {
		if err := tick.see("a", elsewhere, now); err != nil || !tick.Typed {
			t.Errorf("%v, %v", tick.Typed, err)
		}
	}
}

// TestNumbers: three different choices, of which one is the number, at any
// place.
func TestNumbers(t *testing.T) {
	places := map[int]int{}
	for range 300 {
		number, choices := scanNumbers()
		if len(number) != 2 || number < "10" || number > "99" {
			t.Fatalf("number %q", number)
		}
		places[checkChoices(t, number, choices)]++
		code := newUserCode()
		number, choices = userCodeNumbers(code)
		if number != code[4:] {
			t.Fatalf("%q of %q", number, code)
		}
		checkChoices(t, number, choices)
	}
	for place := range 3 {
		if places[place] < 30 {
			t.Errorf("the number stands at %v", places)
		}
	}
}

func checkChoices(t *testing.T, number string, choices []string) int {
	t.Helper()
	if len(choices) != 3 || choices[0] == choices[1] || choices[0] == choices[2] || choices[1] == choices[2] || !slices.Contains(choices, number) {
		t.Fatalf("%q among %q", number, choices)
	}
	return slices.Index(choices, number)
}

func TestUserCode(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		code := newUserCode()
		if got, ok := parseUserCode(showUserCode(code)); !ok || got != code || seen[code] {
			t.Fatalf("%q became %q", code, got)
		}
		seen[code] = true
	}
	for typed, want := range map[string]string{
		"WDJB-MJHT": "WDJBMJHT", "wdjb mjht": "WDJBMJHT", " wDjBmJhT ": "WDJBMJHT", "W-D-J-B-M-J-H-T": "WDJBMJHT",
		"": "", "WDJB-MJH": "", "WDJB-MJHTT": "", "WDJA-MJHT": "", "WDJB-MJH1": "", "WDJB_MJHT": "", "WDJB-MJHŤ": "",
		strings.Repeat(" ", 40) + "WDJBMJHT": "",
	} {
		if got, ok := parseUserCode(typed); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q, %v", typed, got, ok)
		}
	}
}

func TestParseTicket(t *testing.T) {
	const id = "AbCdEfGhIjKlMnOpQrStUQ"
	for given, want := range map[string][2]string{
		id:                                    {id, ""},
		" " + id:                              {id, ""},
		id + "A":                              {},
		id[:21]:                               {},
		"":                                    {},
		"AbCdEfGhIjKlMnOpQrStUR":              {}, // another spelling of the same bits
		"wdjb-mjht":                           {"", "WDJBMJHT"},
		"https://id.example.com/scan?t=" + id: {id, ""},
		"https://id.example.com/scan?x=1&t=" + id + "#f":                  {id, ""},
		"https%3A%2F%2Fid.example.com%2Fscan%3Ft%3D" + id:                 {id, ""},
		"https%3a%2f%2fid.example.com%2fdevice%3fuser_code%3dWDJB-MJHT":   {"", "WDJBMJHT"},
		"https://id.example.com/device?user_code=WDJB-MJHT":               {"", "WDJBMJHT"},
		"https://id.example.com/device?user_code=" + id:                   {id, ""},
		"https://id.example.com/device":                                   {},
		"https://id.example.com/%zz?t=" + id:                              {},
		"https%3A%2F%2Fid.example.com%2Fscan%3Ft%3D" + id + "%zz":         {},
		"https://id.example.com/?t=" + strings.Repeat("a", maxTicketText): {},
	} {
		scan, code := parseTicket(given)
		if scan != want[0] || code != want[1] {
			t.Errorf("%q: %q, %q", given, scan, code)
		}
	}
}

func TestNetworks(t *testing.T) {
	for address, want := range map[string][2]string{
		"203.0.113.7":                {"203.0.0.0/16", "203.0.113.*"},
		"::ffff:203.0.113.7":         {"203.0.0.0/16", "203.0.113.*"},
		"2001:db8:1:2::7":            {"2001:db8::/32", "2001:db8:1:*"},
		"2001:db8::7":                {"2001:db8::/32", "2001:db8:*"},
		"fe80::1%eth0":               {"fe80::/32", "fe80:*"},
		"127.0.0.1":                  {"127.0.0.0/16", "127.0.0.*"},
		"2001:db8:ffff:ffff:ffff::1": {"2001:db8::/32", "2001:db8:ffff:*"},
	} {
		ip := netip.MustParseAddr(address)
		if network, place := wideNetwork(ip), coarsePlace(ip); network != want[0] || place != want[1] {
			t.Errorf("%s: %q, %q", address, network, place)
		}
	}
	if network, place := wideNetwork(netip.Addr{}), coarsePlace(netip.Addr{}); network != "" || place != "" {
		t.Errorf("no address: %q, %q", network, place)
	}
}

func FuzzTicketCodec(f *testing.F) {
	for _, seed := range []*ticket{
		{Kind: ticketScan, State: ticketWaiting, Browser: tokenDigest("b"), Number: "42", Choices: []string{"42", "11", "12"}},
		{Kind: ticketDevice, State: ticketDone, ClientID: "tv", Scope: []string{"openid"}, Number: "MJHT", User: &approver{ID: "u", Epoch: 1, AuthTime: 5, AMR: []string{"wechat"}, At: 7}},
	} {
		value, err := seed.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Add([]byte(`{"kind":"scan","state":"waiting","number":"1"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		tick, err := decodeTicket(stored)
		if err != nil {
			return
		}
		now := time.UnixMilli(tick.Created)
		// No step on what was read may panic, and its result can be stored.
		for _, step := range []func(){
			func() { _ = tick.see("a", true, now) },
			func() { _ = tick.approve(approver{ID: "a"}, tick.Number, now) },
			func() { tick.finish(now) },
			func() { _ = tick.deny("a", now) },
		} {
			step()
			value, err := tick.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeTicket(value); err != nil {
				t.Fatalf("%q became %q", stored, value)
			}
		}
	})
}

func FuzzParseTicket(f *testing.F) {
	for _, seed := range []string{"AbCdEfGhIjKlMnOpQrStUQ", "WDJB-MJHT", "https://id.example.com/scan?t=AbCdEfGhIjKlMnOpQrStUQ", "https%3A%2F%2Fx%3Fuser_code%3DWDJBMJHT", "://", "%3A%2F%2F"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		scan, code := parseTicket(given)
		if scan != "" && (code != "" || !isScanID(scan)) || code != "" && (len(code) != userCodeLength || strings.Trim(code, userCodeAlphabet) != "") {
			t.Fatalf("%q: %q, %q", given, scan, code)
		}
	})
}
