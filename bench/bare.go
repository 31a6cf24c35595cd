package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const heapFloor = 16 << 20

// bareServer does with PostgreSQL what no server like wxidp can leave out, and
// nothing else: no client, scope, MAC or claim is looked at.
type bareServer struct {
	pool      *pgxpool.Pool
	key       *ecdsa.PrivateKey
	signature []byte // a good one
	caller    *http.Client
	target    string // the URL of code2Session, up to the js_code
	reply     []byte
	length    string
}

// serveBare answers on loopback until standard input ends.
//
//	POST /refresh     one row updated if its version is the one in the form; two signatures
//	POST /sign-in     a call to code2Session, one row inserted; two signatures
//	POST /introspect  one verification, one row read
func serveBare(dsn, target string, size int) error {
	floor := make([]byte, heapFloor) // as wxidp has one, so that garbage is collected as rarely
	defer runtime.KeepAlive(floor)
	b, err := newBareServer(context.Background(), dsn, target, size)
	if err != nil {
		return err
	}
	defer b.pool.Close()
	return serveChild(b.routes())
}

func newBareServer(ctx context.Context, dsn, target string, size int) (*bareServer, error) {
	b := &bareServer{caller: newCaller(maxConnections), target: target, reply: []byte(strings.Repeat("x", size)), length: strconv.Itoa(size)}
	var err error
	if b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if b.signature, err = b.sign(); err != nil {
		return nil, err
	}
	b.pool, err = pgxpool.New(ctx, dsn)
	return b, err
}

func (b *bareServer) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /refresh", b.answer(b.refresh))
	mux.HandleFunc("POST /sign-in", b.answer(b.signIn))
	mux.HandleFunc("POST /introspect", b.answer(b.introspect))
	return mux
}

// serveChild serves on a free port, which it tells the parent, until standard
// input ends. It sets the limits of a connection that wxidp sets.
func serveChild(handler http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		_ = server.Close()
	}()
	if err := say(listening{listener.Addr().String()}); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (b *bareServer) answer(do func(r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := r.ParseForm()
		if err == nil {
			err = do(r)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Length", b.length)
		_, _ = w.Write(b.reply)
	}
}

func (b *bareServer) refresh(r *http.Request) error {
	id, version, err := parseRowName(r.PostForm.Get("refresh_token"))
	if err != nil {
		return err
	}
	tag, err := b.pool.Exec(r.Context(), bareRotate, id, version)
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return errors.New("another version")
	}
	return b.signTwice()
}

func (b *bareServer) signIn(r *http.Request) error {
	if err := code2Session(b.caller, b.target+r.PostForm.Get("js_code")); err != nil {
		return err
	}
	var id [16]byte
	rand.Read(id[:])
	if _, err := b.pool.Exec(r.Context(), bareInsert, id, bareValue); err != nil {
		return err
	}
	return b.signTwice()
}

func (b *bareServer) introspect(r *http.Request) error {
	id, _, err := parseRowName(r.PostForm.Get("token"))
	if err != nil {
		return err
	}
	digest := sha256.Sum256(signedText)
	if !ecdsa.VerifyASN1(&b.key.PublicKey, digest[:], b.signature) {
		return errors.New("a signature does not verify")
	}
	var version int64
	var changed time.Time
	var value []byte
	return b.pool.QueryRow(r.Context(), bareSelect, id).Scan(&version, &changed, &value)
}

func (b *bareServer) sign() ([]byte, error) {
	digest := sha256.Sum256(signedText)
	return ecdsa.SignASN1(rand.Reader, b.key, digest[:])
}

func (b *bareServer) signTwice() error {
	for range 2 {
		if _, err := b.sign(); err != nil {
			return err
		}
	}
	return nil
}
