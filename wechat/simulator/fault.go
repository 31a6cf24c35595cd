package simulator

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FaultKind says what goes wrong.
type FaultKind string

// The kinds of fault. Those that process the request first may spend the code;
// after the others it is still good.
const (
	// FaultErrcode answers Errcode (and Errmsg) where WeChat would answer it:
	// after the check of the AppSecret or access token, before that of the code.
	FaultErrcode FaultKind = "errcode"
	// FaultDelay processes the request, then waits Delay before it answers.
	FaultDelay FaultKind = "delay"
	// FaultDrip processes the request, then sends the answer one byte per
	// Interval, and spaces after it until the caller goes.
	FaultDrip FaultKind = "drip"
	// FaultTruncate processes the request, then breaks off in mid-answer.
	FaultTruncate FaultKind = "truncate"
	// FaultReset processes the request, then resets the connection: the lost answer.
	FaultReset FaultKind = "reset"
	// FaultDrop resets the connection before the request is processed.
	FaultDrop FaultKind = "drop"
	// FaultHang never answers and does not process the request.
	FaultHang FaultKind = "hang"
	// FaultStatus answers the HTTP status Status with an HTML page.
	FaultStatus FaultKind = "status"
	// FaultHTML answers 200 with an HTML page.
	FaultHTML FaultKind = "html"
	// FaultRedirect answers 302 to Location.
	FaultRedirect FaultKind = "redirect"
	// FaultEmpty answers 200 without a body.
	FaultEmpty FaultKind = "empty"
	// FaultHuge answers Size spaces.
	FaultHuge FaultKind = "huge"
	// FaultGzip answers a compressed body of Size zero bytes that nobody asked for.
	FaultGzip FaultKind = "gzip"
	// FaultBody answers Body as it is.
	FaultBody FaultKind = "body"
)

// Fault is something that goes wrong with the next requests.
type Fault struct {
	Kind FaultKind
	// Endpoint is the path it applies to; empty means every path of the API.
	Endpoint string
	// Count is how many requests it hits; 0 means all until it is cleared.
	Count    int
	Errcode  int           // FaultErrcode: not 0
	Errmsg   string        // FaultErrcode: default WeChat's text for the errcode
	Status   int           // FaultStatus: 400 to 599, default 502
	Delay    time.Duration // FaultDelay: up to 10 minutes
	Interval time.Duration // FaultDrip: 1 ms to 1 minute, default 1 s
	Size     int64         // FaultHuge, FaultGzip: up to 1 GiB, default 100 MiB
	Location string        // FaultRedirect
	Body     string        // FaultBody: up to 64 KiB
}

// The bounds of a fault.
const (
	maxFaultTime = 10 * time.Minute // of a request held by delay, drip or hang
	maxFaultSize = 1 << 30
	maxErrmsg    = 256
)

func (f *Fault) validate() error {
	var paths []string
	for _, e := range endpoints() {
		paths = append(paths, e.path)
	}
	if f.Endpoint != "" && !slices.Contains(paths, f.Endpoint) {
		return fmt.Errorf("endpoint is %s or empty", strings.Join(paths, ", "))
	}
	if f.Count < 0 || f.Count > 1_000_000 {
		return errors.New("count is 0 to 1000000")
	}
	switch f.Kind {
	case FaultErrcode:
		if f.Errcode == 0 || f.Errcode < -1_000_000 || f.Errcode > 100_000_000 {
			return errors.New("errcode is missing or out of range")
		}
		if len(f.Errmsg) > maxErrmsg {
			return fmt.Errorf("errmsg has more than %d bytes", maxErrmsg)
		}
	case FaultDelay:
		if f.Delay <= 0 || f.Delay > maxFaultTime {
			return errors.New("delay is more than 0 and at most 10m")
		}
	case FaultDrip:
		if f.Interval == 0 {
			f.Interval = time.Second
		}
		if f.Interval < time.Millisecond || f.Interval > time.Minute {
			return errors.New("interval is 1ms to 1m")
		}
	case FaultStatus:
		if f.Status == 0 {
			f.Status = http.StatusBadGateway
		}
		if f.Status < 400 || f.Status > 599 {
			return errors.New("status is 400 to 599")
		}
	case FaultHuge, FaultGzip:
		if f.Size == 0 {
			f.Size = 100 << 20
		}
		if f.Size < 0 || f.Size > maxFaultSize {
			return errors.New("size is 1 to 1073741824")
		}
	case FaultRedirect:
		if f.Location == "" || len(f.Location) > 2048 {
			return errors.New("location is missing or too long")
		}
	case FaultBody:
		if len(f.Body) > maxBody {
			return errors.New("body has more than 64 KiB")
		}
	case FaultTruncate, FaultReset, FaultDrop, FaultHang, FaultHTML, FaultEmpty:
	default:
		return errors.New("kind is errcode, delay, drip, truncate, reset, drop, hang, status, html, redirect, empty, huge, gzip or body")
	}
	return nil
}

// processes reports whether the request takes effect before the fault does.
func (f *Fault) processes() bool {
	switch f.Kind {
	case FaultDelay, FaultDrip, FaultTruncate, FaultReset:
		return true
	}
	return false
}

// status is what the request log shows; 0 means that no answer was made.
func (f *Fault) status() int {
	switch f.Kind {
	case FaultReset, FaultDrop, FaultHang:
		return 0
	case FaultStatus:
		return f.Status
	case FaultRedirect:
		return http.StatusFound
	}
	return http.StatusOK
}

// faults is the list of injected faults, oldest first.
type faults struct {
	n    atomic.Int32 // len(list), read without mu where there is none
	mu   sync.Mutex   // guards list
	list []*Fault
}

// take returns the oldest fault for the path and counts it.
func (q *faults) take(path string) *Fault {
	if q.n.Load() == 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, f := range q.list {
		if f.Endpoint != "" && f.Endpoint != path {
			continue
		}
		taken := *f
		if f.Count > 0 {
			f.Count--
			if f.Count == 0 {
				q.list = slices.Delete(q.list, i, i+1)
				q.n.Store(int32(len(q.list)))
			}
		}
		return &taken
	}
	return nil
}

// Inject adds a fault. The oldest that fits a request is the one that hits it.
func (s *Simulator) Inject(f Fault) error {
	if err := f.validate(); err != nil {
		return err
	}
	q := &s.faults
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= MaxFaults {
		return fmt.Errorf("there are %d faults already, the most there may be", MaxFaults)
	}
	q.list = append(q.list, &f)
	q.n.Store(int32(len(q.list)))
	return nil
}

// ClearFaults ends all faults. Requests already held by one are not released.
func (s *Simulator) ClearFaults() {
	q := &s.faults
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = nil
	q.n.Store(0)
}

// Faults returns the faults that wait, with what is left of their counts.
func (s *Simulator) Faults() []Fault {
	q := &s.faults
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]Fault, len(q.list))
	for i, f := range q.list {
		out[i] = *f
	}
	return out
}

const htmlPage = "<!DOCTYPE html>\n<html><head><title>Error</title></head><body><h1>Error</h1></body></html>\n"

// perform answers c as the fault has it.
func (f *Fault) perform(w http.ResponseWriter, c *call) {
	ctx, cancel := context.WithTimeout(c.r.Context(), maxFaultTime)
	defer cancel()
	switch f.Kind {
	case FaultDelay:
		liftTimeouts(w)
		if !sleep(ctx, f.Delay) {
			panic(http.ErrAbortHandler) // not an empty 200
		}
		c.write(w)
	case FaultDrip:
		liftTimeouts(w)
		f.drip(ctx, w, c)
	case FaultTruncate:
		truncate(w, c)
	case FaultReset, FaultDrop:
		reset(w)
	case FaultHang:
		liftTimeouts(w)
		_, _ = readBody(c.r) // only then does the server notice that the caller has gone
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	case FaultStatus, FaultHTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(f.status())
		_, _ = io.WriteString(w, htmlPage)
	case FaultRedirect:
		w.Header().Set("Location", f.Location)
		w.WriteHeader(http.StatusFound)
	case FaultEmpty:
		c.header(w.Header())
		w.WriteHeader(http.StatusOK)
	case FaultBody:
		c.header(w.Header())
		_, _ = io.WriteString(w, f.Body)
	case FaultHuge:
		c.header(w.Header())
		w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
		fill(w, f.Size, ' ')
	case FaultGzip:
		c.header(w.Header())
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fill(z, f.Size, 0)
		_ = z.Close()
	}
}

// liftTimeouts frees a fault that takes long from the limits of the server it
// runs in; maxFaultTime bounds it. Without deadlines there is nothing to lift.
func liftTimeouts(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (f *Fault) drip(ctx context.Context, w http.ResponseWriter, c *call) {
	c.header(w.Header())
	control := http.NewResponseController(w)
	rest := c.body
	for {
		next := []byte{' '}
		if len(rest) > 0 {
			next, rest = rest[:1], rest[1:]
		}
		if _, err := w.Write(next); err != nil {
			return
		}
		if control.Flush() != nil || !sleep(ctx, f.Interval) {
			return
		}
	}
}

// truncate promises the whole answer and sends half of it.
func truncate(w http.ResponseWriter, c *call) {
	conn, out, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	h := http.Header{}
	c.header(h)
	h.Set("Content-Length", strconv.Itoa(len(c.body)))
	_, _ = out.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(out)
	_, _ = out.WriteString("\r\n")
	_, _ = out.Write(c.body[:len(c.body)/2])
	_ = out.Flush()
}

// reset closes the connection with a TCP reset where it can.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	raw := conn
	if inner, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		raw = inner.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

// fill writes n times the byte with.
func fill(w io.Writer, n int64, with byte) {
	chunk := make([]byte, 32<<10)
	for i := range chunk {
		chunk[i] = with
	}
	for n > 0 {
		k := min(n, int64(len(chunk)))
		if _, err := w.Write(chunk[:k]); err != nil {
			return
		}
		n -= k
	}
}
