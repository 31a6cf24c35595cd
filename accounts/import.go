package accounts

import (
	"context"
	"errors"
	"strings"

	"github.com/wxidp/wxidp/storage"
)

// ImportRow is one user of an earlier system as a file has it: a WeChat
// identity of a user named by ExternalID, or an account, or both. It holds
// personal values and a password hash: it must not be logged.
type ImportRow struct {
	ExternalID   string `json:"external_id,omitempty"`
	AppID        string `json:"appid,omitempty"`
	WeChatOpenID string `json:"wechat_openid,omitempty"`
	UnionID      string `json:"unionid,omitempty"`
	Nickname     string `json:"nickname,omitempty"`
	Picture      string `json:"picture,omitempty"`
	Username     string `json:"username,omitempty"`
	PasswordHash string `json:"password_hash,omitempty"`
}

// ImportFault says what is wrong with one row, and what would be right. It
// repeats no value of the row.
type ImportFault struct {
	Row  int    `json:"row"` // counted from 0
	Text string `json:"text"`
}

// ImportResult counts what an import did or would do.
type ImportResult struct {
	Created   int `json:"created"`   // new users
	Linked    int `json:"linked"`    // rows that gave a known user something
	Unchanged int `json:"unchanged"` // rows of which all was so already
	// UnionIDsNotKept counts rows whose unionid was left out because their
	// app names no open platform.
	UnionIDsNotKept int           `json:"unionids_not_kept"`
	Faults          []ImportFault `json:"faults,omitempty"` // in order of rows; nothing of these was taken
}

// Import takes up to storage.MaxImport rows in one commit; with dryRun it only
// says what it would do with what is there now. It is idempotent. The error is
// storage's; a row that cannot be taken is none.
func (d *Directory) Import(ctx context.Context, rows []ImportRow, dryRun bool) (ImportResult, error) {
	var result ImportResult
	texts := make([]string, len(rows)) // of faults
	sound := make([]storage.ImportRow, 0, len(rows))
	for i := range rows {
		row, text := d.judgeRow(&rows[i])
		if texts[i] = text; text != "" {
			continue
		}
		sound = append(sound, row)
		if row.UnionID != "" && row.OpenPlatform == "" {
			result.UnionIDsNotKept++
		}
	}
	var verdicts []storage.ImportVerdict
	if len(sound) > 0 {
		var err error
		if verdicts, err = d.Store.ImportUsers(ctx, sound, dryRun); err != nil {
			return ImportResult{}, err
		}
	}
	for i, next := 0, 0; i < len(rows); i++ {
		if texts[i] == "" {
			texts[i] = result.count(verdicts[next])
			next++
		}
		if texts[i] != "" {
			result.Faults = append(result.Faults, ImportFault{i, texts[i]})
		}
	}
	return result, nil
}

// count takes a verdict into account, and returns the text of a refusal.
func (r *ImportResult) count(verdict storage.ImportVerdict) string {
	switch verdict {
	case storage.ImportCreated:
		r.Created++
	case storage.ImportLinked:
		r.Linked++
	case storage.ImportUnchanged:
		r.Unchanged++
	case storage.ImportIdentityTaken:
		return "this openid belongs to a user with another external_id already; one person has one"
	case storage.ImportUnionIDTaken:
		return "this unionid belongs to another user already, or this openid has another unionid; if both users are one person, join them with `wxidp users merge`"
	case storage.ImportSameApp:
		return "this external_id has another openid of the same appid already; a user has one of each app"
	case storage.ImportUsernameTaken:
		return "this username belongs to another account already, whose external_id is another or missing; give this row another username, or the external_id that the account has"
	case storage.ImportOtherUsername:
		return "this external_id has another username already; a user has one"
	case storage.ImportDisabled:
		return "this user is disabled; enable the user first"
	default:
		return "this row was refused"
	}
	return ""
}

// judgeRow checks one row by itself, and returns the text of what is wrong.
func (d *Directory) judgeRow(row *ImportRow) (out storage.ImportRow, fault string) {
	identity := row.AppID != "" || row.WeChatOpenID != "" || row.UnionID != ""
	account := row.Username != "" || row.PasswordHash != ""
	if !identity && !account {
		return out, "there is neither an appid with a wechat_openid nor a username with a password_hash"
	}
	if row.ExternalID != "" && !validExternalID(row.ExternalID) {
		return out, "external_id is not 1 to 256 bytes without control characters and without space around them"
	}
	out.ExternalID = row.ExternalID
	if identity {
		if fault = d.judgeIdentity(row, &out); fault != "" {
			return out, fault
		}
	}
	if account {
		if fault = judgeAccount(row, &out); fault != "" {
			return out, fault
		}
	}
	var err error
	if out.Profile, err = d.newProfile(row.Nickname, row.Picture); err != nil {
		if e, ok := errors.AsType[*Error](err); ok && e.Param == "picture" {
			return out, "picture is not an https URL of at most 2048 characters; leave it empty for the default"
		}
		return out, "nickname is not 1 to 64 characters without control characters; leave it empty for the default"
	}
	return out, ""
}

func (d *Directory) judgeIdentity(row *ImportRow, out *storage.ImportRow) (fault string) {
	switch {
	case row.AppID == "":
		return "appid is missing: an openid belongs to one mini-program"
	case row.WeChatOpenID == "":
		return "wechat_openid is missing"
	case !plainID(row.WeChatOpenID):
		return "wechat_openid is not 1 to 128 visible ASCII characters"
	case row.UnionID != "" && !plainID(row.UnionID):
		return "unionid is not 1 to 128 visible ASCII characters; leave it empty where it is not known"
	case row.ExternalID == "":
		return "external_id is missing: it says whose openid this is"
	}
	platform, configured := d.OpenPlatform(row.AppID)
	if !configured {
		return "this appid is not one of wechat.apps in the configuration; add it there first"
	}
	out.AppID, out.WeChatOpenID, out.UnionID, out.OpenPlatform = row.AppID, row.WeChatOpenID, row.UnionID, platform
	return ""
}

func judgeAccount(row *ImportRow, out *storage.ImportRow) (fault string) {
	switch {
	case row.Username == "":
		return "username is missing beside the password_hash"
	case row.PasswordHash == "":
		return "password_hash is missing beside the username"
	}
	var err error
	if out.Username, err = CanonicalUsername(row.Username); err != nil {
		return "username is not 1 to 128 bytes without control characters"
	}
	if err := CheckHash(row.PasswordHash); err != nil {
		return strings.Replace(err.Error(), "accounts: not", "password_hash is not", 1)
	}
	out.PasswordHash = row.PasswordHash
	return ""
}
