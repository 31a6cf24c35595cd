package web

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// MergeUsersRequest asks to move everything of one user to another.
type MergeUsersRequest struct {
	From   string `json:"from"` // as UserRequest.Who, and so is Into
	Into   string `json:"into"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// MergeUsersResponse says what moved, or would.
type MergeUsersResponse struct {
	From       string `json:"from"`
	Into       string `json:"into"`
	DryRun     bool   `json:"dry_run"`
	Identities int    `json:"identities"` // WeChat accounts that move
	Username   bool   `json:"username"`   // moves, with the password
	Phone      bool   `json:"phone"`
	ExternalID bool   `json:"external_id"`
	SignIns    int    `json:"sign_ins"` // of From that end
}

// ImportUsersRequest has up to storage.MaxImport rows.
type ImportUsersRequest struct {
	Rows   []accounts.ImportRow `json:"rows"`
	DryRun bool                 `json:"dry_run,omitempty"`
}

// MaxImportBody is the longest ImportUsersRequest, in bytes.
const MaxImportBody = 8 << 20

// mergeRefusals says why two users cannot become one.
var mergeRefusals = map[storage.MergeVerdict]string{
	storage.MergeMissing:         "one of the users was merged or erased meanwhile",
	storage.MergeSame:            "both names are of one user",
	storage.MergeSameApp:         "both users have a WeChat account in the same mini-program, so they are not one person there; nothing was changed",
	storage.MergeDisabled:        "one of the users is disabled; enable them first (wxidp users enable), or the merge would lift the ban",
	storage.MergeBothUsernames:   "both users have a username, and a user has one; nothing was changed",
	storage.MergeBothPhones:      "both users have a phone number, and a user has one; nothing was changed",
	storage.MergeBothExternalIDs: "both users have an external id: the product knows them as two; nothing was changed",
}

func (s *Server) mergeUsers(w http.ResponseWriter, r *http.Request) error {
	var in MergeUsersRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	from, err := s.People.FindLiving(r.Context(), in.From)
	if err != nil {
		return refusePeople(w, err)
	}
	into, err := s.People.FindLiving(r.Context(), in.Into)
	if err != nil {
		return refusePeople(w, err)
	}
	res, err := s.Store.Merge(r.Context(), from.ID, into.ID, in.DryRun)
	if err != nil {
		return err
	}
	if res.Verdict != storage.MergeOK {
		return answer(w, http.StatusConflict, adminError(errors.New(mergeRefusals[res.Verdict])))
	}
	if !in.DryRun {
		s.audit(r, "users.merge", slog.String("sub", from.ID), slog.String("into", into.ID), slog.Int("identities", res.Identities))
	}
	return answer(w, http.StatusOK, MergeUsersResponse{
		From: from.ID, Into: into.ID, DryRun: in.DryRun, Identities: res.Identities,
		Username: res.Username, Phone: res.Phone, ExternalID: res.ExternalID, SignIns: res.Families,
	})
}

func (s *Server) importUsers(w http.ResponseWriter, r *http.Request) error {
	var in ImportUsersRequest
	if err := readJSONUpTo(w, r, MaxImportBody, &in); err != nil {
		return err
	}
	if len(in.Rows) > storage.MaxImport {
		return answer(w, http.StatusBadRequest, adminError(errors.New("a request has at most 1000 rows")))
	}
	result, err := s.People.Import(r.Context(), in.Rows, in.DryRun)
	if err != nil {
		return err
	}
	if !in.DryRun {
		s.audit(r, "users.import", slog.Int("rows", len(in.Rows)), slog.Int("created", result.Created),
			slog.Int("linked", result.Linked), slog.Int("unchanged", result.Unchanged), slog.Int("faults", len(result.Faults)))
	}
	return answer(w, http.StatusOK, result)
}
