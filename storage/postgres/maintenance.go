package postgres

import (
	"context"
	"io"
)

// InsteadError is returned for what PostgreSQL's own means do better.
type InsteadError struct {
	Operation string // what was asked for
	Instead   string // what to do, as a sentence for the operator
}

func (e *InsteadError) Error() string {
	return "storage: no " + e.Operation + " of a PostgreSQL database: " + e.Instead
}

// Backup returns an *InsteadError.
func (s *Store) Backup(context.Context, io.Writer) error {
	return &InsteadError{Operation: "backup", Instead: "use pg_dump, or base backups with a write-ahead log archive for any point in time"}
}

// Compact returns an *InsteadError.
func (s *Store) Compact(context.Context) error {
	return &InsteadError{Operation: "compaction", Instead: "autovacuum reuses what was freed; VACUUM FULL rewrites a table without it"}
}

// Copied returns 0: nothing is ever copied.
func (s *Store) Copied() int64 { return 0 }
