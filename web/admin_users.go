package web

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// Paths of the admin API about users.
const (
	AdminUsers         = "/admin/users"
	AdminUsersShow     = "/admin/users/show"
	AdminUsersAdd      = "/admin/users/add"
	AdminUsersPassword = "/admin/users/password"
	AdminUsersUnbind   = "/admin/users/unbind"
	AdminUsersDisable  = "/admin/users/disable"
	AdminUsersEnable   = "/admin/users/enable"
	AdminUsersErase    = "/admin/users/erase"
	AdminUsersExport   = "/admin/users/export"
	AdminUsersMerge    = "/admin/users/merge"
	AdminUsersImport   = "/admin/users/import"
)

// UserRequest names a user, in any form that accounts.Directory.Find takes.
type UserRequest struct {
	Who string `json:"who"`
}

// ShowUserRequest asks for a user; without Reveal personal values are masked.
type ShowUserRequest struct {
	Who    string `json:"who"`
	Reveal bool   `json:"reveal,omitempty"`
}

// UserResponse names the user whom a request was about.
type UserResponse struct {
	ID string `json:"id"`
}

// UserLine is a user in a listing.
type UserLine struct {
	ID         string    `json:"id"`
	CreatedAt  time.Time `json:"created_at,omitzero"`
	State      string    `json:"state"`
	Identities int       `json:"identities"` // WeChat accounts
	Password   bool      `json:"password"`
	Phone      bool      `json:"phone"`
	ExternalID bool      `json:"external_id"`
	Nickname   string    `json:"nickname,omitempty"`
}

// UsersResponse is one page of users; Next is the cursor of the next one, ""
// at the end.
type UsersResponse struct {
	Users []UserLine `json:"users"`
	Next  string     `json:"next,omitempty"`
}

// AddUserRequest asks for a new account.
type AddUserRequest struct {
	Username   string `json:"username,omitempty"`
	Password   string `json:"password,omitempty"` // "": none
	ExternalID string `json:"external_id,omitempty"`
	Nickname   string `json:"nickname,omitempty"`
	Picture    string `json:"picture,omitempty"`
}

// SetPasswordRequest gives a user another password.
type SetPasswordRequest struct {
	Who      string `json:"who"`
	Password string `json:"password"`
}

// SetPasswordResponse says what may still sign the user in without the password.
type SetPasswordResponse struct {
	ID         string `json:"id"`
	Identities int    `json:"identities"` // WeChat accounts, which stay bound
}

// shownSignIns is how many sign-ins a user is shown with.
const shownSignIns = 100

func (s *Server) listUsers(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	limit, _ := strconv.Atoi(query.Get("limit")) // anything else means the most
	users, next, err := s.Store.PageUsers(r.Context(), query.Get("after"), limit)
	if err != nil {
		return err
	}
	out := UsersResponse{Users: make([]UserLine, len(users)), Next: next}
	for i := range users {
		user := &users[i]
		out.Users[i] = UserLine{
			ID: user.ID, CreatedAt: user.CreatedAt, State: accounts.State(user), Identities: user.Identities,
			Password: user.Username != "" && user.HasPassword, Phone: user.Phone != "", ExternalID: user.ExternalID != "",
			Nickname: user.Profile.Nickname,
		}
	}
	return answer(w, http.StatusOK, out)
}

func (s *Server) showUser(w http.ResponseWriter, r *http.Request) error {
	var in ShowUserRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	user, err := s.People.Find(r.Context(), in.Who)
	if err != nil {
		return refusePeople(w, err)
	}
	person, err := s.People.Describe(r.Context(), user, shownSignIns)
	if err != nil {
		return refusePeople(w, err)
	}
	if !in.Reveal {
		return answer(w, http.StatusOK, person.Masked())
	}
	s.audit(r, "users.reveal", slog.String("sub", user.ID))
	return answer(w, http.StatusOK, person)
}

func (s *Server) exportUser(w http.ResponseWriter, r *http.Request) error {
	user, err := s.named(w, r)
	if err != nil {
		return refusePeople(w, err)
	}
	person, err := s.People.Describe(r.Context(), user, 0)
	if err != nil {
		return refusePeople(w, err)
	}
	s.audit(r, "users.export", slog.String("sub", user.ID))
	return answer(w, http.StatusOK, person)
}

func (s *Server) addUser(w http.ResponseWriter, r *http.Request) error {
	var in AddUserRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	res, err := s.People.Add(r.Context(), accounts.NewUser{
		Username: in.Username, Password: secret.New(in.Password), ExternalID: in.ExternalID, Nickname: in.Nickname, Picture: in.Picture,
	})
	if err != nil {
		return refusePeople(w, err)
	}
	switch res.Verdict {
	case storage.AccountCreated:
		s.audit(r, "users.add", slog.String("sub", res.UserID))
		return answer(w, http.StatusCreated, UserResponse{res.UserID})
	case storage.AccountExists:
		return answer(w, http.StatusConflict, adminError(errors.New("this account exists already, and was left as it is: "+res.UserID)))
	case storage.AccountExternalIDTaken:
		return answer(w, http.StatusConflict, adminError(errors.New("the external id belongs to another user already")))
	}
	return answer(w, http.StatusConflict, adminError(errors.New("the username belongs to another user already")))
}

func (s *Server) setUserPassword(w http.ResponseWriter, r *http.Request) error {
	var in SetPasswordRequest
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	user, err := s.People.FindLiving(r.Context(), in.Who)
	if err != nil {
		return refusePeople(w, err)
	}
	// Whoever has a session by the old password is to lose it, and the clients
	// are told while it is known who they are.
	if err := s.Provider.EndLogins(r.Context(), user.ID); err != nil {
		return err
	}
	if err := s.People.SetPassword(r.Context(), user, secret.New(in.Password)); err != nil {
		return refusePeople(w, err)
	}
	s.audit(r, "users.password", slog.String("sub", user.ID))
	if user, err = s.Store.User(r.Context(), user.ID); err != nil {
		return refusePeople(w, err)
	}
	return answer(w, http.StatusOK, SetPasswordResponse{ID: user.ID, Identities: user.Identities})
}

func (s *Server) disableUser(w http.ResponseWriter, r *http.Request) error {
	return s.setUserDisabled(w, r, "users.disable", true)
}

func (s *Server) enableUser(w http.ResponseWriter, r *http.Request) error {
	return s.setUserDisabled(w, r, "users.enable", false)
}

func (s *Server) setUserDisabled(w http.ResponseWriter, r *http.Request, event string, disabled bool) error {
	user, err := s.named(w, r)
	if err != nil {
		return refusePeople(w, err)
	}
	if disabled {
		if err := s.Provider.EndLogins(r.Context(), user.ID); err != nil {
			return err
		}
	}
	if err := s.Store.SetUserDisabled(r.Context(), user.ID, disabled); err != nil {
		return refusePeople(w, err)
	}
	s.audit(r, event, slog.String("sub", user.ID))
	return answer(w, http.StatusOK, UserResponse{user.ID})
}

func (s *Server) eraseUser(w http.ResponseWriter, r *http.Request) error {
	user, err := s.named(w, r)
	if err != nil {
		return refusePeople(w, err)
	}
	if err := s.Provider.EndLogins(r.Context(), user.ID); err != nil {
		return err
	}
	found, err := s.Store.Erase(r.Context(), user.ID)
	if err == nil && !found {
		err = accounts.ErrRetired // meanwhile
	}
	if err != nil {
		return refusePeople(w, err)
	}
	s.audit(r, "users.erase", slog.String("sub", user.ID))
	return answer(w, http.StatusOK, UserResponse{user.ID})
}

// named reads a UserRequest and returns its user, who is not retired.
func (s *Server) named(w http.ResponseWriter, r *http.Request) (storage.User, error) {
	var in UserRequest
	if err := readJSON(w, r, &in); err != nil {
		return storage.User{}, err
	}
	return s.People.FindLiving(r.Context(), in.Who)
}

// refusePeople answers what the operator can put right, and returns any other
// error.
func refusePeople(w http.ResponseWriter, err error) error {
	e, invalid := errors.AsType[*accounts.Error](err)
	choice, unclear := errors.AsType[*accounts.ChooseError](err)
	switch {
	case unclear:
		return answer(w, http.StatusConflict, adminError(choice))
	case errors.Is(err, accounts.ErrWho):
		return answer(w, http.StatusBadRequest, adminError(err))
	case errors.Is(err, accounts.ErrRetired):
		return answer(w, http.StatusNotFound, adminError(errors.New("this user was merged into another or erased; nothing is left of them")))
	case errors.Is(err, storage.ErrNotFound):
		return answer(w, http.StatusNotFound, adminError(errors.New("there is no such user")))
	case errors.Is(err, accounts.ErrNoUsername), errors.Is(err, accounts.ErrLastWayIn), errors.Is(err, accounts.ErrChanging), errors.Is(err, accounts.ErrBanned):
		return answer(w, http.StatusConflict, adminError(err))
	case invalid && e.Kind == accounts.InvalidInput:
		return answer(w, http.StatusBadRequest, adminError(errors.New(inputFault(e))))
	case invalid && e.Kind == accounts.Busy:
		w.Header().Set("Retry-After", "1")
		return answer(w, http.StatusServiceUnavailable, adminError(errors.New("too many passwords are being checked; try again in a second")))
	}
	return err
}

// inputFault says what would be right.
func inputFault(e *accounts.Error) string {
	switch e.Param {
	case "username":
		return "a username has 1 to 128 bytes without control characters"
	case "password":
		return "a password has 1 to 128 bytes"
	case "nickname":
		return "a nickname has 1 to 64 characters without control characters"
	case "picture":
		return "a picture is an https URL of at most 2048 characters"
	case "external_id":
		return "an external id has 1 to 256 bytes without control characters and without space around them"
	}
	return "a value is not valid"
}
