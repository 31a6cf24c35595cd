package storage

import "fmt"

// ImportCase is a slice of ImportRows with what could be computed before its
// transaction.
type ImportCase struct {
	vault *Vault
	rows  []importRow
}

type importRow struct {
	ImportRow
	proof    proof
	external Digest
	newUser  *newUser // nil: not needed so far
}

// PrepareImport computes what an import needs besides its transaction. It
// returns ErrTooLarge for more than MaxImport rows.
func (v *Vault) PrepareImport(rows []ImportRow) (*ImportCase, error) {
	if len(rows) > MaxImport {
		return nil, ErrTooLarge
	}
	c := &ImportCase{vault: v, rows: make([]importRow, len(rows))}
	for i, row := range rows {
		if row.AppID == "" || row.WeChatOpenID == "" || row.ExternalID == "" {
			return nil, fmt.Errorf("%w: row %d lacks the appid, the openid or the external id", ErrUnavailable, i)
		}
		c.rows[i] = importRow{
			ImportRow: row,
			proof:     v.proof(row.AppID, row.WeChatOpenID, row.OpenPlatform, row.UnionID),
			external:  v.ExternalIDIndex(row.ExternalID),
		}
	}
	return c, nil
}

// Judge decides and drafts one row after another; each sees what those before
// it have drafted.
func (c *ImportCase) Judge(d *Draft) ([]ImportVerdict, error) {
	verdicts := make([]ImportVerdict, len(c.rows))
	for i := range c.rows {
		var err error
		if verdicts[i], err = c.judgeRow(d, &c.rows[i]); err != nil {
			return nil, err
		}
	}
	return verdicts, nil
}

func (c *ImportCase) judgeRow(d *Draft, row *importRow) (ImportVerdict, error) {
	user, err := d.found(IndexExternalID, row.external)
	if err != nil {
		return 0, err
	}
	identity, err := d.identity(row.proof.index)
	if err != nil {
		return 0, err
	}
	unionOwner, err := d.owner(IndexUnionID, row.proof.union)
	if err != nil {
		return 0, err
	}
	switch {
	case identity != nil && (user == nil || identity.UserID != user.id),
		unionOwner != "" && (user == nil || unionOwner != user.id):
		return ImportConflict, nil
	case identity != nil:
		return c.judgeKnown(d, user, identity, row)
	case user == nil:
		return ImportCreated, c.create(d, row)
	case user.Disabled:
		return ImportDisabled, nil
	}
	if clash, err := d.hasApp(user, row.AppID); err != nil || clash {
		return ImportConflict, err
	}
	return ImportLinked, d.link(user, row.proof)
}

// judgeKnown decides a row whose identity is the named user's already.
func (c *ImportCase) judgeKnown(d *Draft, user *draftUser, identity *draftIdentity, row *importRow) (ImportVerdict, error) {
	switch {
	case identity.settled(&row.proof):
		return ImportUnchanged, nil
	case identity.recorded(&row.proof):
		return ImportConflict, nil
	case user.Disabled:
		return ImportDisabled, nil
	}
	return ImportLinked, d.upgrade(user, identity, row.proof)
}

func (c *ImportCase) create(d *Draft, row *importRow) error {
	if row.newUser == nil {
		var err error
		if row.newUser, err = c.vault.makeUser(row.Profile); err != nil {
			return err
		}
	}
	user := d.create(row.newUser)
	if err := d.setHandle(user, IndexExternalID, row.external, row.ExternalID); err != nil {
		return err
	}
	return d.link(user, row.proof)
}
