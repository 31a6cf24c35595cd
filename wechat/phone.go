package wechat

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/wxidp/wxidp/internal/ascii"
	"github.com/wxidp/wxidp/internal/secret"
)

const (
	maxPhoneCode = 256 // characters; WeChat's have 64
	// phoneMaxAge is how long ago the user may have given the number: the life
	// of a phone code.
	phoneMaxAge = 5 * time.Minute
	// clockSkew is how far WeChat's clock may be ahead of this server's.
	clockSkew = time.Minute
)

// Phone is the phone number that a user gave to a mini-program. It prints as
// ***, so that no number comes into a log by accident.
type Phone struct {
	// E164 is + and 4 to 15 digits: country code and number.
	E164        string
	CountryCode string    // digits
	PureNumber  string    // digits; the number within the country, as WeChat gives it
	Timestamp   time.Time // when the user gave it
	AppID       string    // the mini-program it was given to
}

// Format writes the mask for every verb and flag.
func (p Phone) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(secret.Mask)) }

// LogValue returns the mask.
func (p Phone) LogValue() slog.Value { return slog.StringValue(secret.Mask) }

// MarshalJSON returns the mask as a JSON string.
func (p Phone) MarshalJSON() ([]byte, error) { return []byte(`"` + secret.Mask + `"`), nil }

// PhoneNumber exchanges a phone code, which the mini-program has from a
// getPhoneNumber or getRealtimePhoneNumber button, for the user's number.
// WeChat checks that the code was given to weChatOpenID, which must be the
// openid that this server knows the caller by. The code is 1 to 256
// characters of visible ASCII; another is refused as InvalidCode without a
// call. A number that the user gave more than 5 minutes ago, or to another
// app, is refused as InvalidCode too. Every error is an [*Error].
//
// A code is sent once, except where WeChat refused the access token. As with
// Code2Session, the code may be spent when ctx ends early.
func (c *Client) PhoneNumber(ctx context.Context, appid, phoneCode, weChatOpenID string) (Phone, error) {
	a, ok := (*c.apps.Load())[appid]
	switch {
	case !ok:
		return Phone{}, c.refuse(apiPhoneNumber, appid, Misconfigured, reasonUnknownApp)
	case !ascii.Visible(phoneCode, maxPhoneCode):
		return Phone{}, c.refuse(apiPhoneNumber, appid, InvalidCode, reasonPhoneFormat)
	case !ascii.Visible(weChatOpenID, maxID):
		return Phone{}, c.refuse(apiPhoneNumber, appid, Misconfigured, reasonOpenIDFormat)
	}
	body, err := json.Marshal(map[string]string{"code": phoneCode, "openid": weChatOpenID})
	if err != nil {
		panic("wechat: a map of strings did not marshal") // it always does
	}
	var p Phone
	if e := c.authorized(ctx, a, authorizedCall{
		api: apiPhoneNumber, breaker: a.phones, path: "/wxa/business/getuserphonenumber", body: body,
		parse: func(body []byte) *Error {
			var e *Error
			p, e = parsePhone(body, appid, time.Now())
			return e
		},
	}); e != nil {
		return Phone{}, e
	}
	return p, nil
}

// phoneInfo holds the members of phone_info that mean something here.
type phoneInfo struct{ country, pure, watermark value }

func (p *phoneInfo) take(name string, v value) {
	switch name {
	case "countryCode":
		p.country = v
	case "purePhoneNumber":
		p.pure = v
	case "watermark":
		p.watermark = v
	}
}

// watermark is what WeChat puts into the data it gives out.
type watermark struct{ appID, timestamp value }

func (w *watermark) take(name string, v value) {
	switch name {
	case "appid":
		w.appID = v
	case "timestamp":
		w.timestamp = v
	}
}

// parsePhone reads an answer of getuserphonenumber. The countryCode comes as a
// string, in WeChat's documentation as a number.
func parsePhone(body []byte, appid string, now time.Time) (Phone, *Error) {
	a, e := parseAnswer(body)
	if e != nil {
		if kind, ok := phoneErrcodes[e.Code]; ok {
			e.Kind = kind
		}
		return Phone{}, e
	}
	if !a.phoneInfo.present {
		return Phone{}, unavailable(reasonNoPhone)
	}
	var info phoneInfo
	var mark watermark
	if !a.phoneInfo.members(info.take) || !info.watermark.members(mark.take) {
		return Phone{}, unavailable(reasonBadAnswer)
	}
	at, ok := mark.timestamp.time()
	if !ok || !mark.appID.plain(maxID) || !info.country.scalar() || info.pure.kind != '"' {
		return Phone{}, unavailable(reasonBadAnswer)
	}
	p := Phone{Timestamp: at, AppID: mark.appID.text}
	var known bool
	if p.CountryCode, p.PureNumber, known = phoneDigits(info.country.text, info.pure.text); !known {
		return Phone{}, unavailable(reasonBadAnswer)
	}
	p.E164 = "+" + p.CountryCode + p.PureNumber
	switch age := now.Sub(at); {
	case p.AppID != appid:
		return Phone{}, &Error{Kind: InvalidCode, Reason: reasonWatermarkAppID}
	case age > phoneMaxAge:
		return Phone{}, &Error{Kind: InvalidCode, Reason: reasonWatermarkStale}
	case age < -clockSkew:
		return Phone{}, &Error{Kind: InvalidCode, Reason: reasonWatermarkFuture}
	}
	return p, nil
}

// phoneDigits takes a country code of 1 to 4 digits, the first not 0 (a + is
// dropped), and a number (spaces and hyphens are dropped) that together have 4
// to 15 digits, which is what E.164 allows.
func phoneDigits(country, pure string) (string, string, bool) {
	if len(country) > maxPhone || len(pure) > maxPhone {
		return "", "", false
	}
	country = strings.TrimPrefix(country, "+")
	pure = strings.NewReplacer(" ", "", "-", "").Replace(pure)
	if !digits(country) || country[0] == '0' || len(country) > 4 || !digits(pure) {
		return "", "", false
	}
	if n := len(country) + len(pure); n < 4 || n > 15 {
		return "", "", false
	}
	return country, pure, true
}

// digits reports whether s is one or more ASCII digits.
func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
