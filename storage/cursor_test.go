package storage_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/wxidp/wxidp/storage"
)

// FuzzCursors: a cursor is refused, or means the same however it is written
// again; of an id there is one spelling.
func FuzzCursors(f *testing.F) {
	id := storage.NewFamilyID().String()
	for _, cursor := range []string{
		"", id, id[:21], id + "A", id[:21] + "_", "0.", "1.AAAA", "9.AAAA", "-1.AAAA", "1.AAA=", "+1.AA", "01.AAAA", "1", ".", "1.A\nAAA",
		storage.RestoreCursor(2, []byte(id)),
	} {
		f.Add(cursor)
	}
	const kinds = 3
	f.Fuzz(func(t *testing.T, cursor string) {
		if id, ok := storage.ParseFamilyID(cursor); ok && id.String() != cursor {
			t.Errorf("%q is read as %s", cursor, id)
		}
		kind, key, err := storage.ParseRestoreCursor(cursor, kinds)
		if err != nil {
			if !errors.Is(err, storage.ErrBadCursor) || kind != 0 || key != nil {
				t.Errorf("%q: %d, %x, %v", cursor, kind, key, err)
			}
			return
		}
		again, bytesAgain, err := storage.ParseRestoreCursor(storage.RestoreCursor(kind, key), kinds)
		if kind < 0 || kind >= kinds || err != nil || again != kind || !bytes.Equal(bytesAgain, key) {
			t.Errorf("%q is read as %d, %x and then as %d, %x, %v", cursor, kind, key, again, bytesAgain, err)
		}
	})
}
