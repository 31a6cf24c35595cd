package web

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/storage"
)

// Paths of the admin API about sign-ins, which are refresh-token families.
const (
	AdminSessions       = "/admin/sessions"
	AdminSessionsRevoke = "/admin/sessions/revoke"
)

// SessionsRequest asks for one page of sign-ins.
type SessionsRequest struct {
	Who      string `json:"who,omitempty"`       // "": of all users
	ClientID string `json:"client_id,omitempty"` // "": of all clients
	All      bool   `json:"all,omitempty"`       // also those that have ended or expired
	After    string `json:"after,omitempty"`     // the cursor of the page before
	Limit    int    `json:"limit,omitempty"`
}

// SessionsResponse is one page of sign-ins in the order of their creation. It
// may be short or empty while Next is not "".
type SessionsResponse struct {
	SignIns []accounts.SignIn `json:"sign_ins"`
	Next    string            `json:"next,omitempty"`
}

// RevokeSessionsRequest ends what exactly one of its members names.
type RevokeSessionsRequest struct {
	SID      string `json:"sid,omitempty"`
	Who      string `json:"who,omitempty"`       // all of a user's
	ClientID string `json:"client_id,omitempty"` // all of a client's
}

// RevokeSessionsResponse names what has ended.
type RevokeSessionsResponse struct {
	SID      string `json:"sid,omitempty"`
	UserID   string `json:"sub,omitempty"`
	ClientID string `json:"client_id,omitempty"`
	// UnknownClient: no client of that name is configured, so it may be a
	// mistake.
	UnknownClient bool `json:"unknown_client,omitempty"`
}

// revokedByOperator is the reason of sign-ins that an operator ended.
const revokedByOperator = "operator"

func (s *Server) listSessions(w http.ResponseWriter, r *http.Request) error {
	var in SessionsRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	filter := accounts.SignInFilter{ClientID: in.ClientID, Active: !in.All}
	if in.Who != "" {
		user, err := s.People.FindLiving(r.Context(), in.Who)
		if err != nil {
			return refusePeople(w, err)
		}
		filter.UserID = user.ID
	}
	page, next, err := s.People.PageSignIns(r.Context(), filter, in.After, in.Limit)
	if errors.Is(err, storage.ErrBadCursor) {
		return answer(w, http.StatusBadRequest, adminError(errors.New("that is no cursor of this listing")))
	}
	if err != nil {
		return err
	}
	if page == nil {
		page = []accounts.SignIn{}
	}
	return answer(w, http.StatusOK, SessionsResponse{page, next})
}

func (s *Server) revokeSessions(w http.ResponseWriter, r *http.Request) error {
	var in RevokeSessionsRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	switch {
	case in.SID != "" && in.Who == "" && in.ClientID == "":
		return s.revokeSession(w, r, in.SID)
	case in.Who != "" && in.SID == "" && in.ClientID == "":
		user, err := s.People.FindLiving(r.Context(), in.Who)
		if err != nil {
			return refusePeople(w, err)
		}
		if err := s.Provider.EndLogins(r.Context(), user.ID); err != nil {
			return err
		}
		if err := s.Store.RevokeUser(r.Context(), user.ID, revokedByOperator); err != nil {
			return refusePeople(w, err)
		}
		s.audit(r, "sessions.revoke", slog.String("sub", user.ID))
		return answer(w, http.StatusOK, RevokeSessionsResponse{UserID: user.ID})
	case in.ClientID != "" && in.SID == "" && in.Who == "":
		err := s.Store.RevokeClient(r.Context(), in.ClientID, revokedByOperator)
		if errors.Is(err, storage.ErrTooLarge) {
			return answer(w, http.StatusBadRequest, adminError(errors.New("that is no client_id: it is too long")))
		}
		if err != nil {
			return err
		}
		s.audit(r, "sessions.revoke", slog.String("client_id", cut(in.ClientID, 128)))
		return answer(w, http.StatusOK, RevokeSessionsResponse{ClientID: in.ClientID, UnknownClient: !s.ClientExists(in.ClientID)})
	}
	return answer(w, http.StatusBadRequest, adminError(errors.New("name exactly one of a sid, a user and a client")))
}

func (s *Server) revokeSession(w http.ResponseWriter, r *http.Request, sid string) error {
	id, ok := storage.ParseFamilyID(sid)
	found := false
	if ok {
		var err error
		if found, err = s.Provider.EndFamily(r.Context(), id, revokedByOperator); err != nil {
			return err
		}
	}
	if !found {
		return answer(w, http.StatusNotFound, adminError(errors.New("there is no sign-in with this sid")))
	}
	s.audit(r, "sessions.revoke", slog.String("sid", sid))
	return answer(w, http.StatusOK, RevokeSessionsResponse{SID: sid})
}
