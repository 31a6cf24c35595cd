package simulator

import (
	"strings"
	"sync"
	"time"
)

// Request is an entry of the request log: one request to WeChat's side.
type Request struct {
	Time   time.Time `json:"time"` // of the simulated clock
	Method string    `json:"method"`
	Path   string    `json:"path"`
	AppID  string    `json:"appid"`
	JSCode string    `json:"js_code,omitempty"` // as sent, cut to 256 bytes
	// PhoneCode is the code of getuserphonenumber, as sent, cut to 256 bytes.
	PhoneCode string    `json:"phone_code,omitempty"`
	Status    int       `json:"status"`  // 0 where the connection was broken or left hanging
	Errcode   int       `json:"errcode"` // as decided, even where a fault then lost the answer
	Fault     FaultKind `json:"fault,omitempty"`
}

// requests is a ring of the newest requests.
type requests struct {
	mu    sync.Mutex // guards the fields below
	ring  []Request
	total int // since the last clear
}

func (s *Simulator) record(c *call, f *Fault, status int) {
	// Clones, because the path and the code lie in the buffer of the whole
	// request line.
	e := Request{
		Time: c.now, Method: strings.Clone(cut(c.r.Method)), Path: c.path,
		AppID: strings.Clone(cut(c.appid)), JSCode: strings.Clone(cut(c.jsCode)),
		PhoneCode: strings.Clone(cut(c.phoneCode)), Status: status, Errcode: c.errcode,
	}
	if f != nil {
		e.Fault = f.Kind
	}
	q := &s.requests
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ring) < MaxRequests {
		q.ring = append(q.ring, e)
	} else {
		q.ring[q.total%MaxRequests] = e
	}
	q.total++
}

func (q *requests) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ring, q.total = nil, 0
}

// Requests returns the newest MaxRequests requests to WeChat's side, oldest first.
func (s *Simulator) Requests() []Request {
	all, _ := s.requests.snapshot()
	return all
}

// RequestCount returns how many requests there were since the start or the
// last reset of the log.
func (s *Simulator) RequestCount() int {
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	return s.requests.total
}

// ClearRequests empties the request log.
func (s *Simulator) ClearRequests() { s.requests.clear() }

func (q *requests) snapshot() ([]Request, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]Request, 0, len(q.ring))
	if len(q.ring) == MaxRequests {
		at := q.total % MaxRequests
		out = append(out, q.ring[at:]...)
		return append(out, q.ring[:at]...), q.total
	}
	return append(out, q.ring...), q.total
}
