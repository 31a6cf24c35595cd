package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ceilings are the least CPU times of the parts that no server can leave out,
// measured in the same run on the core of the server.
type ceilings struct {
	signature    time.Duration // ES256
	verification time.Duration // ES256
	get          time.Duration // net/http, GET with a short answer
	form         time.Duration // net/http, a form and an answer as at the token endpoint
	outbound     time.Duration // Go's HTTP client, one code2Session
	relay        time.Duration // form with one code2Session in between, in one server
}

const ceilingLength = 2 * time.Second

func keepLeast(least *time.Duration, d time.Duration) {
	if *least == 0 || d < *least {
		*least = d
	}
}

// measureCeilings measures all of them with the most connections asked for.
func measureCeilings(ctx context.Context, o *options, s *server, r *report) error {
	c := &r.ceilings
	connections := slices.Max(o.connections)
	for _, crypto := range []struct {
		role, title string
		each        *time.Duration
	}{
		{"sign", "ES256 signature (crypto/ecdsa)", &c.signature},
		{"verify", "ES256 verification (crypto/ecdsa)", &c.verification},
	} {
		progress("ceiling: %s", crypto.role)
		m, err := askChild(ctx, o, nil, crypto.role)
		if err != nil {
			return err
		}
		keepLeast(crypto.each, m.cpuEach())
		r.ceiling(crypto.title, 1, m)
	}
	if err := httpCeilings(ctx, o, s, r, c); err != nil {
		return fmt.Errorf("ceiling of HTTP: %w", err)
	}

	for _, connections := range o.connections {
		progress("ceiling: outbound, %d at once", connections)
		m, err := outboundCeiling(ctx, o, s, connections)
		if err != nil {
			return err
		}
		if connections == slices.Max(o.connections) {
			keepLeast(&c.outbound, m.cpuEach())
		}
		r.ceiling("code2Session with http.Client", connections, m)
	}
	for _, workers := range []int{1, connections} {
		progress("ceiling: store, %d writers", workers)
		dir := filepath.Join(s.dir, fmt.Sprintf("store-%d", workers))
		m, err := askChild(ctx, o, nil, "store", "-target", dir, "-workers", fmt.Sprint(workers))
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return err
		}
		r.ceiling("storage alone, sign-ins", workers, m)
	}
	return nil
}

// outboundCeiling measures the caller's side of code2Session.
func outboundCeiling(ctx context.Context, o *options, s *server, atOnce int) (measured, error) {
	names := make([]string, min(atOnce, 8)*10_000)
	for i := range names {
		names[i] = userName(i % o.users)
	}
	codes, err := s.mint(ctx, names)
	if err != nil {
		return measured{}, err
	}
	return askChild(ctx, o, strings.NewReader(strings.Join(codes, "\n")+"\n"), "outbound",
		"-target", s.code2Session(), "-workers", fmt.Sprint(atOnce))
}

// code2Session is the URL of the call, up to the js_code.
func (s *server) code2Session() string {
	return "http://" + s.weChat + "/sns/jscode2session?appid=" + appID + "&secret=" + appSecret + "&grant_type=authorization_code&js_code="
}

// askChild runs a child that measures itself.
func askChild(ctx context.Context, o *options, input *strings.Reader, role string, args ...string) (m measured, err error) {
	args = append([]string{"-for", ceilingLength.String()}, args...)
	var c *child
	if input == nil {
		c, err = startChild(o, nil, role, args...)
	} else {
		c, err = startChild(o, input, role, args...)
	}
	if err != nil {
		return m, err
	}
	if err := c.hear(ctx, &m); err != nil {
		return m, fmt.Errorf("ceiling of %s: %w", role, err)
	}
	return m, c.end()
}

// httpCeilings loads a bare net/http server as the workloads load wxidp.
func httpCeilings(ctx context.Context, o *options, s *server, r *report, c *ceilings) error {
	form := "grant_type=refresh_token&client_id=" + miniProgram + "&refresh_token=" + s.users[0].refresh
	size, err := s.tokenAnswerSize(form)
	if err != nil {
		return err
	}
	server, err := startChild(o, nil, "http", "-size", fmt.Sprint(size), "-target", s.code2Session())
	if err != nil {
		return err
	}
	var at listening
	if err := server.hear(ctx, &at); err != nil {
		return err
	}
	plain := func(request []byte, size int) func(int) ([]script, error) {
		return func(connections int) ([]script, error) {
			return repeat(connections, func(int) script { return &plainScript{request, size} }), nil
		}
	}
	for _, kind := range []struct {
		title   string
		scripts func(connections int) ([]script, error)
		each    *time.Duration
	}{
		{"net/http GET, hello", plain(getRequest(at.Address, "/hello"), len("hello\n")), &c.get},
		{fmt.Sprintf("net/http POST form, answer of %d bytes", size), plain(postRequest(nil, at.Address, "/form", "", form), size), &c.form},
		{"the same with a code2Session before the answer", func(connections int) ([]script, error) {
			return s.relays(ctx, at.Address, "/relay", size, connections)
		}, &c.relay},
	} {
		for _, connections := range o.connections {
			progress("ceiling: %s, %d connections", kind.title, connections)
			scripts, err := kind.scripts(connections)
			if err != nil {
				return errors.Join(err, server.end())
			}
			result, err := load(ctx, at.Address, server.cpu, o.warmUp/2, ceilingLength, scripts)
			if err != nil {
				return errors.Join(err, server.end())
			}
			if connections == slices.Max(o.connections) {
				keepLeast(kind.each, result.cpuPerRequest())
			}
			r.ceiling(kind.title, connections, measured{Count: result.requests, CPU: result.cpu, Elapsed: result.elapsed})
		}
	}
	return server.end()
}

// relays sends forms with js_codes to the bare server.
func (s *server) relays(ctx context.Context, address, path string, size, connections int) ([]script, error) {
	names := make([]string, s.codesFor(connections))
	for i := range names {
		names[i] = userName(i % len(s.users))
	}
	codes, err := s.mint(ctx, names)
	if err != nil {
		return nil, err
	}
	supply := &supply{codes: codes}
	return repeat(connections, func(int) script {
		return &relayScript{plainScript: plainScript{size: size}, address: address, path: path, supply: supply}
	}), nil
}

// relayScript sends what signInScript sends.
type relayScript struct {
	plainScript
	address, path string
	supply        *supply
}

func (c *relayScript) request() []byte {
	i, ok := c.supply.take()
	if !ok {
		return nil
	}
	c.text = postRequest(c.text, c.address, c.path, "",
		"grant_type=wechat_jscode&client_id="+miniProgram+"&js_code="+c.supply.codes[i])
	return c.text
}

// plainScript sends the same request again and again.
type plainScript struct {
	text []byte
	size int // of the answer
}

func (p *plainScript) request() []byte { return p.text }

func (p *plainScript) check(status int, body []byte) error {
	if status != http.StatusOK || len(body) != p.size {
		return fmt.Errorf("%d, %d bytes", status, len(body))
	}
	return nil
}

// tokenAnswerSize returns the length of the answer to a refresh by the first
// user, whose tokens it replaces.
func (s *server) tokenAnswerSize(form string) (int, error) {
	c, err := dial(s.host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	status, body, err := c.do(postRequest(nil, s.host, tokenPath, "", form))
	if err != nil {
		return 0, err
	}
	t, err := parseTokens(status, body)
	if err != nil {
		return 0, err
	}
	if len(t.refresh) == 0 || bytes.Equal(t.refresh, []byte(s.users[0].refresh)) {
		return 0, errors.New("not rotated")
	}
	s.users[0].access, s.users[0].refresh = string(t.access), string(t.refresh)
	return len(body), nil
}
