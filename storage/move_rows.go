package storage

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Movable is a store whose rows can be read and written as they are, to move
// them to another store, whatever engines the two have. Claims, which are
// volatile, are no rows.
type Movable interface {
	Records

	// ExportRows returns rows of one kind in the order of their keys, beginning
	// behind the key after (nil: at the first one): up to limit of them, and of
	// up to about MaxRowBytes. A limit outside 1..MaxRows counts as MaxRows. next
	// is the key to go on behind; nil at the end. Expired rows that were not yet
	// deleted are returned, too; documents of OwnRecords are not.
	ExportRows(ctx context.Context, kind RowKind, after []byte, limit int) (rows []Row, next []byte, err error)

	// ImportRows stores rows as they are, of any kinds and in any order, with all
	// that leads to them, in one commit. A row that is there already is replaced;
	// of several with one key the last one counts. It takes up to MaxRows rows
	// and returns an error that wraps ErrCorrupt, and writes nothing, where one
	// of them is not what a store of this version holds. Nothing is judged: rows
	// that do not fit together are stored as well.
	//
	// It is fastest with many rows whose keys follow on each other. A store that
	// was given another VaultRecord must be opened anew before anything else is
	// done with it.
	ImportRows(ctx context.Context, rows []Row) error

	// CountRows returns how many rows of a kind ExportRows returns in all.
	CountRows(ctx context.Context, kind RowKind) (int64, error)
}

// OwnRecords are the names of documents that are about the store which holds
// them, and never move.
func OwnRecords() []string { return []string{MoveRecord} }

// Limits of ExportRows and ImportRows.
const (
	MaxRows     = 10_000
	MaxRowBytes = 8 << 20
)

// RowKind is a sort of record.
type RowKind byte

// The kinds of rows, with their keys and values.
const (
	RowRecord      RowKind = iota + 1 // name: EncodeDocument
	RowClient                         // client id: EncodeClient
	RowUser                           // user id: EncodeUser
	RowIdentity                       // OpenIDIndex: EncodeIdentity
	RowOwner                          // IndexKind and index: user id
	RowSessionKeys                    // OpenIDIndex: EncodeSessionKeys
	RowConsents                       // user id: EncodeConsents
	RowFamily                         // FamilyID: EncodeFamily
	RowLogin                          // LoginID: EncodeLogin
	RowCode                           // digest: EncodeKeptCode
	RowIdempotency                    // digest: EncodeIdempotency
	RowItem                           // digest of ItemKind and key: EncodeItem
	RowDeniedJTI                      // digest: EncodeDenied
	RowState                          // StateKind and digest: EncodeState
	RowLogout                         // LogoutID: EncodeLogout
)

var rowKindNames = [...]string{
	RowRecord: "records", RowClient: "clients", RowUser: "users", RowIdentity: "identities", RowOwner: "index keys",
	RowSessionKeys: "session_keys", RowConsents: "consents", RowFamily: "families", RowLogin: "login sessions", RowCode: "codes",
	RowIdempotency: "idempotency keys", RowItem: "single-use items", RowDeniedJTI: "denied tokens", RowState: "states", RowLogout: "logout notices",
}

// RowKinds returns all kinds in the order in which they are moved.
func RowKinds() []RowKind {
	kinds := make([]RowKind, 0, len(rowKindNames)-1)
	for kind := RowRecord; kind <= RowLogout; kind++ {
		kinds = append(kinds, kind)
	}
	return kinds
}

// String returns what people call rows of the kind, such as "login sessions".
func (k RowKind) String() string {
	if k < RowRecord || k > RowLogout {
		return fmt.Sprintf("rows of kind %d", byte(k))
	}
	return rowKindNames[k]
}

// Row is a record as it is kept, in the one form that it has for all engines.
type Row struct {
	Kind       RowKind
	Key, Value []byte
}

// OwnerKey returns the key of the row that leads from a personal value to its
// user.
func OwnerKey(kind IndexKind, index Digest) []byte { return append([]byte{byte(kind)}, index[:]...) }

// StateKey returns the key of the row of an expiring document.
func StateKey(kind StateKind, key Digest) []byte { return append([]byte{byte(kind)}, key[:]...) }

// RowContent is what a row says, decoded; exactly one field is set besides
// those of the key. Byte slices are parts of the row.
type RowContent struct {
	Name   string   // the key of a record, client, user or consents
	Digest Digest   // the key of what is known by a digest
	ID     [16]byte // the key of a family, login session or logout notice
	Sub    byte     // IndexKind or StateKind, the first part of a key

	Document    Document
	Client      ClientState
	User        UserRecord
	Identity    IdentityRecord
	Owner       string
	SessionKeys []SessionKeyRecord
	Consents    []Consent
	Family      Family
	Login       LoginRecord
	Code        CodeRecord
	Idempotency KeptIdempotency
	Item        ItemRecord
	Denied      time.Time
	State       State
	Logout      LogoutNotice
}

// Decode reads a row. It accepts exactly what engines of this version store,
// and returns an error that wraps ErrCorrupt and says which row for anything
// else.
func (r Row) Decode() (c RowContent, err error) {
	if len(r.Value) > maxRowValue {
		err = ErrTooLarge
	} else if err = c.decodeKey(r.Kind, r.Key); err == nil {
		err = c.decodeValue(r.Kind, r.Value)
	}
	if err != nil {
		return RowContent{}, fmt.Errorf("%s: row %x: %w", r.Kind, r.Key[:min(len(r.Key), 40)], err)
	}
	return c, nil
}

// The longest key that is a text, and the longest value, in bytes. A value has
// a few names beside what MaxValueSize is the limit of.
const (
	maxRowName  = 1024
	maxRowValue = MaxValueSize + 64<<10
)

func (c *RowContent) decodeKey(kind RowKind, key []byte) error {
	size := len(Digest{})
	switch kind {
	case RowRecord, RowClient, RowUser, RowConsents:
		c.Name = string(key)
		if !isText(c.Name) || c.Name == "" || len(c.Name) > maxRowName || kind == RowRecord && slices.Contains(OwnRecords(), c.Name) {
			return ErrCorrupt
		}
		return nil
	case RowOwner, RowState:
		if len(key) != 1+size {
			return ErrCorrupt
		}
		c.Sub, key = key[0], key[1:]
		if kind == RowOwner && (c.Sub < byte(IndexUnionID) || c.Sub > byte(IndexExternalID)) {
			return ErrCorrupt
		}
	case RowFamily, RowLogin, RowLogout:
		if len(key) != len(c.ID) {
			return ErrCorrupt
		}
		c.ID = [16]byte(key)
		return nil
	}
	if len(key) != size {
		return ErrCorrupt
	}
	c.Digest = Digest(key)
	return nil
}

func (c *RowContent) decodeValue(kind RowKind, value []byte) (err error) {
	text := ""
	switch kind {
	case RowRecord:
		c.Document, err = DecodeDocument(value)
		if c.Document.Version > math.MaxInt64 {
			err = ErrCorrupt
		}
	case RowClient:
		c.Client, err = DecodeClient(value)
		text = c.Client.EndedReason
	case RowUser:
		c.User, err = DecodeUser(value)
		text = c.User.EndedReason
	case RowIdentity:
		c.Identity, err = DecodeIdentity(value)
		text = c.Identity.UserID + c.Identity.OpenPlatform
	case RowOwner:
		c.Owner = string(value)
		if text = c.Owner; text == "" {
			err = ErrCorrupt
		}
	case RowSessionKeys:
		c.SessionKeys, err = DecodeSessionKeys(value)
		if err == nil && len(c.SessionKeys) == 0 {
			err = ErrCorrupt
		}
	case RowConsents:
		c.Consents, err = DecodeConsents(value)
	case RowFamily:
		c.Family, err = DecodeFamily(c.ID, value)
		text = c.Family.UserID + c.Family.ClientID + c.Family.RevokedFor
	case RowLogin:
		c.Login, err = DecodeLogin(c.ID, value)
		text = c.Login.UserID
	case RowCode:
		c.Code, err = DecodeKeptCode(value)
	case RowIdempotency:
		c.Idempotency, err = DecodeIdempotency(value)
	case RowItem:
		c.Item, err = DecodeItem(value)
	case RowDeniedJTI:
		c.Denied, err = DecodeDenied(value)
	case RowState:
		c.State, err = DecodeState(value)
		if c.State.Version > math.MaxInt64 {
			err = ErrCorrupt
		}
	case RowLogout:
		c.Logout, err = DecodeLogout(c.ID, value)
		text = c.Logout.ClientID + c.Logout.UserID
	default:
		return fmt.Errorf("%w: no such kind", ErrCorrupt)
	}
	if err == nil && !isText(text) {
		err = fmt.Errorf("%w: a name is not UTF-8 text", ErrCorrupt)
	}
	return err
}

// isText reports whether every engine can hold s as a text.
func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
