package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// wire is the way from a node to PostgreSQL, which can be made slow, silent and
// unreliable.
type wire struct {
	listener net.Listener
	target   string // PostgreSQL's socket
	group    sync.WaitGroup
	dice     func(n int) int

	mu     sync.Mutex // guards the fields below
	delay  time.Duration
	breaks int           // of a hundred messages to PostgreSQL
	silent chan struct{} // closed at the end of a black hole; nil: there is none
	links  map[*link]bool
	cut    int // connections that were broken
	closed bool
}

// link is one connection through a wire.
type link struct{ node, database net.Conn }

func (l *link) Close() {
	l.node.Close()
	l.database.Close()
}

// folder is where PostgreSQL has its socket and its data.
func (db *database) folder() (string, error) {
	_, folder, ok := strings.Cut(db.DSN(), "host=")
	if !ok {
		return "", errors.New("the DSN names no folder")
	}
	folder, _, _ = strings.Cut(folder, " ")
	return folder, nil
}

// newWire listens for a node and carries its connections to the database.
func (db *database) newWire(dice func(n int) int) (*wire, error) {
	folder, err := db.folder()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	given.Store(listener.Addr().String(), true)
	w := &wire{listener: listener, target: filepath.Join(folder, ".s.PGSQL.5432"), dice: dice, links: map[*link]bool{}}
	w.group.Go(w.accept)
	return w, nil
}

// dsn is that of a database, by this wire.
func (w *wire) dsn(db *database) string {
	_, rest, _ := strings.Cut(db.DSN(), " ")
	return fmt.Sprintf("host=127.0.0.1 port=%d %s", w.listener.Addr().(*net.TCPAddr).Port, rest)
}

func (w *wire) accept() {
	for {
		node, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		w.group.Go(func() {
			database, err := net.Dial("unix", w.target)
			if err != nil {
				node.Close() // as if nobody listened
				return
			}
			w.carry(&link{node, database})
		})
	}
}

func (w *wire) carry(l *link) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		l.Close()
		return
	}
	w.links[l] = true
	w.mu.Unlock()
	var group sync.WaitGroup
	group.Go(func() { w.pump(l, l.node, l.database, true) })
	group.Go(func() { w.pump(l, l.database, l.node, false) })
	group.Wait()
	l.Close()
	w.mu.Lock()
	delete(w.links, l)
	w.mu.Unlock()
}

// pump carries what one side says to the other, until one of them ends.
func (w *wire) pump(l *link, from, to net.Conn, toDatabase bool) {
	defer func() {
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			breaks := w.hold(toDatabase)
			if breaks && w.dice(2) == 0 {
				n = w.dice(n) // only a part arrives; otherwise all of it, and the answer is lost
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				l.Close()
				return
			}
			if breaks {
				time.Sleep(time.Duration(w.dice(3)) * time.Millisecond) // PostgreSQL may have committed by then
				l.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold waits for as long as the wire is slow or silent, and reports whether the
// connection breaks now.
func (w *wire) hold(toDatabase bool) (breaks bool) {
	w.mu.Lock()
	delay, silent := w.delay, w.silent
	if breaks = toDatabase && w.breaks > 0 && w.dice(100) < w.breaks; breaks {
		w.cut++
	}
	w.mu.Unlock()
	time.Sleep(delay)
	if silent != nil {
		<-silent
	}
	return breaks
}

// Slow makes every message late.
func (w *wire) Slow(delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = delay
}

// Break lets connections break at so many of a hundred messages to PostgreSQL.
func (w *wire) Break(percent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breaks = percent
}

// Reset breaks every connection at once, as a firewall does that has forgotten
// them.
func (w *wire) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		w.cut++
		l.Close()
	}
}

// Silence begins a black hole: connections stay and nothing arrives. What was
// said meanwhile arrives at its end, or never where lost is true.
func (w *wire) Silence() (end func(lost bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	silent := make(chan struct{})
	w.silent = silent
	return func(lost bool) {
		if lost {
			w.Reset()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.silent = nil
		close(silent)
	}
}

// Close breaks all connections.
func (w *wire) Close() error {
	w.listener.Close()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.Reset()
	w.group.Wait()
	return nil
}
