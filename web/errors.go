package web

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/wxidp/wxidp/provider"
)

// errorBody is RFC 6749 §5.2, with one machine-readable word where it helps.
type errorBody struct {
	Error       provider.Code `json:"error"`
	Description string        `json:"error_description"`
	Reason      string        `json:"reason,omitempty"`
}

// writeError is the one place that answers an error and the one that logs it.
// event is the name of the log line, "" where the refusal is not worth one
// unless it is the server's own fault.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, event string, err error, attrs ...slog.Attr) {
	e := provider.AsError(err)
	s.logError(w, r, event, e, attrs)

	header := w.Header()
	noStore(w)
	s.announce(w, e)
	for _, challenge := range challenges(e) {
		header.Add("WWW-Authenticate", challenge)
	}
	body, err := json.Marshal(errorBody{e.Code, e.Message.In(preferredLanguage(r)), e.Detail})
	if err != nil {
		panic(err) // three strings always marshal
	}
	writeJSON(w, e.Status, append(body, '\n'))
}

func (s *Server) logError(w http.ResponseWriter, r *http.Request, event string, e *provider.Error, attrs []slog.Attr) {
	level := slog.LevelInfo
	switch {
	case e.Status == http.StatusInternalServerError:
		level = slog.LevelError
	case e.Status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	}
	if event == "" {
		if level == slog.LevelInfo || e.LogReason == provider.ReasonOverload { // which is told of in sum
			return
		}
		event = "request.failed"
	}
	attrs = append([]slog.Attr{
		slog.String("event", event),
		slog.String("request_id", w.Header().Get(requestIDHeader)),
		slog.String("ip", remoteIP(r.Context()).String()),
		slog.String("error", string(e.Code)),
		slog.String("reason", e.LogReason),
	}, attrs...)
	if e.Subject != "" {
		attrs = append(attrs, slog.String("sub", e.Subject))
	}
	if e.Cause != nil {
		attrs = append(attrs, slog.String("detail", cut(e.Cause.Error(), 512)))
	}
	s.Logger.LogAttrs(r.Context(), level, strings.ReplaceAll(event, ".", " "), attrs...)
}

// announce counts a limit that was met, and says when to try again where an
// error knows it.
func (s *Server) announce(w http.ResponseWriter, e *provider.Error) {
	if limit, ok := strings.CutPrefix(e.LogReason, "limit_"); ok {
		s.Metrics.limited(limit)
	}
	if e.RetryAfter > 0 {
		seconds := (e.RetryAfter + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
}

// challenges are the WWW-Authenticate headers (RFC 6749 §5.2, RFC 6750 §3, RFC
// 9449 §7.1).
func challenges(e *provider.Error) []string {
	const realm, algs = ` realm="wxidp"`, `, algs="`
	switch {
	case e.Scheme == "":
		return nil
	case e.Scheme == "Basic":
		return []string{e.Scheme + realm}
	case e.LogReason == "no_token":
		return []string{"Bearer" + realm, "DPoP" + realm + algs + provider.DPoPAlgs() + `"`}
	}
	out := e.Scheme + realm + `, error="` + string(e.Code) + `", error_description="` + e.Message.EN + `"`
	if e.Code == provider.InsufficientScope {
		out += `, scope="` + e.Scope + `"`
	}
	if e.Scheme == "DPoP" {
		out += algs + provider.DPoPAlgs() + `"`
	}
	return []string{out}
}

// preferredLanguage is the caller's first language that messages exist in, by
// ui_locales and then by Accept-Language; English where there is none.
func preferredLanguage(r *http.Request) string {
	if locales := r.PostForm.Get("ui_locales"); len(locales) <= maxLanguages {
		for locale := range strings.FieldsSeq(locales) {
			if tag, err := language.Parse(locale); err == nil && spoken(tag) != "" {
				return spoken(tag)
			}
		}
	}
	if accept := r.Header.Get("Accept-Language"); accept != "" && len(accept) <= maxLanguages {
		// Tags come by descending quality; there are none where err is set.
		tags, _, _ := language.ParseAcceptLanguage(accept)
		for _, tag := range tags {
			if spoken(tag) != "" {
				return spoken(tag)
			}
		}
	}
	return "en"
}

// maxLanguages bounds the lists of languages that are looked at, in bytes.
const maxLanguages = 256

// spoken is the language of a tag if messages exist in it.
func spoken(tag language.Tag) string {
	if base, _ := tag.Base(); base.String() == "zh" || base.String() == "en" {
		return base.String()
	}
	return ""
}

// Header values that every answer shares. Nobody may change them in place.
var (
	typeJSON     = []string{"application/json"}
	valueNoStore = []string{"no-store"}
	valueNoCache = []string{"no-cache"}
	// RFC 6797 §6.1; a year.
	valueStrictTransport = []string{"max-age=31536000"}
	valueNoSniff         = []string{"nosniff"}
)

// writeJSON writes a body at once, with its length.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	header := w.Header()
	header["Content-Type"] = typeJSON
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(body)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
