package web

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/wxidp/wxidp/accounts"
)

// UnbindUserRequest asks to remove WeChat accounts from a user: that of an app,
// all of them, or, with neither, the only one there is.
type UnbindUserRequest struct {
	Who   string `json:"who"`
	AppID string `json:"appid,omitempty"`
	All   bool   `json:"all,omitempty"`
}

// UnbindUserResponse says what was removed.
type UnbindUserResponse struct {
	ID         string   `json:"id"`
	AppIDs     []string `json:"appids"`     // of the WeChat accounts that are gone
	Identities int      `json:"identities"` // WeChat accounts that stay
	// LeadBack are those of AppIDs whose next sign-in is this user again, by
	// the unionid of a WeChat account that stays.
	LeadBack []string `json:"lead_back,omitempty"`
}

func (s *Server) unbindUser(w http.ResponseWriter, r *http.Request) error {
	var in UnbindUserRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	if in.All && in.AppID != "" {
		return answer(w, http.StatusBadRequest, adminError(errors.New("an appid and all of them exclude each other")))
	}
	user, err := s.People.FindLiving(r.Context(), in.Who)
	if err != nil {
		return refusePeople(w, err)
	}
	out, err := s.People.Unbind(r.Context(), user, in.AppID, in.All)
	s.auditUnbound(r, user.ID, out)
	if err != nil {
		return refusePeople(w, err)
	}
	return answer(w, http.StatusOK, UnbindUserResponse{ID: user.ID, AppIDs: out.AppIDs, Identities: out.Left, LeadBack: out.LeadBack})
}

// auditUnbound writes one line for each WeChat account that is gone, also where
// a later step failed.
func (s *Server) auditUnbound(r *http.Request, userID string, out accounts.Unbound) {
	for _, appID := range out.AppIDs {
		s.audit(r, "users.unbind", slog.String("sub", userID), slog.String("appid", appID))
	}
}
