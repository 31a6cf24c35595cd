package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// scaleRun measures a store that is filled.
type scaleRun struct {
	o      *scaleOptions
	db     *database
	report *report
	sample []sampledUser
	turn   int // where the next measurement begins in the sample
}

// measure measures all parts that were asked for.
func (m *scaleRun) measure(ctx context.Context) error {
	steps := map[string]func(context.Context) error{
		"sizes": m.sizes, "start": m.starts, "load": m.load, "list": m.list, "expiry": m.expiry, "backup": m.backup,
	}
	for _, part := range scaleParts {
		if !slices.Contains(m.o.parts, part) {
			continue
		}
		progress("%s: %s", m.o.engine, part)
		if err := steps[part](ctx); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// serving runs work on a started server, and keeps what became of the sample.
func (m *scaleRun) serving(ctx context.Context, work func(s *server) error) (err error) {
	s, err := startServer(ctx, &m.o.options, m.o.dir, m.db)
	if err != nil {
		return err
	}
	s.newUsers = int(time.Now().Unix()) * 1_000_000 // names that no earlier run used
	s.users = make([]user, len(m.sample))
	for i := range s.users {
		at := (i + m.turn) % len(m.sample)
		s.users[i] = user{name: userName(at), sub: m.sample[at].Sub, refresh: m.sample[at].Refresh}
	}
	all := s.users
	err = errors.Join(work(s), s.stop())
	for i := range all {
		m.sample[(i+m.turn)%len(m.sample)].Refresh = all[i].refresh
	}
	m.turn = (m.turn + len(m.sample)/3) % len(m.sample)
	return errors.Join(err, writeSample(m.o.dir, m.sample))
}

// starts measures how long the server takes to be ready and to answer its
// first refresh.
func (m *scaleRun) starts(ctx context.Context) error {
	m.report.printf("\n| start | ready after s | first refresh ms | resident MiB | of these its own |\n|---|---:|---:|---:|---:|\n")
	for _, how := range []struct {
		name       string
		cold, kill bool
	}{
		{"after a clean end, nothing in the page cache", true, false}, {"after a clean end", false, true},
		{"after kill -9", false, true}, {"after kill -9, nothing in the page cache", true, false},
	} {
		if how.cold && m.db == nil {
			if err := forgetPages(filepath.Join(m.o.dir, boltFile)); err != nil {
				return err
			}
		}
		err := m.serving(ctx, func(s *server) error {
			first, err := m.firstRefresh(s)
			if err != nil {
				return err
			}
			all, own, err := residentMemory(s.wxidp.pid())
			if err != nil {
				return err
			}
			m.report.printf("| %s | %.2f | %.1f | %s | %s |\n", how.name, s.readyIn.Seconds(), millis(first), mebibytes(all), mebibytes(own))
			if how.kill {
				return s.wxidp.kill()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *scaleRun) firstRefresh(s *server) (time.Duration, error) {
	c, err := dial(s.host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	script := &refreshScript{s: s, step: 1}
	begin := time.Now()
	status, body, err := c.do(script.request())
	took := time.Since(begin)
	if err == nil {
		err = script.check(status, body)
	}
	return took, err
}

// awaitInspection waits until the server has read the whole of a large data
// file, which it does while it serves.
func (m *scaleRun) awaitInspection(ctx context.Context, s *server) error {
	info, err := os.Stat(filepath.Join(m.o.dir, boltFile))
	if m.db != nil || err != nil || info.Size() < 256<<20 {
		return nil
	}
	begin := time.Now()
	for time.Since(begin) < m.o.patience {
		log, err := os.ReadFile(s.log.Name())
		if err != nil {
			return err
		}
		if bytes.Contains(log, []byte("storage.inspect")) {
			m.report.printf("\nThe data file was read as a whole %.0f s after the server was ready.\n", time.Since(begin).Seconds())
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the data file was not read in time")
}

// load measures the usual workloads.
func (m *scaleRun) load(ctx context.Context) error {
	return m.serving(ctx, func(s *server) error {
		if err := m.awaitInspection(ctx, s); err != nil {
			return err
		}
		rows := &report{out: m.report.out, engine: m.report.engine}
		for _, name := range []string{"first-sign-in", "sign-in", "refresh", "introspection"} {
			for _, connections := range m.o.connections {
				result, err := m.workload(ctx, s, name, connections)
				if err != nil {
					return fmt.Errorf("%s with %d connections: %w", name, connections, err)
				}
				rows.workload(workload{name: name}, connections, result)
			}
		}
		rows.workloads()
		all, own, err := residentMemory(s.wxidp.pid())
		m.report.printf("\nAfter the load the server has %s MiB resident, of these its own: %s MiB.\n", mebibytes(all), mebibytes(own))
		return err
	})
}

// workload measures one of allWorkloads; each refreshes others of the sample
// than the one before, and introspection is of those who were refreshed.
func (m *scaleRun) workload(ctx context.Context, s *server, name string, connections int) (*result, error) {
	w := allWorkloads[slices.IndexFunc(allWorkloads, func(w workload) bool { return w.name == name })]
	all := s.users
	defer func() { s.users = all }()
	switch name {
	case "refresh":
		n := len(all) / 3
		k := slices.Index(m.o.connections, connections) % 3
		s.users = all[k*n : (k+1)*n]
	case "introspection":
		s.users = slices.DeleteFunc(slices.Clone(all), func(u user) bool { return u.access == "" })
		if len(s.users) < connections {
			return nil, errors.New("too few users were refreshed before")
		}
	}
	return s.measure(ctx, w, connections)
}

// listPages is how many pages of users are read.
const listPages = 100

// list measures what operators look at.
func (m *scaleRun) list(ctx context.Context) error {
	return m.serving(ctx, func(s *server) error {
		client := s.adminClient()
		defer client.CloseIdleConnections()
		ask := func(method, path, body string, to any) (time.Duration, error) {
			begin := time.Now()
			err := askAdmin(ctx, client, method, path, body, to)
			return time.Since(begin), err
		}
		m.report.printf("\n| what an operator asks | ms |\n|---|---:|\n")
		var page struct{ Next string }
		var total time.Duration
		for i := range listPages {
			took, err := ask(http.MethodGet, "/admin/users?limit=1000&after="+page.Next, "", &page)
			if err != nil {
				return err
			}
			if i == 0 {
				m.report.printf("| the first page of 1000 users | %.1f |\n", millis(took))
			}
			total += took
			if page.Next == "" {
				break
			}
		}
		m.report.printf("| %d pages of 1000 users | %.0f |\n", listPages, millis(total))
		for _, q := range []struct{ what, method, path, body string }{
			{"a page of 1000 users from the middle", http.MethodGet, "/admin/users?limit=1000&after=V", ""},
			{"a user by id, with the newest sign-ins", http.MethodPost, "/admin/users/show", `{"who":"` + s.users[0].sub + `"}`},
			{"another one", http.MethodPost, "/admin/users/show", `{"who":"` + s.users[1].sub + `"}`},
			{"a user by WeChat's openid", http.MethodPost, "/admin/users/show", `{"who":"wechat:` + appID + `/` + s.users[0].sub + `"}`},
		} {
			took, err := ask(q.method, q.path, q.body, nil)
			if err != nil && !strings.Contains(err.Error(), "404") {
				return err
			}
			m.report.printf("| %s | %.1f |\n", q.what, millis(took))
		}
		begin := time.Now()
		if _, err := get(s.admin, "/metrics"); err != nil && !strings.Contains(err.Error(), "Content-Length") {
			return err
		}
		m.report.printf("| /metrics | %.1f |\n", millis(time.Since(begin)))
		return nil
	})
}

func (s *server) adminClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "admin.sock"))
		},
	}}
}

func askAdmin(ctx context.Context, client *http.Client, method, path, body string, to any) (err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, answer.Status, bytes.TrimSpace(text))
	}
	if to == nil {
		return nil
	}
	return json.Unmarshal(text, to)
}

// backup measures a backup while refreshes go on.
func (m *scaleRun) backup(ctx context.Context) error {
	if m.db != nil {
		return nil
	}
	return m.serving(ctx, func(s *server) error {
		path := filepath.Join(m.o.dir, "backup.db")
		defer os.Remove(path)
		done := make(chan error, 1)
		begin := time.Now()
		var took time.Duration
		go func() {
			err := s.download(ctx, "/admin/backup", path)
			took = time.Since(begin)
			done <- err
		}()
		result, err := m.workload(ctx, s, "refresh", m.o.connections[0])
		if err := errors.Join(err, <-done); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		m.report.printf("\nA backup of %s MiB took %.1f s; refreshes meanwhile, %d connections: %.0f per second, p50 %.2f ms, p99 %.2f ms.\n", mebibytes(info.Size()),
			took.Seconds(), m.o.connections[0], result.perSecond(), millis(result.percentile(.5)), millis(result.percentile(.99)))
		return nil
	})
}
