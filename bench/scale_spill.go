package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// spill keeps rows in files, each of a range of keys, so that many more rows
// than fit into memory can be read in the order of their keys.
type spill struct {
	dir   string
	began time.Time // before all families
	mu    sync.Mutex
	parts map[part]*os.File
}

// part is a range of the keys of one kind; parts sort as their keys do.
type part struct {
	kind   storage.RowKind
	number int
}

// familySpan is what the keys of families in one part differ by.
const familySpan = 4 * 24 * time.Hour

func (s *spill) part(row *storage.Row) part {
	p := part{kind: row.Kind, number: int(row.Key[0])}
	switch row.Kind {
	case storage.RowIdentity:
		p.number >>= 2
	case storage.RowOwner:
		p.number = p.number<<6 | int(row.Key[1])>>2
	case storage.RowFamily:
		ms := binary.BigEndian.Uint64(row.Key) >> 16
		p.number = int(time.UnixMilli(int64(ms)).Sub(s.began) / familySpan)
	}
	return p
}

// spillBuffer is how many bytes of one part a worker gathers before it writes.
const spillBuffer = 64 << 10

// spillWriter is what one worker puts rows into.
type spillWriter struct {
	to      *spill
	buffers map[part]*bytes.Buffer
	err     error
}

func (s *spill) writer() *spillWriter { return &spillWriter{to: s, buffers: map[part]*bytes.Buffer{}} }

func (w *spillWriter) put(row storage.Row) {
	at := w.to.part(&row)
	b := w.buffers[at]
	if b == nil {
		b = new(bytes.Buffer)
		w.buffers[at] = b
	}
	var head [6]byte
	binary.BigEndian.PutUint16(head[:2], uint16(len(row.Key)))
	binary.BigEndian.PutUint32(head[2:], uint32(len(row.Value)))
	b.Write(head[:])
	b.Write(row.Key)
	b.Write(row.Value)
	if b.Len() >= spillBuffer {
		w.flush(at, b)
	}
}

func (w *spillWriter) flush(at part, b *bytes.Buffer) {
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	file := w.to.parts[at]
	if file == nil {
		var err error
		if file, err = os.Create(filepath.Join(w.to.dir, fmt.Sprintf("%d-%d", at.kind, at.number))); err != nil {
			w.err = errors.Join(w.err, err)
			return
		}
		w.to.parts[at] = file
	}
	if _, err := b.WriteTo(file); err != nil {
		w.err = errors.Join(w.err, err)
	}
}

func (w *spillWriter) end() error {
	for at, b := range w.buffers {
		w.flush(at, b)
	}
	return w.err
}

// sorted returns the parts in the order of kinds and keys.
func (s *spill) sorted() []part {
	list := make([]part, 0, len(s.parts))
	for at := range s.parts {
		list = append(list, at)
	}
	slices.SortFunc(list, func(a, b part) int {
		if a.kind != b.kind {
			return int(a.kind) - int(b.kind)
		}
		return a.number - b.number
	})
	return list
}

// take returns the rows of a part in the order of their keys and forgets them.
func (s *spill) take(at part) ([]storage.Row, error) {
	file := s.parts[at]
	data, err := os.ReadFile(file.Name())
	if err := errors.Join(err, file.Close(), os.Remove(file.Name())); err != nil {
		return nil, err
	}
	delete(s.parts, at)
	var rows []storage.Row
	for len(data) > 0 {
		key := int(binary.BigEndian.Uint16(data))
		value := int(binary.BigEndian.Uint32(data[2:]))
		data = data[6:]
		rows = append(rows, storage.Row{Kind: at.kind, Key: data[:key:key], Value: data[key : key+value : key+value]})
		data = data[key+value:]
	}
	slices.SortFunc(rows, func(a, b storage.Row) int { return bytes.Compare(a.Key, b.Key) })
	return rows, nil
}
