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
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/errgroup"
)

// What the measured server is configured with. The secrets open nothing: the
// server and its data live as long as the measurement.
const (
	appID        = "wx0123456789abcdef"
	appSecret    = "bench-app-secret-0123456789abcdef"
	miniProgram  = "shop-mini"
	backend      = "orders-api"
	backendKey   = "bench-Zk3vQ8pL1xW6tR9uY2sD5fG7hJ0aB4cE"
	audience     = "https://api.shop.example"
	tokenPath    = "/oauth2/token"
	openPlatform = "main"

	simulatorSeed = "bench" // makes everybody's ids
)

const serverConfig = `issuer: http://LISTEN
listen: LISTEN
admin: { listen: ADMIN, socket: admin.sock }
storage: STORAGE
master_key_file: master.key
tokens: { access_token_lifetime: 6h }
rate_limits: { disabled: true }
wechat:
  base_url: http://WECHAT
  apps:
    - { appid: ` + appID + `, secret: ` + appSecret + `, open_platform: ` + openPlatform + ` }
clients:
  - client_id: ` + miniProgram + `
    type: public
    wechat_appid: ` + appID + `
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile, orders.read]
    default_scopes: [openid, profile, orders.read]
    audience: [` + audience + `]
  - client_id: ` + backend + `
    type: confidential
    client_secret: ` + backendKey + `
    grant_types: [client_credentials]
    scopes: [orders.read]
    audience: [` + audience + `]
    introspection: true
`

// server is the server under load, with the simulator behind it.
type server struct {
	o          *options
	db         *database // nil: a file of bbolt
	dir        string
	wxidp, sim *process
	log        *os.File
	readyIn    time.Duration // from the start of the server's process

	host, admin, weChat string // addresses
	issuer              string
	keys                jose.JSONWebKeySet
	jwks                []byte // as it is served
	users               []user
	newUsers            int // users made by first sign-ins so far
}

// user is somebody who signed in, and the newest tokens.
type user struct{ name, sub, access, refresh string }

// startServer starts the simulator and the server with the data that it finds
// in the folder, at first none, or with db.
func startServer(ctx context.Context, o *options, dir string, db *database) (_ *server, err error) {
	s := &server{o: o, dir: dir, db: db}
	for _, address := range []*string{&s.host, &s.admin, &s.weChat} {
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	s.issuer = "http://" + s.host
	storage := "{ driver: bolt, bolt: { path: " + boltFile + " } }"
	if db != nil {
		storage = fmt.Sprintf("{ driver: postgres, postgres: { dsn: %q } }", db.dsn)
	}
	config := strings.NewReplacer("LISTEN", s.host, "ADMIN", s.admin, "WECHAT", s.weChat, "STORAGE", storage).Replace(serverConfig)
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := writeMasterKey(dir); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "wxidp.log")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	s.sim, err = start(o.pin, coreOfLoad, 1, io.Discard, o.binary, "simulator",
		"--listen", s.weChat, "--app", appID+":"+appSecret+":"+openPlatform, "--seed", simulatorSeed)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, s.sim, s.weChat, "/control/"); err != nil {
		return nil, err
	}
	begin := time.Now()
	s.wxidp, err = start(o.pin, coreOfServer, o.procs, s.log, o.binary, "serve",
		"--config", filepath.Join(dir, configFile), "--drain", "0s")
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, s.wxidp, s.host, "/readyz"); err != nil {
		return nil, err
	}
	s.readyIn = time.Since(begin)
	body, err := get(s.host, "/.well-known/jwks.json")
	if err != nil {
		return nil, err
	}
	s.jwks = bytes.Clone(body)
	return s, json.Unmarshal(s.jwks, &s.keys)
}

// await waits until path answers 200.
func (s *server) await(ctx context.Context, p *process, address, path string) error {
	deadline := time.Now().Add(s.o.patience)
	for {
		_, err := get(address, path)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready: %w", err)
		}
		select {
		case <-p.done:
			text, _ := os.ReadFile(s.log.Name()) // the error below says enough without it
			return fmt.Errorf("ended at start: %w\n%s", errors.Join(p.err, errors.New("no server")), text)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *server) stop() error {
	var errs []error
	for _, p := range []*process{s.wxidp, s.sim} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(append(errs, s.log.Close())...)
}

// mint lets users sign in to WeChat: it returns a js_code for each.
func (s *server) mint(ctx context.Context, users []string) ([]string, error) {
	c, err := dial(s.weChat)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	codes := make([]string, 0, len(users))
	var requests []byte
	for len(users) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return nil, err
		}
		// Pipelined, but by no more than fits the sockets' buffers.
		batch := users[:min(len(users), 64)]
		users = users[len(batch):]
		requests = requests[:0]
		for _, name := range batch {
			requests = append(requests, postRequest(nil, s.weChat, "/control/login?format=text", "", "appid="+appID+"&user="+name)...)
		}
		if _, err := c.Write(requests); err != nil {
			return nil, err
		}
		for range batch {
			status, body, err := c.answer()
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("status %d: %s", status, body)
			}
			if err != nil {
				return nil, fmt.Errorf("minting a js_code: %w", err)
			}
			codes = append(codes, strings.TrimSpace(string(body)))
		}
	}
	return codes, nil
}

// seed signs every user in once and keeps the tokens.
func (s *server) seed(ctx context.Context, n int) error {
	s.users = make([]user, n)
	names, numbers := make([]string, n), make([]int, n)
	for i := range n {
		names[i], numbers[i] = userName(i), i
		s.users[i].name = names[i]
	}
	codes, err := s.mint(ctx, names)
	if err != nil {
		return err
	}
	supply := &supply{codes: codes, users: numbers}
	scripts := make([]script, 32)
	for i := range scripts {
		scripts[i] = &signInScript{s: s, supply: supply, keep: true}
	}
	_, err = load(ctx, s.host, s.cpu, 0, maxSeconds*time.Second, scripts)
	if err == nil && s.users[n-1].refresh == "" {
		err = errors.New("not done within a minute")
	}
	return err
}

func userName(i int) string { return "user-" + strconv.Itoa(i) }

// counters reads the storage's counters from the metrics.
func (s *server) counters() (commits, operations float64, err error) {
	values, err := s.metrics("wxidp_storage_commit_seconds_count", "wxidp_storage_operations_total")
	if err != nil {
		return 0, 0, err
	}
	return values[0], values[1], nil
}

// metrics reads metrics that have no labels.
func (s *server) metrics(names ...string) ([]float64, error) {
	client := http.Client{Timeout: answerTimeout}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	for i, name := range names {
		_, rest, found := bytes.Cut(text, []byte("\n"+name+" "))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if !found {
			return nil, fmt.Errorf("no metric %s", name)
		}
		if values[i], err = strconv.ParseFloat(string(line), 64); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// measure runs one workload.
func (s *server) measure(ctx context.Context, w workload, connections int) (*result, error) {
	progress("%s, %d connections", w.name, connections)
	scripts, err := w.scripts(ctx, s, connections)
	if err != nil {
		return nil, err
	}
	commits, operations, err := s.counters()
	if err != nil {
		return nil, err
	}
	profiled := make(chan error, 1)
	if s.o.profile == "" {
		profiled <- nil
	} else {
		go func() { profiled <- s.profile(ctx, fmt.Sprintf("%s-%d", w.name, connections)) }()
	}
	r, err := load(ctx, s.host, s.cpu, s.o.warmUp, s.o.seconds, scripts)
	if err := errors.Join(err, <-profiled); err != nil {
		return nil, err
	}
	if r.requests == 0 {
		return nil, errors.New("nothing was measured")
	}
	commitsAfter, operationsAfter, err := s.counters()
	if err != nil {
		return nil, err
	}
	r.commits, r.operations = commitsAfter-commits, operationsAfter-operations
	r.memory, r.mostMemory, err = memory(s.wxidp.pid())
	return r, err
}

// cpu returns the CPU time that the server has used, and PostgreSQL.
func (s *server) cpu() (server, database time.Duration, err error) {
	if server, err = cpuTime(s.wxidp.pid()); err == nil && s.db != nil {
		database, err = familyTime(s.db.Pid())
	}
	return server, database, err
}

// profile writes profiles of the time in which load measures: where the CPU
// time went, and what was allocated.
func (s *server) profile(ctx context.Context, name string) error {
	if err := os.MkdirAll(s.o.profile, 0o755); err != nil {
		return err
	}
	select {
	case <-time.After(s.o.warmUp):
	case <-ctx.Done():
		return ctx.Err()
	}
	seconds := strconv.Itoa(max(1, int(s.o.seconds/time.Second)))
	var group errgroup.Group
	for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		group.Go(func() error {
			return s.download(ctx, "/debug/pprof/"+path+"?seconds="+seconds, filepath.Join(s.o.profile, name+"."+kind+".pb.gz"))
		})
	}
	return group.Wait()
}

// download writes what the admin socket answers to a file.
func (s *server) download(ctx context.Context, path, file string) error {
	client := s.adminClient()
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, answer.Body)
	return errors.Join(err, out.Close())
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
