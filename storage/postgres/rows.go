package postgres

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/storage"
)

var _ storage.PeopleRows = (*rows)(nil)

// rows are the rows about people that one transaction sees. A row is read once
// and remembered, nil where there is none.
type rows struct {
	ctx   context.Context
	store *Store
	conn  *pgx.Conn
	now   time.Time
	held  map[string]bool // users whose locks are held; nil: a snapshot
	extra []statement     // to be written beside a draft's changes

	userRows    map[string][]byte
	identities  map[storage.Digest][]byte
	owners      map[ownerKey]string
	sessionKeys map[storage.Digest][]byte
	logins      map[storage.LoginID][]byte
	consents    map[string][]byte
	clients     map[string]storage.ClientState
}

type ownerKey struct {
	kind  storage.IndexKind
	index storage.Digest
}

// add has a statement written beside the draft's changes.
func (r *rows) add(sql string, args ...any) { r.extra = append(r.extra, statement{sql, args}) }

// users are the ids of all users that were touched.
func (r *rows) users() []string { return slices.Collect(maps.Keys(r.userRows)) }

func remember[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}

// fetch returns what is remembered of a key, or reads it.
func fetch[K comparable, V any](r *rows, m *map[K]V, key K, sql string, args ...any) (value V, err error) {
	if value, ok := (*m)[key]; ok {
		return value, nil
	}
	err = r.conn.QueryRow(r.ctx, sql, args...).Scan(&value)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return value, err
	}
	remember(m, key, value)
	return value, nil
}

func (r *rows) UserRow(id string) ([]byte, error) {
	if r.held != nil && !r.held[text(id)] {
		remember(&r.userRows, text(id), nil)
		return nil, errNotHeld
	}
	return fetch(r, &r.userRows, text(id), `SELECT record FROM users WHERE id = $1`, text(id))
}

func (r *rows) IdentityRow(index storage.Digest) ([]byte, error) {
	return fetch(r, &r.identities, index, `SELECT record FROM identities WHERE id = $1`, index[:])
}

func (r *rows) Owner(kind storage.IndexKind, index storage.Digest) (string, error) {
	return fetch(r, &r.owners, ownerKey{kind, index}, `SELECT user_id FROM owners WHERE kind = $1 AND id = $2`, int16(kind), index[:])
}

func (r *rows) SessionKeysRow(identity storage.Digest) ([]byte, error) {
	return fetch(r, &r.sessionKeys, identity, `SELECT record FROM session_keys WHERE identity = $1`, identity[:])
}

func (r *rows) LoginRow(id storage.LoginID) ([]byte, error) {
	return fetch(r, &r.logins, id, `SELECT record FROM logins WHERE id = $1`, [16]byte(id))
}

func (r *rows) ConsentsRow(userID string) ([]byte, error) {
	return fetch(r, &r.consents, text(userID), `SELECT record FROM consents WHERE user_id = $1`, text(userID))
}

// Families locks the families where the operation may write: a rotation needs
// no other lock.
func (r *rows) Families(userID string, limit int) (families []storage.Family, complete bool, err error) {
	query := familySelect + ` WHERE f.user_id = $1 ORDER BY f.id LIMIT $2`
	if r.held != nil {
		query += ` FOR UPDATE OF f`
	}
	found, err := r.conn.Query(r.ctx, r.store.sql(query), text(userID), limit+1)
	if err != nil {
		return nil, false, err
	}
	if families, err = scanFamilies(found); err != nil {
		return nil, false, err
	}
	if len(families) > limit {
		return families[:limit], false, nil
	}
	return families, true, nil
}

func (r *rows) Logins(userID string, limit int) (logins []storage.LoginRecord, err error) {
	found, err := r.conn.Query(r.ctx, `SELECT id, record FROM logins WHERE user_id = $1 ORDER BY id DESC LIMIT $2`, text(userID), limit)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var id [16]byte
		var data []byte
		if err := found.Scan(&id, &data); err != nil {
			return nil, err
		}
		login, err := storage.DecodeLogin(storage.LoginID(id), data)
		if err != nil {
			return nil, err
		}
		remember(&r.logins, login.ID, data)
		logins = append(logins, login)
	}
	return logins, found.Err()
}

// client returns the state of a client, which is zero where nothing ever
// happened to it.
func (r *rows) client(id string) (c storage.ClientState, err error) {
	if c, ok := r.clients[text(id)]; ok {
		return c, nil
	}
	found, err := r.conn.Query(r.ctx, clientsQuery, []string{text(id)})
	if err == nil {
		err = r.scanClients(found, []string{text(id)})
	}
	return r.clients[text(id)], err
}

const clientsQuery = `SELECT id, epoch, ended_at, ended_reason FROM clients WHERE id = ANY($1)`

func (r *rows) scanClients(found pgx.Rows, asked []string) error {
	var id string
	var c storage.ClientState
	var epoch int64
	for _, id := range asked {
		remember(&r.clients, id, storage.ClientState{})
	}
	_, err := pgx.ForEachRow(found, []any{&id, &epoch, &c.EndedAt, &c.EndedReason}, func() error {
		c.Epoch, c.EndedAt = uint32(epoch), c.EndedAt.UTC()
		r.clients[id] = c
		return nil
	})
	return err
}

// userState returns what judgements need to know of a user, who is touched.
func (r *rows) userState(id string) (storage.UserState, error) {
	data, err := r.UserRow(id)
	if err != nil || data == nil {
		return storage.UserState{}, err
	}
	user, err := storage.DecodeUser(data)
	if err != nil {
		return storage.UserState{}, err
	}
	return user.State(), nil
}

// exists reports whether a row is found.
func (r *rows) exists(sql string, args ...any) (found bool, err error) {
	err = r.conn.QueryRow(r.ctx, r.store.sql(`SELECT EXISTS (`+sql+`)`), args...).Scan(&found)
	return found, err
}

// prefetch reads, in a round trip that is made anyway, what another transaction
// has seen or is expected to be looked at.
func (r *rows) prefetch(b *pgx.Batch, seen *rows) {
	if len(seen.clients) > 0 {
		ids := slices.Collect(maps.Keys(seen.clients))
		b.Queue(clientsQuery, ids).Query(func(found pgx.Rows) error { return r.scanClients(found, ids) })
	}
	prefetch(b, &r.identities, seen.identities, `SELECT id, record FROM identities WHERE id = ANY($1)`, digestKeys)
	prefetch(b, &r.sessionKeys, seen.sessionKeys, `SELECT identity, record FROM session_keys WHERE identity = ANY($1)`, digestKeys)
	prefetch(b, &r.logins, seen.logins, `SELECT id, record FROM logins WHERE id = ANY($1)`, loginKeys)
	prefetch(b, &r.consents, seen.consents, `SELECT user_id, record FROM consents WHERE user_id = ANY($1)`, stringKeys)
	if len(seen.owners) == 0 {
		return
	}
	r.owners = make(map[ownerKey]string, len(seen.owners))
	kinds, ids := make([]int16, 0, len(seen.owners)), make([][]byte, 0, len(seen.owners))
	for key := range seen.owners {
		r.owners[key] = ""
		kinds, ids = append(kinds, int16(key.kind)), append(ids, key.index[:])
	}
	b.Queue(`SELECT o.kind, o.id, o.user_id FROM owners o JOIN unnest($1::smallint[], $2::bytea[]) AS k (kind, id) USING (kind, id)`, kinds, ids).
		Query(func(found pgx.Rows) error {
			for found.Next() {
				var kind int16
				var id []byte
				var userID string
				if err := found.Scan(&kind, &id, &userID); err != nil {
					return err
				}
				if len(id) != len(storage.Digest{}) {
					return corrupt("owners")
				}
				r.owners[ownerKey{storage.IndexKind(kind), storage.Digest(id)}] = userID
			}
			return found.Err()
		})
}

// keyForm says how keys of one kind are sent and read.
type keyForm[K comparable] struct {
	list func(keys []K) any
	read func(row pgx.Rows, data *[]byte) (K, error)
}

var (
	digestKeys = keyForm[storage.Digest]{
		list: func(keys []storage.Digest) any {
			out := make([][]byte, len(keys))
			for i := range keys {
				out[i] = keys[i][:]
			}
			return out
		},
		read: func(row pgx.Rows, data *[]byte) (storage.Digest, error) {
			var id []byte
			if err := row.Scan(&id, data); err != nil {
				return storage.Digest{}, err
			}
			if len(id) != len(storage.Digest{}) {
				return storage.Digest{}, corrupt("keys")
			}
			return storage.Digest(id), nil
		},
	}
	loginKeys = keyForm[storage.LoginID]{
		list: func(keys []storage.LoginID) any {
			out := make([][16]byte, len(keys))
			for i := range keys {
				out[i] = keys[i]
			}
			return out
		},
		read: func(row pgx.Rows, data *[]byte) (storage.LoginID, error) {
			var id [16]byte
			err := row.Scan(&id, data)
			return storage.LoginID(id), err
		},
	}
	stringKeys = keyForm[string]{
		list: func(keys []string) any { return keys },
		read: func(row pgx.Rows, data *[]byte) (id string, err error) { return id, row.Scan(&id, data) },
	}
)

func prefetch[K comparable](b *pgx.Batch, to *map[K][]byte, seen map[K][]byte, sql string, form keyForm[K]) {
	if len(seen) == 0 {
		return
	}
	fresh := make(map[K][]byte, len(seen))
	for key := range seen {
		fresh[key] = nil
	}
	*to = fresh
	b.Queue(sql, form.list(slices.Collect(maps.Keys(seen)))).Query(func(found pgx.Rows) error {
		for found.Next() {
			var data []byte
			key, err := form.read(found, &data)
			if err != nil {
				return err
			}
			fresh[key] = data
		}
		return found.Err()
	})
}

// scanUsers takes the locked users; those that are held and missing do not
// exist.
func (r *rows) scanUsers(found pgx.Rows) error {
	for id := range r.held {
		remember(&r.userRows, id, nil)
	}
	for found.Next() {
		var id string
		var data []byte
		if err := found.Scan(&id, &data); err != nil {
			return err
		}
		r.userRows[id] = data
	}
	return found.Err()
}
