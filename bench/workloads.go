package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// workload is one kind of request.
type workload struct {
	name    string
	scripts func(ctx context.Context, s *server, connections int) ([]script, error)
	// commits is how many durable commits a lone request makes.
	commits float64
	// floor is what no server can leave out; nil: no ratio is shown.
	floor func(c *ceilings) time.Duration
	what  string  // the floor in words
	goal  float64 // the highest ratio wanted at 64 connections
	// inPlace is another floor, whose parts were measured together.
	inPlace     func(c *ceilings) time.Duration
	inPlaceWhat string
}

var allWorkloads = []workload{
	{
		name: "sign-in", scripts: signIns, commits: 1, goal: 1.7,
		floor:       func(c *ceilings) time.Duration { return 2*c.signature + c.form + c.outbound },
		what:        "2 signatures + form ceiling + outbound call",
		inPlace:     func(c *ceilings) time.Duration { return 2*c.signature + c.relay },
		inPlaceWhat: "2 signatures + form ceiling with the outbound call inside",
	},
	{
		name: "first-sign-in", scripts: firstSignIns, commits: 1,
		floor: func(c *ceilings) time.Duration { return 2*c.signature + c.form + c.outbound },
		what:  "2 signatures + form ceiling + outbound call",
	},
	{
		name: "refresh", scripts: refreshes, commits: 1, goal: 2.0,
		floor: func(c *ceilings) time.Duration { return 2*c.signature + c.form },
		what:  "2 signatures + form ceiling",
	},
	{
		name: "client-credentials", scripts: clientCredentials,
		floor: func(c *ceilings) time.Duration { return c.signature + c.form },
		what:  "1 signature + form ceiling",
	},
	{
		name: "introspection", scripts: introspections,
		floor: func(c *ceilings) time.Duration { return c.verification + c.form },
		what:  "1 verification + form ceiling",
	},
	{
		name: "userinfo", scripts: userInfos,
		floor: func(c *ceilings) time.Duration { return c.verification + c.get },
		what:  "1 verification + GET ceiling",
	},
	{
		name: "jwks", scripts: keySets,
		floor: func(c *ceilings) time.Duration { return c.get },
		what:  "GET ceiling",
	},
}

// supply hands out js_codes, each once, to all connections.
type supply struct {
	codes []string
	users []int // of each code; nil: not one of server.users
	next  atomic.Int64
}

func (s *supply) take() (i int, ok bool) {
	i = int(s.next.Add(1)) - 1
	return i, i < len(s.codes)
}

// codesFor is how many js_codes a measurement can use up: more than one core
// can answer, and bounded by what the simulator keeps.
func (s *server) codesFor(connections int) int {
	perSecond := min(1500*connections, 9000)
	length := s.o.warmUp + s.o.seconds
	return min(int(length.Seconds()*float64(perSecond)), 1<<17)
}

// signIns lets users sign in who did before.
func signIns(ctx context.Context, s *server, connections int) ([]script, error) {
	n := s.codesFor(connections)
	names, numbers := make([]string, n), make([]int, n)
	for i := range n {
		numbers[i] = rand.IntN(len(s.users))
		names[i] = s.users[numbers[i]].name
	}
	return s.signInScripts(ctx, connections, names, numbers)
}

// firstSignIns lets users sign in for the first time.
func firstSignIns(ctx context.Context, s *server, connections int) ([]script, error) {
	names := make([]string, s.codesFor(connections))
	for i := range names {
		s.newUsers++
		names[i] = "new-user-" + strconv.Itoa(s.newUsers)
	}
	return s.signInScripts(ctx, connections, names, nil)
}

func (s *server) signInScripts(ctx context.Context, connections int, names []string, numbers []int) ([]script, error) {
	codes, err := s.mint(ctx, names)
	if err != nil {
		return nil, err
	}
	supply := &supply{codes: codes, users: numbers}
	return repeat(connections, func(int) script { return &signInScript{s: s, supply: supply} }), nil
}

func repeat(n int, make1 func(i int) script) []script {
	scripts := make([]script, n)
	for i := range scripts {
		scripts[i] = make1(i)
	}
	return scripts
}

type signInScript struct {
	s      *server
	supply *supply
	keep   bool // the tokens become those of the user
	sample sample
	buf    []byte
	now    int // index in supply
}

func (c *signInScript) request() []byte {
	i, ok := c.supply.take()
	if !ok {
		return nil
	}
	c.now = i
	c.buf = postRequest(c.buf, c.s.host, tokenPath, "",
		"grant_type=wechat_jscode&client_id="+miniProgram+"&js_code="+c.supply.codes[i])
	return c.buf
}

func (c *signInScript) check(status int, body []byte) error {
	tokens, err := parseTokens(status, body)
	if err != nil {
		return err
	}
	if tokens.refresh == nil || tokens.id == nil {
		return fmt.Errorf("a token is missing: %s", body)
	}
	sub := ""
	if c.supply.users != nil && !c.keep {
		sub = c.s.users[c.supply.users[c.now]].sub
	}
	if c.keep || c.sample.due() {
		if sub, err = c.s.verify(tokens, sub); err != nil {
			return err
		}
	}
	if c.keep {
		u := &c.s.users[c.supply.users[c.now]]
		u.sub, u.access, u.refresh = sub, string(tokens.access), string(tokens.refresh)
	}
	return nil
}

// refreshes lets every connection refresh the sign-ins of its share of the
// users, one after the other.
func refreshes(_ context.Context, s *server, connections int) ([]script, error) {
	return repeat(connections, func(i int) script {
		return &refreshScript{s: s, at: i, step: connections}
	}), nil
}

type refreshScript struct {
	s        *server
	at, step int
	current  int
	sample   sample
	buf      []byte
}

func (c *refreshScript) request() []byte {
	c.current = c.at
	if c.at += c.step; c.at >= len(c.s.users) {
		c.at %= c.step
	}
	c.buf = postRequest(c.buf, c.s.host, tokenPath, "",
		"grant_type=refresh_token&client_id="+miniProgram+"&refresh_token="+c.s.users[c.current].refresh)
	return c.buf
}

func (c *refreshScript) check(status int, body []byte) error {
	tokens, err := parseTokens(status, body)
	if err != nil {
		return err
	}
	if tokens.refresh == nil || tokens.id == nil {
		return fmt.Errorf("a token is missing: %s", body)
	}
	u := &c.s.users[c.current]
	if string(tokens.refresh) == u.refresh {
		return fmt.Errorf("the refresh token was not rotated")
	}
	if c.sample.due() {
		if _, err := c.s.verify(tokens, u.sub); err != nil {
			return err
		}
	}
	u.refresh, u.access = string(tokens.refresh), string(tokens.access)
	return nil
}

// basicAuth is the header by which the backend authenticates.
var basicAuth = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(backend+":"+backendKey)) + "\r\n"

// fixedScript sends a request that depends on a user at most.
type fixedScript struct {
	s        *server
	at, step int
	current  int
	sample   sample
	buf      []byte
	build    func(buf []byte, u *user) []byte
	judge    func(c *fixedScript, u *user, status int, body []byte) error
}

func (c *fixedScript) request() []byte {
	c.current = c.at
	if c.at += c.step; c.at >= len(c.s.users) {
		c.at %= c.step
	}
	c.buf = c.build(c.buf, &c.s.users[c.current])
	return c.buf
}

func (c *fixedScript) check(status int, body []byte) error {
	return c.judge(c, &c.s.users[c.current], status, body)
}

func clientCredentials(_ context.Context, s *server, connections int) ([]script, error) {
	request := postRequest(nil, s.host, tokenPath, basicAuth, "grant_type=client_credentials&scope=orders.read")
	return repeat(connections, func(int) script {
		return &fixedScript{s: s, step: 1,
			build: func([]byte, *user) []byte { return request },
			judge: func(c *fixedScript, _ *user, status int, body []byte) error {
				tokens, err := parseTokens(status, body)
				if err != nil {
					return err
				}
				if tokens.refresh != nil || tokens.id != nil {
					return fmt.Errorf("a token too many: %s", body)
				}
				if c.sample.due() {
					_, err = s.verify(tokens, backend)
				}
				return err
			}}
	}), nil
}

func introspections(_ context.Context, s *server, connections int) ([]script, error) {
	return repeat(connections, func(i int) script {
		return &fixedScript{s: s, at: i, step: connections,
			build: func(buf []byte, u *user) []byte {
				return postRequest(buf, s.host, "/oauth2/introspect", basicAuth, "token="+u.access)
			},
			judge: func(_ *fixedScript, u *user, status int, body []byte) error {
				if status != http.StatusOK || !bytes.HasPrefix(body, []byte(`{"active":true,`)) ||
					!bytes.Contains(body, []byte(`"sub":"`+u.sub+`"`)) {
					return fmt.Errorf("introspection: %d %s", status, body)
				}
				return nil
			}}
	}), nil
}

func userInfos(_ context.Context, s *server, connections int) ([]script, error) {
	return repeat(connections, func(i int) script {
		return &fixedScript{s: s, at: i, step: connections,
			build: func(_ []byte, u *user) []byte {
				return getRequest(s.host, "/oauth2/userinfo", "Authorization: Bearer "+u.access)
			},
			judge: func(_ *fixedScript, u *user, status int, body []byte) error {
				if status != http.StatusOK || !bytes.Contains(body, []byte(`"sub":"`+u.sub+`"`)) ||
					!bytes.Contains(body, []byte(`"nickname":"`)) {
					return fmt.Errorf("userinfo: %d %s", status, body)
				}
				return nil
			}}
	}), nil
}

func keySets(_ context.Context, s *server, connections int) ([]script, error) {
	request := getRequest(s.host, "/.well-known/jwks.json")
	return repeat(connections, func(int) script {
		return &fixedScript{s: s, step: 1,
			build: func([]byte, *user) []byte { return request },
			judge: func(_ *fixedScript, _ *user, status int, body []byte) error {
				if status != http.StatusOK || !bytes.Equal(body, s.jwks) {
					return fmt.Errorf("JWK Set: %d %s", status, body)
				}
				return nil
			}}
	}), nil
}
