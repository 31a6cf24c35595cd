package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxidp/wxidp/internal/seal"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/storage/bolt"
)

// measured is what a child says of its work.
type measured struct {
	Count   int           `json:"count"`
	CPU     time.Duration `json:"cpu"`
	Elapsed time.Duration `json:"elapsed"`
	Commits int           `json:"commits,omitempty"`
	Failed  string        `json:"failed,omitempty"`
}

func (m measured) cpuEach() time.Duration { return m.CPU / time.Duration(max(m.Count, 1)) }

func (m measured) perSecond() float64 { return float64(m.Count) / m.Elapsed.Seconds() }

// listening is what a child that is a server says first.
type listening struct {
	Address string `json:"address"`
}

// runChild is the program in one of its other roles, all of them ceilings:
//
//	sign      ES256 signatures       verify   ES256 verifications
//	http      a server that answers GET /hello and POST /form with fixed text
//	outbound  calls to code2Session  store    sign-ins of the storage alone
//	bare      a server that signs and commits to PostgreSQL
func runChild(role string, args []string) error {
	// As the server does.
	debug.SetGCPercent(400)
	runtime.MemProfileRate = 8 << 20
	flags := flag.NewFlagSet(role, flag.ContinueOnError)
	length := flags.Duration("for", time.Second, "")
	target := flags.String("target", "", "")
	workers := flags.Int("workers", 1, "")
	size := flags.Int("size", 0, "")
	dsn := flags.String("dsn", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch role {
	case "sign":
		return timed(*length, 1, signer(func(key *ecdsa.PrivateKey, digest []byte) error {
			_, err := ecdsa.SignASN1(rand.Reader, key, digest)
			return err
		}))
	case "verify":
		return timed(*length, 1, verifier())
	case "http":
		return serveCeiling(*size, *target)
	case "bare":
		return serveBare(*dsn, *target, *size)
	case "outbound":
		return callOut(*length, *target, *workers)
	case "store":
		return commitAlone(*length, *target, *workers)
	}
	return fmt.Errorf("unknown role %q", role)
}

// timed runs one work on several goroutines for a while and says what it cost.
func timed(length time.Duration, workers int, work func() error) error {
	m, err := timeWork(length, workers, work)
	if err != nil {
		return err
	}
	return say(m)
}

var errNoMore = errors.New("no more work")

func timeWork(length time.Duration, workers int, work func() error) (measured, error) {
	// A tenth of the time warms up.
	var count atomic.Int64
	var stop atomic.Bool
	var wait sync.WaitGroup
	failed := make(chan error, workers)
	for range workers {
		wait.Go(func() {
			for !stop.Load() {
				if err := work(); err != nil {
					failed <- err
					return
				}
				count.Add(1)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wait.Wait(); close(ended) }()
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ended:
		}
	}
	pause(length / 10)
	first, begin := count.Load(), time.Now()
	cpu, err := cpuTime(os.Getpid())
	if err != nil {
		return measured{}, err
	}
	pause(length)
	m := measured{Count: int(count.Load() - first), Elapsed: time.Since(begin)}
	after, err := cpuTime(os.Getpid())
	m.CPU = after - cpu
	stop.Store(true)
	<-ended
	select {
	case failure := <-failed:
		if !errors.Is(failure, errNoMore) {
			err = errors.Join(err, failure)
		}
	default:
	}
	return m, err
}

func signer(sign func(key *ecdsa.PrivateKey, digest []byte) error) func() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return func() error {
		if err != nil {
			return err
		}
		digest := sha256.Sum256(signedText)
		return sign(key, digest[:])
	}
}

// signedText is as long as header and claims of an access token.
var signedText = []byte(strings.Repeat("0123456789", 52))

func verifier() func() error {
	var signature []byte
	return signer(func(key *ecdsa.PrivateKey, digest []byte) (err error) {
		if signature == nil {
			if signature, err = ecdsa.SignASN1(rand.Reader, key, digest); err != nil {
				return err
			}
		}
		if !ecdsa.VerifyASN1(&key.PublicKey, digest, signature) {
			return errors.New("a signature does not verify")
		}
		return nil
	})
}

// serveCeiling is the least that net/http does: no router, no middleware, and
// the limits of a connection that wxidp sets. /form answers a form, /relay after a call to
// code2Session at target.
func serveCeiling(size int, target string) error {
	reply := []byte(strings.Repeat("x", size))
	length := strconv.Itoa(size)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello\n")
	})
	client := newCaller(maxConnections)
	answer := func(w http.ResponseWriter, r *http.Request, call bool) {
		err := r.ParseForm()
		if err == nil && call {
			err = code2Session(client, target+r.PostForm.Get("js_code"))
		}
		if err != nil || r.PostForm.Get("grant_type") == "" {
			http.Error(w, "no form, or no session", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(reply)
	}
	mux.HandleFunc("POST /form", func(w http.ResponseWriter, r *http.Request) { answer(w, r, false) })
	mux.HandleFunc("POST /relay", func(w http.ResponseWriter, r *http.Request) { answer(w, r, true) })
	return serveChild(mux)
}

// callOut makes the call of a sign-in to WeChat and nothing else, with Go's
// own client and the deadline that no such call may be without. It takes
// js_codes from standard input.
func callOut(length time.Duration, target string, workers int) error {
	var codes []string
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		codes = append(codes, lines.Text())
	}
	var next atomic.Int64
	client := newCaller(workers)
	return timed(length, workers, func() error {
		i := int(next.Add(1)) - 1
		if i >= len(codes) {
			return errNoMore
		}
		return code2Session(client, target+codes[i])
	})
}

func newCaller(connections int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true},
		Timeout:   answerTimeout,
	}
}

func code2Session(client *http.Client, url string) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && !strings.Contains(string(body), `"openid"`) {
		err = fmt.Errorf("code2Session: %s", body)
	}
	return err
}

// commitAlone records sign-ins in a store of its own under the folder target.
func commitAlone(length time.Duration, target string, workers int) (err error) {
	ring, err := seal.ParseKeyring([]byte(seal.GenerateKey()))
	if err != nil {
		return err
	}
	var commits atomic.Int64
	ctx := context.Background()
	store, err := bolt.Open(ctx, bolt.Options{
		Path: filepath.Join(target, "store.db"), Keyring: ring,
		OnCommit: func(int, time.Duration) { commits.Add(1) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	const people = 10_000
	var next atomic.Int64
	signIn := func() error {
		_, err := store.SignIn(ctx, storage.SignIn{
			AppID: appID, WeChatOpenID: "openid-" + strconv.FormatInt(next.Add(1)%people, 10),
			NewProfile: storage.Profile{Nickname: "nickname"},
			Family: storage.Family{
				ClientID: miniProgram, Scope: []string{"openid", "profile", "orders.read"},
				Audience: []string{audience}, AuthTime: time.Now(), AMR: []string{"wechat"},
			},
			Idle: time.Hour, Absolute: time.Hour,
		})
		return err
	}
	// Everybody signs in once before the measurement.
	var wait sync.WaitGroup
	failed := make(chan error, 64)
	for range 64 {
		wait.Go(func() {
			for range people / 64 {
				if err := signIn(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wait.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	before := commits.Load()
	m, err := timeWork(length, workers, signIn)
	if err != nil {
		return err
	}
	m.Commits = int(commits.Load() - before)
	return say(m)
}
