package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// duelRounds is how often wxidp and the bare server take turns at least.
const duelRounds = 3

// duel sets a workload on PostgreSQL against the bare server.
type duel struct {
	workload string
	scripts  func(ctx context.Context, s *server, b *bare, connections int) ([]script, error)
	what     string  // the bare server does
	goal     float64 // the share of its rate that is wanted at 64 connections; 0: none
}

var allDuels = []duel{
	{"sign-in", bareSignIns, "code2Session, one row inserted, two signatures", 0},
	{"refresh", bareRefreshes, "one row updated where its version is as presented, two signatures", 0.8},
	{"introspection", bareIntrospections, "one row read, one verification", 0},
}

// bare is the bare server as the benchmark sees it.
type bare struct {
	*child
	at       string
	size     int // of its answers
	versions []int64
}

// duelRow is what came of a duel with a number of connections: the results of
// the rounds, in their order.
type duelRow struct {
	duel        duel
	connections int
	bare, wxidp []*result
}

func measureDuels(ctx context.Context, o *options, s *server, r *report) error {
	for _, d := range allDuels {
		if !slices.Contains(o.workloads, d.workload) {
			continue
		}
		w := allWorkloads[slices.IndexFunc(allWorkloads, func(w workload) bool { return w.name == d.workload })]
		for _, connections := range o.connections {
			row, err := runDuel(ctx, o, s, d, w, connections)
			if err != nil {
				return fmt.Errorf("%s with %d connections: %w", w.name, connections, err)
			}
			r.duels = append(r.duels, row)
			for _, result := range row.wxidp {
				r.workload(w, connections, result)
			}
		}
	}
	return nil
}

func runDuel(ctx context.Context, o *options, s *server, d duel, w workload, connections int) (row duelRow, err error) {
	b, err := startBare(ctx, o, s, d)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	clock := func() (server, database time.Duration, err error) {
		if server, err = cpuTime(b.pid()); err == nil {
			database, err = familyTime(s.db.Pid())
		}
		return server, database, err
	}
	row = duelRow{duel: d, connections: connections}
	for range max(duelRounds, o.rounds) {
		progress("bare server, %s, %d connections", d.workload, connections)
		scripts, err := d.scripts(ctx, s, b, connections)
		if err != nil {
			return row, err
		}
		result, err := load(ctx, b.at, clock, o.warmUp, o.seconds, scripts)
		if err != nil {
			return row, fmt.Errorf("bare server: %w", err)
		}
		row.bare = append(row.bare, result)
		if result, err = s.measure(ctx, w, connections); err != nil {
			return row, err
		}
		row.wxidp = append(row.wxidp, result)
	}
	return row, nil
}

func startBare(ctx context.Context, o *options, s *server, d duel) (*bare, error) {
	size, err := s.answerSize(d.workload)
	if err != nil {
		return nil, err
	}
	c, err := startChild(o, nil, "bare", "-size", fmt.Sprint(size), "-target", s.code2Session(), "-dsn", s.db.dsn)
	if err != nil {
		return nil, err
	}
	var at listening
	if err := c.hear(ctx, &at); err != nil {
		return nil, errors.Join(err, c.end())
	}
	b := &bare{child: c, at: at.Address, size: size, versions: make([]int64, bareRows)}
	return b, s.db.versions(ctx, b.versions)
}

// answerSize is the length of wxidp's answers in a workload.
func (s *server) answerSize(workload string) (int, error) {
	if workload != "introspection" {
		return s.tokenAnswerSize("grant_type=refresh_token&client_id=" + miniProgram + "&refresh_token=" + s.users[0].refresh)
	}
	c, err := dial(s.host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	status, body, err := c.do(postRequest(nil, s.host, "/oauth2/introspect", basicAuth, "token="+s.users[0].access))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("introspection: %d", status)
	}
	return len(body), err
}

func bareSignIns(ctx context.Context, s *server, b *bare, connections int) ([]script, error) {
	return s.relays(ctx, b.at, "/sign-in", b.size, connections)
}

func bareRefreshes(_ context.Context, _ *server, b *bare, connections int) ([]script, error) {
	return repeat(connections, func(i int) script {
		return &bareScript{b: b, path: "/refresh", form: "grant_type=refresh_token&client_id=" + miniProgram + "&refresh_token=",
			changes: true, at: i, step: connections}
	}), nil
}

func bareIntrospections(_ context.Context, _ *server, b *bare, connections int) ([]script, error) {
	return repeat(connections, func(i int) script {
		return &bareScript{b: b, path: "/introspect", headers: basicAuth, form: "token=", at: i, step: connections}
	}), nil
}

// bareScript goes through the rows of its share, one after the other.
type bareScript struct {
	b                   *bare
	path, headers, form string
	changes             bool // an answer means that the row has the next version
	at, step, current   int
	buf                 []byte
}

func (c *bareScript) request() []byte {
	c.current = c.at
	if c.at += c.step; c.at >= bareRows {
		c.at %= c.step
	}
	c.buf = postRequest(c.buf, c.b.at, c.path, c.headers, c.form+rowName(c.current, c.b.versions[c.current]))
	return c.buf
}

func (c *bareScript) check(status int, body []byte) error {
	if status != http.StatusOK || len(body) != c.b.size {
		return fmt.Errorf("bare server: %d %.100s", status, body)
	}
	if c.changes {
		c.b.versions[c.current]++
	}
	return nil
}
