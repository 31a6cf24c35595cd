package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// relyingParties answer logout tokens as clients do, by host, without sockets.
type relyingParties struct {
	mu      sync.Mutex
	answers map[string]func(*http.Request) (int, error) // by host; none: 200
	told    []delivery
}

// delivery is a logout token that was sent.
type delivery struct {
	host string
	at   time.Time
	sid  string
}

func (p *relyingParties) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(form.Get("logout_token"), ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, err
	}
	var claims struct{ SID string }
	if err := json.Unmarshal(raw, &claims); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.told = append(p.told, delivery{r.URL.Host, time.Now(), claims.SID})
	answer := p.answers[r.URL.Host]
	p.mu.Unlock()
	status := http.StatusOK
	if answer != nil {
		if status, err = answer(r); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{"Location": {"https://elsewhere.example/"}}}, nil
}

func (p *relyingParties) answer(host string, with func(*http.Request) (int, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[host] = with
}

func status(code int) func(*http.Request) (int, error) {
	return func(*http.Request) (int, error) { return code, nil }
}

// hang answers nothing until the caller gives up.
func hang(r *http.Request) (int, error) {
	<-r.Context().Done()
	return 0, r.Context().Err()
}

// at returns what a host was told so far.
func (p *relyingParties) at(host string) []delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []delivery
	for _, d := range p.told {
		if d.host == host {
			out = append(out, d)
		}
	}
	return out
}

// logoutBench is a bench with relying parties and a log, in a synctest bubble.
type logoutBench struct {
	*bench
	parties *relyingParties
	logged  *lines
}

// events counts the log lines of an event.
func (b *logoutBench) events(name string) int { return len(b.logged.events(name)) }

const quickClient = "quick-web"

func newLogoutBench(t *testing.T) *logoutBench {
	t.Helper()
	b := &logoutBench{logged: new(lines), parties: &relyingParties{answers: map[string]func(*http.Request) (int, error){}}}
	b.bench = newBench(t, logoutClientsOf, func(settings *Settings) {
		settings.Logout.Timeout = 5 * time.Second
		settings.Clients = append(settings.Clients, Client{ID: quickClient, Public: true, AuthMethod: AuthNone,
			GrantTypes: []string{GrantAuthorizationCode}, IDTokenAlg: "ES256", BackchannelLogoutURI: "https://quick.example/backchannel"})
	})
	b.logouts.transport = b.parties
	b.log = slog.New(slog.NewJSONHandler(b.logged, nil))
	return b
}

// run runs a worker until the returned function is called.
func (b *logoutBench) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.RunLogouts(ctx)
	}()
	return sync.OnceFunc(func() { cancel(); <-ended })
}

// queue adds n notices for a client.
func (b *logoutBench) queue(clientID string, n int) (sids []string) {
	b.t.Helper()
	notices := make([]storage.LogoutNotice, n)
	for i := range notices {
		notices[i] = storage.LogoutNotice{ID: storage.NewLogoutID(), ClientID: clientID, UserID: "u-1", FamilyID: storage.NewFamilyID(), EndedAt: time.Now()}
		sids = append(sids, notices[i].FamilyID.String())
	}
	for part := range slices.Chunk(notices, storage.MaxPage) {
		if err := b.store.QueueLogouts(context.Background(), part); err != nil {
			b.t.Fatal(err)
		}
	}
	b.wakeLogouts()
	return sids
}

// queued reports how many notices there are, whenever they are due.
func (b *logoutBench) queued() int {
	b.t.Helper()
	time.Sleep(30 * 24 * time.Hour)
	due, err := b.store.DueLogouts(context.Background(), 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(due)
}
