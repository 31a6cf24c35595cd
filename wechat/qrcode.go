package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"
)

const (
	// qrTimeout is the least deadline of drawing a code, which takes WeChat
	// seconds at times.
	qrTimeout = 5 * time.Second
	// maxQRCode bounds an image, in bytes. WeChat's have about 100 KB.
	maxQRCode = 1 << 20
	maxScene  = 32
	maxPage   = 1024
)

// QRCodeRequest asks for a mini-program code.
type QRCodeRequest struct {
	// Scene is 1 to 32 letters, digits and !#$&'()*+,/:;=?@-._~ that the
	// mini-program's page is opened with.
	Scene string
	// Page is a page of the mini-program without leading slash and query; "":
	// its home page. WeChat checks that the released version has it, unless
	// EnvVersion is another.
	Page       string
	EnvVersion string // release, trial or develop; "": release
}

// QRCode is the image of a mini-program code.
type QRCode struct {
	Image     []byte
	MediaType string // image/jpeg or image/png
}

// UnlimitedQRCode has WeChat draw a code that opens the app at a page
// (getUnlimitedQRCode). Such codes last for ever; WeChat draws 5,000 per
// minute for an app. Drawing may take 5 seconds, or Options.Timeout if that is
// longer. Every error is an [*Error].
func (c *Client) UnlimitedQRCode(ctx context.Context, appid string, in QRCodeRequest) (QRCode, error) {
	a, ok := (*c.apps.Load())[appid]
	switch {
	case !ok:
		return QRCode{}, c.refuse(apiQRCode, appid, Misconfigured, reasonUnknownApp)
	case !in.valid():
		return QRCode{}, c.refuse(apiQRCode, appid, Misconfigured, reasonQRCodeFormat)
	}
	body, err := json.Marshal(in.arguments())
	if err != nil {
		panic("wechat: a map of strings did not marshal") // it always does
	}
	var code QRCode
	if e := c.authorized(ctx, a, authorizedCall{
		api: apiQRCode, breaker: a.drawings, path: "/wxa/getwxacodeunlimit", body: body,
		timeout: max(qrTimeout, c.timeout), maxAnswer: maxQRCode,
		parse: func(body []byte) *Error {
			var e *Error
			code, e = parseQRCode(body)
			return e
		},
	}); e != nil {
		return QRCode{}, e
	}
	return code, nil
}

func (in QRCodeRequest) valid() bool {
	const others = "!#$&'()*+,/:;=?@-._~"
	for _, r := range in.Scene {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(others, r) {
			return false
		}
	}
	switch in.EnvVersion {
	case "", "release", "trial", "develop":
	default:
		return false
	}
	return in.Scene != "" && len(in.Scene) <= maxScene &&
		len(in.Page) <= maxPage && !strings.HasPrefix(in.Page, "/") && !strings.Contains(in.Page, "?")
}

func (in QRCodeRequest) arguments() map[string]any {
	out := map[string]any{"scene": in.Scene}
	if in.Page != "" {
		out["page"] = in.Page
	}
	if in.EnvVersion != "" && in.EnvVersion != "release" {
		// The page may be one that is not released yet.
		out["env_version"], out["check_path"] = in.EnvVersion, false
	}
	return out
}

var (
	magicJPEG = []byte("\xff\xd8\xff")
	magicPNG  = []byte("\x89PNG\r\n\x1a\n")
)

// parseQRCode reads an answer of getwxacodeunlimit: an image, or JSON about an
// error. Only the first bytes tell them apart: the Content-Type of the JSON has
// changed over the years.
func parseQRCode(body []byte) (QRCode, *Error) {
	switch {
	case bytes.HasPrefix(body, magicJPEG):
		return QRCode{Image: bytes.Clone(body), MediaType: "image/jpeg"}, nil
	case bytes.HasPrefix(body, magicPNG):
		return QRCode{Image: bytes.Clone(body), MediaType: "image/png"}, nil
	case len(body) > maxAnswer:
		return QRCode{}, unavailable(reasonTooLarge)
	}
	_, e := parseAnswer(body)
	if e == nil {
		return QRCode{}, unavailable(reasonBadAnswer)
	}
	if kind, ok := qrCodeErrcodes[e.Code]; ok {
		e.Kind = kind
	}
	return QRCode{}, e
}
