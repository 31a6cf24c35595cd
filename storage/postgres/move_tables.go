package postgres

import (
	"math"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// movedTable says how rows of one kind lie in a table.
type movedTable struct {
	name    string
	key     keyKind
	columns []column // those of the key first
	// put returns what the columns behind the key's hold.
	put func(row storage.Row, c *storage.RowContent) ([]any, error)
	// selected are the columns that are read behind the key's, and read what
	// they make.
	selected string
	read     func() (to []any, value func(id [16]byte) ([]byte, error))
}

type column struct{ name, kind string }

// keyKind is what a table's key consists of.
type keyKind int

const (
	textKey  keyKind = iota // a text
	bytesKey                // a bytea
	uuidKey                 // a uuid
	pairKey                 // a smallint below 256 and a bytea
)

// key is a key as it is sent and read.
type key struct {
	kind  keyKind
	text  string
	bytes []byte
	id    [16]byte
	first int16
}

// start returns the key behind which all others lie.
func (k keyKind) start() key { return key{kind: k, bytes: []byte{}, first: -1} }

func (k keyKind) of(raw []byte) key {
	out := key{kind: k}
	switch k {
	case textKey:
		out.text = string(raw)
	case bytesKey:
		out.bytes = raw
	case uuidKey:
		copy(out.id[:], raw)
	case pairKey:
		if len(raw) > 0 {
			out.first, out.bytes = int16(raw[0]), raw[1:]
		}
	}
	return out
}

func (k *key) values() []any {
	switch k.kind {
	case textKey:
		return []any{k.text}
	case uuidKey:
		return []any{k.id}
	case pairKey:
		return []any{k.first, k.bytes}
	}
	return []any{k.bytes}
}

func (k *key) scan() []any {
	switch k.kind {
	case textKey:
		return []any{&k.text}
	case uuidKey:
		return []any{&k.id}
	case pairKey:
		return []any{&k.first, &k.bytes}
	}
	return []any{&k.bytes}
}

// raw returns the key as that of a row.
func (k *key) raw() ([]byte, error) {
	switch k.kind {
	case textKey:
		return []byte(k.text), nil
	case uuidKey:
		return append([]byte(nil), k.id[:]...), nil
	case pairKey:
		if k.first < 0 || k.first > math.MaxUint8 {
			return nil, corrupt("keys")
		}
		return append([]byte{byte(k.first)}, k.bytes...), nil
	}
	return k.bytes, nil
}

var (
	recordColumn = column{"record", "bytea"}
	lookColumn   = column{"look_at", "timestamptz"}
)

var movedTables = map[storage.RowKind]*movedTable{
	storage.RowRecord: {
		name: "records", key: textKey, columns: []column{{"name", "text"}, {"version", "bigint"}, {"value", "bytea"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			return []any{int64(c.Document.Version), filled(c.Document.Value)}, nil
		},
		selected: "version, value",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var version int64
			var d storage.Document
			return []any{&version, &d.Value}, func([16]byte) ([]byte, error) {
				d.Version = uint64(version)
				return storage.EncodeDocument(&d), nil
			}
		},
	},
	storage.RowClient: {
		name: "clients", key: textKey,
		columns: []column{{"id", "text"}, {"epoch", "bigint"}, {"ended_at", "timestamptz"}, {"ended_reason", "text"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			return []any{int64(c.Client.Epoch), c.Client.EndedAt, c.Client.EndedReason}, nil
		},
		selected: "epoch, ended_at, ended_reason",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var epoch int64
			var c storage.ClientState
			return []any{&epoch, &c.EndedAt, &c.EndedReason}, func([16]byte) ([]byte, error) {
				c.Epoch = uint32(epoch)
				return storage.EncodeClient(&c), nil
			}
		},
	},
	storage.RowUser: {
		name: "users", key: textKey,
		columns: []column{{"id", "text"}, {"disabled", "boolean"}, {"retired", "boolean"}, {"epoch", "bigint"},
			{"ended_at", "timestamptz"}, {"ended_reason", "text"}, recordColumn},
		put: func(row storage.Row, c *storage.RowContent) ([]any, error) {
			u := &c.User
			return []any{u.Disabled, u.Retired, int64(u.Epoch), optional(u.EndedAt), u.EndedReason, row.Value}, nil
		},
		selected: "record", read: readRecord,
	},
	storage.RowIdentity: {
		name: "identities", key: bytesKey,
		columns: []column{{"id", "bytea"}, {"user_id", "text"}, {"open_platform", "text"}, {"unionid", "bytea"}, recordColumn},
		put: func(row storage.Row, c *storage.RowContent) ([]any, error) {
			return []any{c.Identity.UserID, c.Identity.OpenPlatform, optionalDigest(c.Identity.Union), row.Value}, nil
		},
		selected: "record", read: readRecord,
	},
	storage.RowOwner: {
		name: "owners", key: pairKey, columns: []column{{"kind", "smallint"}, {"id", "bytea"}, {"user_id", "text"}},
		put:      func(_ storage.Row, c *storage.RowContent) ([]any, error) { return []any{c.Owner}, nil },
		selected: "user_id",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var owner string
			return []any{&owner}, func([16]byte) ([]byte, error) { return []byte(owner), nil }
		},
	},
	storage.RowSessionKeys: {
		name: "session_keys", key: bytesKey, columns: []column{{"identity", "bytea"}, lookColumn, recordColumn},
		put: func(row storage.Row, c *storage.RowContent) ([]any, error) {
			_, next := storage.ExpireSessionKeys(c.SessionKeys, time.Time{}) // all of them
			return []any{next, row.Value}, nil
		},
		selected: "record", read: readRecord,
	},
	storage.RowConsents: {
		name: "consents", key: textKey, columns: []column{{"user_id", "text"}, recordColumn},
		put:      func(row storage.Row, _ *storage.RowContent) ([]any, error) { return []any{row.Value}, nil },
		selected: "record", read: readRecord,
	},
	storage.RowFamily: {
		name: "families", key: uuidKey,
		columns: []column{{"id", "uuid"}, {"user_id", "text"}, {"client_id", "text"}, {"identity", "bytea"}, {"user_epoch", "bigint"},
			{"client_epoch", "bigint"}, {"generation", "bigint"}, {"mac_key_id", "bigint"}, {"created_at", "timestamptz"},
			{"rotated_at", "timestamptz"}, {"idle_expires_at", "timestamptz"}, {"expires_at", "timestamptz"}, {"revoked_at", "timestamptz"},
			{"revoked_for", "text"}, {"login_id", "uuid"}, {"offline", "boolean"}, lookColumn, {"fixed", "bytea"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			f := &c.Family
			fixed, err := fixedPart(f)
			return []any{f.UserID, f.ClientID, optionalDigest(f.Identity), int64(f.UserEpoch), int64(f.ClientEpoch),
				int64(f.Generation), int64(f.MACKeyID), f.CreatedAt, f.RotatedAt, f.IdleExpiresAt, f.ExpiresAt, optional(f.RevokedAt),
				f.RevokedFor, optionalID(f.LoginID), f.Offline, earlier(f.IdleExpiresAt, f.ExpiresAt), fixed}, err
		},
		selected: familyColumns,
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var r familyRow
			return r.columns(), func([16]byte) ([]byte, error) {
				f, err := r.family()
				return storage.EncodeFamily(&f), err
			}
		},
	},
	storage.RowLogin: {
		name: "logins", key: uuidKey,
		columns: []column{{"id", "uuid"}, {"user_id", "text"}, {"user_epoch", "bigint"}, {"token", "bytea"}, {"idle_expires_at", "timestamptz"},
			{"expires_at", "timestamptz"}, {"ended_at", "timestamptz"}, lookColumn, recordColumn},
		put: func(row storage.Row, c *storage.RowContent) ([]any, error) {
			l := &c.Login
			return []any{l.UserID, int64(l.UserEpoch), optionalDigest(l.Token), l.IdleExpiresAt, l.ExpiresAt, optional(l.EndedAt), l.Expiry(), row.Value}, nil
		},
		selected: "record", read: readRecord,
	},
	storage.RowCode: {
		name: "codes", key: bytesKey, columns: []column{{"id", "bytea"}, lookColumn, recordColumn},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			return []any{c.Code.KeepUntil, storage.EncodeCode(&c.Code)}, nil
		},
		selected: "look_at, record",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var until time.Time
			var record []byte
			return []any{&until, &record}, func([16]byte) ([]byte, error) {
				code, err := storage.DecodeCode(record)
				code.KeepUntil = until
				return storage.EncodeKeptCode(&code), err
			}
		},
	},
	storage.RowIdempotency: {
		name: "idempotency", key: bytesKey,
		columns: []column{{"id", "bytea"}, {"form", "bytea"}, {"family_id", "uuid"}, {"expires_at", "timestamptz"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			k := &c.Idempotency
			return []any{k.Form[:], [16]byte(k.FamilyID), k.ExpiresAt}, nil
		},
		selected: "form, family_id, expires_at",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var form []byte
			var family [16]byte
			var k storage.KeptIdempotency
			return []any{&form, &family, &k.ExpiresAt}, func([16]byte) ([]byte, error) {
				if len(form) != len(k.Form) {
					return nil, corrupt("idempotency")
				}
				k.Form, k.FamilyID = storage.Digest(form), storage.FamilyID(family)
				return storage.EncodeIdempotency(&k), nil
			}
		},
	},
	storage.RowItem: {
		name: "items", key: bytesKey,
		columns: []column{{"id", "bytea"}, {"used", "boolean"}, {"value", "bytea"}, {"expires_at", "timestamptz"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			return []any{c.Item.Used, filled(c.Item.Value), c.Item.ExpiresAt}, nil
		},
		selected: "used, value, expires_at",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var i storage.ItemRecord
			return []any{&i.Used, &i.Value, &i.ExpiresAt}, func([16]byte) ([]byte, error) { return storage.EncodeItem(&i), nil }
		},
	},
	storage.RowDeniedJTI: {
		name: "denied_jtis", key: bytesKey, columns: []column{{"jti", "bytea"}, {"expires_at", "timestamptz"}},
		put:      func(_ storage.Row, c *storage.RowContent) ([]any, error) { return []any{c.Denied}, nil },
		selected: "expires_at",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var until time.Time
			return []any{&until}, func([16]byte) ([]byte, error) { return storage.EncodeDenied(until), nil }
		},
	},
	storage.RowState: {
		name: "states", key: pairKey,
		columns: []column{{"kind", "smallint"}, {"id", "bytea"}, {"version", "bigint"}, {"value", "bytea"}, {"expires_at", "timestamptz"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			return []any{int64(c.State.Version), filled(c.State.Value), c.State.ExpiresAt}, nil
		},
		selected: "version, value, expires_at",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var version int64
			var st storage.State
			return []any{&version, &st.Value, &st.ExpiresAt}, func([16]byte) ([]byte, error) {
				st.Version = uint64(version)
				return storage.EncodeState(&st), nil
			}
		},
	},
	storage.RowLogout: {
		name: "logouts", key: uuidKey,
		columns: []column{{"id", "uuid"}, {"client_id", "text"}, {"user_id", "text"}, {"family_id", "uuid"}, {"ended_at", "timestamptz"},
			{"attempts", "bigint"}, {"next_at", "timestamptz"}},
		put: func(_ storage.Row, c *storage.RowContent) ([]any, error) {
			n := &c.Logout
			return []any{n.ClientID, n.UserID, [16]byte(n.FamilyID), n.EndedAt, int64(n.Attempts), n.Next}, nil
		},
		selected: "client_id, user_id, family_id, ended_at, attempts, next_at",
		read: func() ([]any, func([16]byte) ([]byte, error)) {
			var n storage.LogoutNotice
			var family [16]byte
			var attempts int64
			return []any{&n.ClientID, &n.UserID, &family, &n.EndedAt, &attempts, &n.Next}, func(id [16]byte) ([]byte, error) {
				n.ID, n.FamilyID, n.Attempts = storage.LogoutID(id), storage.FamilyID(family), uint32(attempts)
				return storage.EncodeLogout(&n), nil
			}
		},
	},
}

// readRecord reads a record that is stored as it is.
func readRecord() ([]any, func([16]byte) ([]byte, error)) {
	var record []byte
	return []any{&record}, func([16]byte) ([]byte, error) { return record, nil }
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
