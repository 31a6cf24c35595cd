package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// What the servers are configured with. The secrets open nothing: servers and
// data live as long as the scenario.
const (
	appID        = "wx0123456789abcdef"
	appSecret    = "torture-app-secret-0123456789abcdef"
	openPlatform = "main"
	miniProgram  = "shop-mini"
	webApp       = "shop-spa"
	redirectURI  = "https://spa.example/cb"
	backend      = "orders-api"
	backendKey   = "torture-Zk3vQ8pL1xW6tR9uY2sD5fG7hJ0aB4cE"
	audience     = "https://api.shop.example"
	accountWord  = "torture-password-0123456789"
)

// grace is the longest refresh_grace there may be, so that clients on a busy
// machine repeat within it.
const grace = 60 * time.Second

const nodeConfig = `issuer: ISSUER
listen: LISTEN
admin: { listen: ADMIN, socket: SOCKET }
STORAGE
master_key_file: MASTERKEY
tokens: { access_token_lifetime: 6h, refresh_grace: 60s }
rate_limits: { disabled: true }
wechat:
  base_url: WECHAT
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
  - client_id: ` + webApp + `
    type: public
    grant_types: [authorization_code, refresh_token]
    redirect_uris: [` + redirectURI + `]
    id_token_signed_response_alg: ES256
    consent: skip
    scopes: [openid, profile, offline_access, orders.read]
    default_scopes: [openid]
    audience: [` + audience + `]
  - client_id: ` + backend + `
    type: confidential
    client_secret: ` + backendKey + `
    grant_types: [client_credentials]
    scopes: [orders.read]
    default_scopes: [orders.read]
    audience: [` + audience + `]
    introspection: true
`

// standardRules go with nodeConfig.
var standardRules = Rules{
	Grace:          grace,
	AccessLifetime: 6 * time.Hour,
	Audience:       map[string]string{miniProgram: audience, webApp: audience},
}

// RigOptions say what servers a scenario needs.
type RigOptions struct {
	Dir    string // of everything that is not put elsewhere
	Binary string
	Nodes  int    // 0 stands for 1
	Issuer string // "": the address of the first node; with several nodes that of a balancer
	// Storage returns the section storage of a node's configuration, which ends
	// with a newline; nil: bolt in Node.Data.
	Storage func(n *Node) string
	// Config edits the configuration of a node, where it is not nil.
	Config func(yaml string) string
	Env    []string // beyond the environment of this process
	Seed   uint64   // of WeChat's ids
	// WeChat answers in place of the simulator, which it may wrap.
	WeChat func(sim http.Handler) http.Handler
}

// Rig is a number of nodes with WeChat simulated behind them, and the history
// of what they were asked.
type Rig struct {
	Options RigOptions
	History *History
	Sim     *simulator.Simulator
	Nodes   []*Node
	Issuer  string
	weChat  *httptest.Server
	http    *http.Client
}

// NewRig prepares nodes and starts none. Close frees what it holds.
func NewRig(o RigOptions) (_ *Rig, err error) {
	r := &Rig{Options: o}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if r.History, err = NewHistory(filepath.Join(o.Dir, "history.jsonl")); err != nil {
		return nil, err
	}
	r.Sim = simulator.New(simulator.Options{Seed: fmt.Sprint(o.Seed), Apps: []simulator.App{
		{AppID: appID, Secret: appSecret, OpenPlatform: openPlatform}}})
	handler := r.Sim.API()
	if o.WeChat != nil {
		handler = o.WeChat(handler)
	}
	r.weChat = httptest.NewServer(handler)
	r.http = newHTTPClient()
	if err := os.WriteFile(filepath.Join(o.Dir, "master.key"), []byte(seal.GenerateKey()+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	for i := range max(o.Nodes, 1) {
		n, err := r.newNode(fmt.Sprintf("node-%d", i+1))
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.Nodes = append(r.Nodes, n)
	}
	r.Issuer = cmp.Or(o.Issuer, "http://"+r.Nodes[0].Address)
	return r, nil
}

// newHTTPClient follows no redirects and keeps connections.
func newHTTPClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second},
		Timeout:       30 * time.Second,
	}
}

// Close ends all nodes and the simulator. The files stay.
func (r *Rig) Close() error {
	for _, n := range r.Nodes {
		n.Kill()
	}
	r.http.CloseIdleConnections()
	r.weChat.CloseClientConnections()
	r.weChat.Close()
	return r.History.Close()
}

// StartAll starts every node and returns the longest time that one took.
func (r *Rig) StartAll(ctx context.Context) (slowest time.Duration, err error) {
	for _, n := range r.Nodes {
		took, err := n.Start(ctx)
		if err != nil {
			return 0, err
		}
		slowest = max(slowest, took)
	}
	return slowest, nil
}

// Node is one server process and where it keeps what.
type Node struct {
	Name    string
	Dir     string // configuration, socket, log
	Data    string // of bolt; may be moved while the node is down
	Address string // of the public listener
	Admin   string
	Binary  string
	Args    []string // of serve, beyond --config
	Env     []string // beyond that of all nodes

	rig   *Rig
	admin *http.Client // by the socket

	mu   sync.Mutex // guards proc, which another goroutine may ask for
	proc *process
}

func (r *Rig) newNode(name string) (*Node, error) {
	n := &Node{Name: name, Dir: filepath.Join(r.Options.Dir, name), Binary: r.Options.Binary, Args: []string{"--drain", "0s"}, rig: r}
	n.Data = filepath.Join(n.Dir, "data")
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if n.Address, err = freeAddress(); err != nil {
		return nil, err
	}
	if n.Admin, err = freeAddress(); err != nil {
		return nil, err
	}
	n.admin = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.Socket())
		},
	}}
	return n, nil
}

// Socket is the path of the admin socket.
func (n *Node) Socket() string { return filepath.Join(n.Dir, "admin.sock") }

// ConfigPath is the path of the node's config.yaml.
func (n *Node) ConfigPath() string { return filepath.Join(n.Dir, "config.yaml") }

// Config is the node's configuration.
func (n *Node) Config() string {
	section := "storage: { driver: bolt, bolt: { path: " + filepath.Join(n.Data, "wxidp.db") + " } }\n"
	if n.rig.Options.Storage != nil {
		section = n.rig.Options.Storage(n)
	}
	yaml := strings.NewReplacer("ISSUER", n.rig.Issuer, "LISTEN", n.Address, "ADMIN", n.Admin, "SOCKET", n.Socket(),
		"STORAGE\n", section, "MASTERKEY", filepath.Join(n.rig.Options.Dir, "master.key"), "WECHAT", n.rig.weChat.URL).Replace(nodeConfig)
	if n.rig.Options.Config != nil {
		yaml = n.rig.Options.Config(yaml)
	}
	return yaml
}

// readyWithin is how long a start may take before the node counts as hung.
const readyWithin = 60 * time.Second

// Start writes the configuration, starts the process and waits until the node
// is ready. It returns how long that took.
func (n *Node) Start(ctx context.Context) (time.Duration, error) {
	if err := os.WriteFile(n.ConfigPath(), []byte(n.Config()), 0o600); err != nil {
		return 0, err
	}
	begin := time.Now()
	proc, err := startProcess(filepath.Join(n.Dir, "log"), slices.Concat(n.rig.Options.Env, n.Env), n.Binary, append([]string{"serve", "--config", n.ConfigPath()}, n.Args...)...)
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	n.proc = proc
	n.mu.Unlock()
	for {
		if n.Ready(ctx) {
			return time.Since(begin), nil
		}
		select {
		case <-proc.done:
			return 0, fmt.Errorf("%s ended at its start: %w\n%s", n.Name, errors.Join(proc.err, errors.New("no server")), n.tail())
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(begin) > readyWithin {
			return 0, fmt.Errorf("%s is not ready after %s\n%s", n.Name, readyWithin, n.tail())
		}
	}
}

// Ready asks /readyz.
func (n *Node) Ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Address+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := n.rig.http.Do(req)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (n *Node) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// Pid is the id of the process; 0 before the first start.
func (n *Node) Pid() int {
	if p := n.process(); p != nil {
		return p.pid()
	}
	return 0
}

// Running reports whether the process is there.
func (n *Node) Running() bool {
	p := n.process()
	return p != nil && !p.gone()
}

// Kill ends the process as kill -9 does. Nothing happens where it has ended.
func (n *Node) Kill() {
	if p := n.process(); p != nil && !p.gone() {
		p.kill()
		n.rig.History.Died(n.Name)
	}
}

// Stop ends the process with SIGTERM and waits for it.
func (n *Node) Stop() error {
	p := n.process()
	if p == nil || p.gone() {
		return fmt.Errorf("%s had ended by itself\n%s", n.Name, n.tail())
	}
	err := p.stop(40 * time.Second)
	n.rig.History.Died(n.Name)
	return err
}

// Log is all that the node has logged.
func (n *Node) Log() string {
	text, err := os.ReadFile(filepath.Join(n.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (n *Node) tail() string {
	text := n.Log()
	return text[max(0, len(text)-2000):]
}

// given are the addresses that freeAddress has returned: one is free until its
// server listens, and must not be given away twice meanwhile.
var given sync.Map

func freeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			return "", err
		}
		if _, taken := given.LoadOrStore(address, true); !taken {
			return address, nil
		}
	}
}
