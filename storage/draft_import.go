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
	proof              proof // without an index: the row has no identity
	external, username Digest
	newUser            *newUser // nil: not needed so far
}

// PrepareImport computes what an import needs besides its transaction. It
// returns ErrTooLarge for more than MaxImport rows.
func (v *Vault) PrepareImport(rows []ImportRow) (*ImportCase, error) {
	if len(rows) > MaxImport {
		return nil, ErrTooLarge
	}
	c := &ImportCase{vault: v, rows: make([]importRow, len(rows))}
	for i, row := range rows {
		identity, account := row.WeChatOpenID != "", row.Username != ""
		if !identity && !account || identity != (row.AppID != "") || account != (row.PasswordHash != "") || identity && row.ExternalID == "" {
			return nil, fmt.Errorf("%w: row %d is neither an identity with an external id nor an account", ErrUnavailable, i)
		}
		c.rows[i].ImportRow = row
		if identity {
			c.rows[i].proof = v.proof(row.AppID, row.WeChatOpenID, row.OpenPlatform, row.UnionID)
		}
		if account {
			c.rows[i].username = v.UsernameIndex(row.Username)
		}
		if row.ExternalID != "" {
			c.rows[i].external = v.ExternalIDIndex(row.ExternalID)
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
	user, err := d.imported(row)
	if err != nil {
		return 0, err
	}
	refusal, link, err := d.importIdentity(user, row)
	if err != nil || refusal != 0 {
		return refusal, err
	}
	refusal, name, err := d.importAccount(user, row)
	if err != nil || refusal != 0 {
		return refusal, err
	}
	external := d.importExternalID(user, row)
	verdict := ImportLinked
	switch {
	case user == nil:
		verdict = ImportCreated
		if user, err = c.create(d, row); err != nil {
			return 0, err
		}
	case external == nil && link == nil && name == nil:
		return ImportUnchanged, nil
	case user.Disabled:
		return ImportDisabled, nil
	}
	for _, step := range []importStep{external, link, name} {
		if step != nil {
			if err := step(user); err != nil {
				return 0, err
			}
		}
	}
	return verdict, nil
}

// importStep gives a user one part of a row; nil: the user has it already.
type importStep func(user *draftUser) error

// imported returns the user whom a row is about, nil where there is none.
// Somebody who signed in before the import is found by the identity or its
// unionid, unless the product knows them by an id already.
func (d *Draft) imported(row *importRow) (*draftUser, error) {
	if row.ExternalID == "" {
		return d.importedByName(row)
	}
	user, err := d.found(IndexExternalID, row.external)
	if err != nil || user != nil || row.proof.index.IsZero() {
		return user, err
	}
	identity, err := d.identity(row.proof.index)
	if err != nil {
		return nil, err
	}
	if identity != nil {
		user, err = d.linked(identity.UserID)
	} else {
		user, err = d.found(IndexUnionID, row.proof.union)
	}
	if err != nil || user == nil || !user.ExternalID.IsZero() {
		return nil, err
	}
	return user, nil
}

// importedByName returns the user with the row's username where no external id
// tells them apart, so that the same import again finds what it made: also when
// the password hash has been replaced since.
func (d *Draft) importedByName(row *importRow) (*draftUser, error) {
	user, err := d.found(IndexUsername, row.username)
	if err != nil || user == nil || !user.ExternalID.IsZero() {
		return nil, err
	}
	return user, nil
}

// importExternalID gives a user who has none the row's external id.
func (d *Draft) importExternalID(user *draftUser, row *importRow) importStep {
	if row.external.IsZero() || user != nil && !user.ExternalID.IsZero() {
		return nil
	}
	return func(user *draftUser) error { return d.setHandle(user, IndexExternalID, row.external, row.ExternalID) }
}

// importIdentity judges a row's WeChat identity.
func (d *Draft) importIdentity(user *draftUser, row *importRow) (refusal ImportVerdict, link importStep, err error) {
	if row.proof.index.IsZero() {
		return 0, nil, nil
	}
	identity, err := d.identity(row.proof.index)
	if err != nil {
		return 0, nil, err
	}
	unionOwner, err := d.owner(IndexUnionID, row.proof.union)
	if err != nil {
		return 0, nil, err
	}
	switch {
	case identity != nil && (user == nil || identity.UserID != user.id):
		return ImportIdentityTaken, nil, nil
	case unionOwner != "" && (user == nil || unionOwner != user.id):
		return ImportUnionIDTaken, nil, nil
	case identity != nil && identity.settled(&row.proof):
		return 0, nil, nil
	case identity != nil && identity.recorded(&row.proof):
		return ImportUnionIDTaken, nil, nil
	case identity != nil:
		return 0, func(user *draftUser) error { return d.upgrade(user, identity, row.proof) }, nil
	}
	if user != nil {
		if clash, err := d.hasApp(user, row.AppID); err != nil || clash {
			return ImportSameApp, nil, err
		}
	}
	return 0, func(user *draftUser) error { return d.link(user, row.proof) }, nil
}

// importAccount judges a row's username. The password of an account that
// exists stays as it is: it may have been changed since.
func (d *Draft) importAccount(user *draftUser, row *importRow) (refusal ImportVerdict, name importStep, err error) {
	if row.username.IsZero() {
		return 0, nil, nil
	}
	owner, err := d.owner(IndexUsername, row.username)
	switch {
	case err != nil:
		return 0, nil, err
	case owner != "" && (user == nil || owner != user.id):
		return ImportUsernameTaken, nil, nil
	case owner != "":
		return 0, nil, nil
	case user != nil && !user.Username.IsZero():
		return ImportOtherUsername, nil, nil
	}
	return 0, func(user *draftUser) error {
		if err := d.setHandle(user, IndexUsername, row.username, row.Username); err != nil {
			return err
		}
		return d.setPassword(user, row.PasswordHash)
	}, nil
}

func (c *ImportCase) create(d *Draft, row *importRow) (*draftUser, error) {
	if row.newUser == nil {
		var err error
		if row.newUser, err = c.vault.makeUser(row.Profile); err != nil {
			return nil, err
		}
	}
	return d.create(row.newUser), nil
}
