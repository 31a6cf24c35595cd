package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/wxidp/wxidp/provider"
	"github.com/wxidp/wxidp/storage"
)

// Paths of the admin API about the data as a whole.
const (
	AdminCompact = "/admin/compact"
	AdminBackup  = "/admin/backup"
)

// Data is the store as something to be copied.
type Data interface {
	// Compact rids the data of what was deleted.
	Compact(ctx context.Context) error
	// Backup writes a compacted copy of the present state.
	Backup(ctx context.Context, w io.Writer) error
	// Copied says how many bytes the Compact under way has copied so far.
	Copied() int64
}

// CompactProgress is one line of the answer to a compaction, which is a stream
// of JSON lines. The last line has Done, or Error.
type CompactProgress struct {
	SizeBefore  int64         `json:"size_before"` // bytes
	Copied      int64         `json:"copied"`      // bytes so far; the rest of the file may be free
	SizeAfter   int64         `json:"size_after,omitempty"`
	Done        bool          `json:"done,omitempty"`
	Instead     string        `json:"instead,omitempty"` // with Done: nothing was done, because the engine leaves it to this
	Error       provider.Code `json:"error,omitempty"`
	Description string        `json:"error_description,omitempty"`
}

// progressEvery is the pause between two lines of progress.
const progressEvery = 500 * time.Millisecond

func (s *Server) compactData(w http.ResponseWriter, r *http.Request) error {
	if err := unhurried(w); err != nil {
		return err
	}
	done := make(chan error, 1)
	progress := CompactProgress{SizeBefore: s.Store.Stats().SizeBytes}
	go func() { done <- s.Data.Compact(r.Context()) }()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	noStore(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w).Flush
	lines := json.NewEncoder(w)
	for {
		select {
		case <-ticker.C:
			progress.Copied = s.Data.Copied()
			if lines.Encode(progress) == nil { // who has gone needs no progress
				_ = flush()
			}
		case err := <-done:
			if instead, ok := errors.AsType[*storage.InsteadError](err); ok {
				progress.Instead, progress.Done = instead.Instead, true
			} else if err != nil {
				e := provider.AsError(err)
				s.logError(w, r, "", e, nil)
				progress.Error, progress.Description = e.Code, e.Message.In("en")
			} else {
				progress.Copied, progress.SizeAfter, progress.Done = s.Data.Copied(), s.Store.Stats().SizeBytes, true
				s.audit(r, "compact", slog.Int64("size_before", progress.SizeBefore), slog.Int64("size_after", progress.SizeAfter))
			}
			return lines.Encode(progress)
		}
	}
}

func (s *Server) backupData(w http.ResponseWriter, r *http.Request) error {
	if err := unhurried(w); err != nil {
		return err
	}
	noStore(w)
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &countingWriter{w: w}
	if err := s.Data.Backup(r.Context(), out); err != nil {
		if out.n == 0 {
			return err
		}
		// The length of the answer was not said before, so only a broken
		// connection tells that it is not all.
		s.logError(w, r, "", provider.AsError(err), nil)
		panic(http.ErrAbortHandler)
	}
	s.audit(r, "backup", slog.Int64("size", out.n))
	return nil
}

// unhurried takes the write timeout from an answer that may take minutes.
func unhurried(w http.ResponseWriter) error {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
