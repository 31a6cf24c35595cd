package postgres

import (
	"context"
	"io"

	"github.com/wxidp/wxidp/storage"
)

// Backup returns a *storage.InsteadError.
func (s *Store) Backup(context.Context, io.Writer) error {
	return &storage.InsteadError{Operation: "backup", Instead: "use pg_dump, or base backups with a write-ahead log archive for any point in time"}
}

// Compact returns a *storage.InsteadError.
func (s *Store) Compact(context.Context) error {
	return &storage.InsteadError{Operation: "compaction", Instead: "autovacuum reuses what was freed; VACUUM FULL rewrites a table without it"}
}

// Copied returns 0: nothing is ever copied.
func (s *Store) Copied() int64 { return 0 }
