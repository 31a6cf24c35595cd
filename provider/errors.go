package provider

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat"
)

// Code is an OAuth 2.0 error code (RFC 6749 §5.2, RFC 6750 §3.1, RFC 8707 §2).
type Code string

// The error codes in use. Those from AccountRequired to NotFound are wxidp's own.
const (
	InvalidRequest       Code = "invalid_request"
	InvalidClient        Code = "invalid_client"
	InvalidGrant         Code = "invalid_grant"
	InvalidScope         Code = "invalid_scope"
	InvalidTarget        Code = "invalid_target"
	InvalidToken         Code = "invalid_token"
	InsufficientScope    Code = "insufficient_scope"
	UnauthorizedClient   Code = "unauthorized_client"
	UnsupportedGrantType Code = "unsupported_grant_type"
	AccessDenied         Code = "access_denied"
	AuthorizationPending Code = "authorization_pending" // this and the next two: RFC 8628 §3.5
	SlowDown             Code = "slow_down"
	ExpiredToken         Code = "expired_token"
	InvalidDPoPProof     Code = "invalid_dpop_proof" // RFC 9449 §5
	UseDPoPNonce         Code = "use_dpop_nonce"     // RFC 9449 §8
	AccountRequired      Code = "account_required"
	AlreadyBound         Code = "already_bound"
	AccountExists        Code = "account_exists"
	LastWayIn            Code = "last_way_in"
	SessionKeyExpired    Code = "session_key_expired"
	WrongNumber          Code = "wrong_number"
	TicketTaken          Code = "ticket_taken"
	TicketUsed           Code = "ticket_used"
	TicketUnseen         Code = "ticket_unseen"
	TicketExpired        Code = "ticket_expired"
	NotFound             Code = "not_found"
	// Of the authorization endpoint (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6,
	// RFC 9126 §2).
	UnsupportedResponseType  Code = "unsupported_response_type"
	LoginRequired            Code = "login_required"
	ConsentRequired          Code = "consent_required"
	AccountSelectionRequired Code = "account_selection_required"
	InteractionRequired      Code = "interaction_required"
	RequestNotSupported      Code = "request_not_supported"
	RequestURINotSupported   Code = "request_uri_not_supported"
	InvalidRequestURI        Code = "invalid_request_uri"
	RegistrationNotSupported Code = "registration_not_supported"
	UnmetAuthentication      Code = "unmet_authentication_requirements"

	TemporarilyUnavailable Code = "temporarily_unavailable"
	ServerError            Code = "server_error"
)

// status is the HTTP status that a code has by itself.
func (c Code) status() int {
	switch c {
	case InvalidClient, InvalidToken:
		return http.StatusUnauthorized
	case InsufficientScope:
		return http.StatusForbidden
	case TemporarilyUnavailable:
		return http.StatusServiceUnavailable
	case ServerError:
		return http.StatusInternalServerError
	case AlreadyBound, AccountExists, LastWayIn, SessionKeyExpired, WrongNumber, TicketTaken, TicketUsed, TicketUnseen:
		return http.StatusConflict
	case TicketExpired:
		return http.StatusGone
	case NotFound:
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// Error is a refusal as a client may see it, with what only the log may.
type Error struct {
	Code    Code
	Status  int
	Message Message
	// Detail is a machine-readable extra word for the client, mostly "".
	Detail     string
	RetryAfter time.Duration // 0: none
	// Scheme is the authentication scheme to name in WWW-Authenticate: "Basic"
	// after a failed Basic authentication, "Bearer" or "DPoP" at protected
	// resources.
	Scheme string
	Scope  string // the scope that an insufficient_scope lacks

	// Form: what a person has typed into a form is why; it is shown again.
	Form bool

	LogReason string // one stable word for the log
	ClientID  string // the client concerned; for the log only, as the next two
	Subject   string // the user concerned
	Cause     error
}

// Error returns the log form. It holds no request value.
func (e *Error) Error() string {
	text := string(e.Code)
	if e.LogReason != "" {
		text += " (" + e.LogReason + ")"
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func fail(code Code, message Message) *Error {
	return &Error{Code: code, Status: code.status(), Message: message}
}

func (e *Error) reason(word string) *Error { e.LogReason = word; return e }
func (e *Error) because(err error) *Error  { e.Cause = err; return e }
func (e *Error) retry(after time.Duration) *Error {
	e.RetryAfter = max(after, time.Second)
	return e
}

// BadRequest refuses a request that is not even a proper form post, with an
// HTTP status of its own.
func BadRequest(status int, reason string) *Error {
	err := fail(InvalidRequest, msgFormPost).reason(reason)
	err.Status = status
	return err
}

// BadQuery is BadRequest for the address of a page, which a person reads.
func BadQuery(status int, reason string) *Error {
	err := BadRequest(status, reason)
	err.Message = msgAddress
	return err
}

// ForeignForm refuses a form that is not of a page that the browser has open.
func ForeignForm() *Error {
	err := fail(InvalidRequest, msgFormExpired).reason("foreign_form")
	err.Status = http.StatusForbidden
	return err
}

// BadJSON is BadRequest for an endpoint that takes JSON.
func BadJSON(status int, reason string) *Error {
	err := BadRequest(status, reason)
	err.Message = msgJSONBody
	return err
}

// Limited is the answer of wxidp's own limits: 429, not 503, so that
// operators and clients can tell them from an outage.
func Limited(reason string, wait time.Duration) *Error {
	err := fail(TemporarilyUnavailable, msgLimited).reason("limit_" + reason).retry(wait)
	err.Status = http.StatusTooManyRequests
	return err
}

// ReasonOverload is the LogReason of Overloaded.
const ReasonOverload = "limit_overload"

// Overloaded turns a request away because more are waiting than can be
// answered soon. The times to wait differ, or all would come back at once.
func Overloaded() *Error {
	return fail(TemporarilyUnavailable, msgOverloaded).reason(ReasonOverload).retry(time.Duration(1+rand.IntN(3)) * time.Second)
}

// AsError turns any error into one that can be answered. What it does not
// know is a server_error without detail.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*grants.Refusal](err); ok {
		return fromRefusal(e)
	}
	if e, ok := errors.AsType[*accounts.Error](err); ok {
		return fromAccounts(e)
	}
	if e, ok := errors.AsType[*wechat.Error](err); ok {
		return fromWeChat(e)
	}
	if e, ok := errors.AsType[*storage.InsteadError](err); ok {
		return fail(InvalidRequest, msgInstead.with(e.Instead)).reason("storage_instead")
	}
	if errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrClosed) {
		return fail(TemporarilyUnavailable, msgStorage).reason("storage").because(err).retry(5 * time.Second)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fail(TemporarilyUnavailable, msgBusy).reason("deadline").because(err).retry(time.Second)
	}
	if e, ok := errors.AsType[*fosite.RFC6749Error](err); ok {
		return fromFosite(e)
	}
	return fail(ServerError, msgServerError).reason("internal").because(err)
}

func fromRefusal(e *grants.Refusal) *Error {
	switch e.Kind {
	case grants.MissingParameter:
		return fail(InvalidRequest, msgParamMissing.with(e.Param)).reason("missing_" + e.Param)
	case grants.MalformedParameter:
		return fail(InvalidRequest, msgParamMalformed.with(e.Param)).reason("malformed_" + e.Param)
	case grants.MockCode:
		return fail(InvalidGrant, msgMockCode).reason("mock_code")
	case grants.ForeignParameter:
		return fail(InvalidRequest, msgParamForeign.with(e.Param)).reason("foreign_" + e.Param)
	case grants.Replayed:
		message := msgCodeUsed
		if e.Param == "phone_code" {
			message = msgPhoneCodeUsed
		}
		return fail(InvalidGrant, message).reason(e.Param + "_replayed")
	case grants.Limited:
		return Limited("sign_in_"+e.Scope, e.RetryAfter)
	}
	return fail(ServerError, msgServerError).reason("refusal").because(e)
}

// fromAccounts tells unknown users, wrong passwords and disabled accounts apart
// in the log only.
func fromAccounts(e *accounts.Error) *Error {
	switch e.Kind {
	case accounts.InvalidInput:
		message := msgAccountValue
		if e.Param == "username" || e.Param == "password" {
			message = msgParamMalformed
		}
		return fail(InvalidRequest, message.with(e.Param)).reason("invalid_" + e.Param)
	case accounts.WrongCredentials:
		wrong := fail(InvalidGrant, msgWrongCredentials).reason("password_" + e.Reason)
		wrong.Subject = e.UserID
		return wrong
	case accounts.Limited:
		limited := Limited("password_"+e.Scope, e.RetryAfter)
		limited.Message, limited.Subject = msgPasswordLimited, e.UserID
		return limited
	case accounts.Busy:
		return fail(TemporarilyUnavailable, msgPasswordBusy).reason("password_busy").retry(e.RetryAfter)
	case accounts.Unavailable:
		return fail(TemporarilyUnavailable, msgVerifierDown).reason("verifier_" + e.Reason).retry(e.RetryAfter)
	}
	return fail(ServerError, msgServerError).reason("accounts").because(e)
}

// fromWeChat carries no cause: the WeChat client has logged its error.
func fromWeChat(e *wechat.Error) *Error {
	var out *Error
	code := strconv.Itoa(e.Code)
	switch e.Kind {
	case wechat.InvalidCode:
		out = fail(InvalidGrant, msgCodeRefused.with(code)).reason("wechat_errcode_" + code)
		if e.API == "getuserphonenumber" {
			out = fail(InvalidGrant, msgPhoneCodeRefused).reason("phone_" + e.Reason)
		}
	case wechat.Denied:
		out = fail(AccessDenied, msgUserDenied.with(code)).reason("wechat_errcode_" + code)
		out.Detail = "wechat_risk_user"
		if e.Code == 50002 {
			out.Detail = "wechat_user_limited"
		}
	case wechat.Quota:
		out = fail(TemporarilyUnavailable, msgQuota.with(code)).reason("wechat_quota").retry(max(e.RetryAfter, time.Minute))
	case wechat.Unavailable:
		out = fail(TemporarilyUnavailable, msgWeChatDown).reason("wechat_" + e.Reason).retry(e.RetryAfter)
	default:
		out = fail(ServerError, msgWeChatConfig.with(code)).reason("wechat_errcode_" + code)
	}
	return out
}

// fromFosite keeps fosite's code and puts our own text to it: its hints quote
// request values.
func fromFosite(e *fosite.RFC6749Error) *Error {
	var out *Error
	switch Code(e.ErrorField) {
	case InvalidClient, "jti_known":
		out = fail(InvalidClient, msgClientAuth).reason("client_authentication")
	case InvalidRequest:
		out = fail(InvalidRequest, msgRequest).reason("request")
	default:
		out = fail(ServerError, msgServerError).reason("engine_" + e.ErrorField)
	}
	return out.because(errors.New(e.GetDescription() + " " + e.DebugField))
}
