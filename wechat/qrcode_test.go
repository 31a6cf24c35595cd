package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const jpegStart = "\xff\xd8\xff\xe0canary image"

func drawCode(c *testClient, in QRCodeRequest) (QRCode, error) {
	return c.UnlimitedQRCode(context.Background(), testAppID, in)
}

func TestRequestOfQRCode(t *testing.T) {
	for _, row := range []struct {
		in   QRCodeRequest
		want string
	}{
		{QRCodeRequest{Scene: "AbC-_123"}, `{"scene":"AbC-_123"}`},
		{QRCodeRequest{Scene: "a", Page: "pages/scan/scan", EnvVersion: "release"}, `{"page":"pages/scan/scan","scene":"a"}`},
		{QRCodeRequest{Scene: "a", EnvVersion: "trial"}, `{"check_path":false,"env_version":"trial","scene":"a"}`},
	} {
		_, c := newPhoneClient(t, func(_ int, r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			if string(body) != row.want || r.Method != "POST" || r.URL.Path != "/wxa/getwxacodeunlimit" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %s %s, want %s", r.Method, r.URL.Path, body, row.want)
			}
			return response(200, jpegStart), nil
		})
		code, err := drawCode(c, row.in)
		if err != nil || string(code.Image) != jpegStart || code.MediaType != "image/jpeg" {
			t.Errorf("%+v, %v", code, err)
		}
		noCanary(t, c, nil)
	}
}

// TestQRCodeBySniffing: what comes is told by its first bytes, whatever the
// Content-Type says.
func TestQRCodeBySniffing(t *testing.T) {
	big := jpegStart + strings.Repeat("x", 300<<10) // more than any JSON answer may have
	for _, row := range []struct{ body, media, reason string }{
		{big, "image/jpeg", ""},
		{"\x89PNG\r\n\x1a\nrest", "image/png", ""},
		{jpegStart + strings.Repeat("x", maxQRCode), "", "too_large"},
		{" \n{\"errcode\":41030,\"errmsg\":\"invalid page\"}", "", "errcode"},
		{`{"errcode":0}`, "", "bad_answer"},
		{`{}`, "", "bad_answer"},
		{`GIF89a`, "", "not_json"},
		{``, "", "not_json"},
		{`<html>`, "", "not_json"},
		{strings.Repeat(" ", maxAnswer+1), "", "too_large"},
	} {
		for _, contentType := range []string{"image/jpeg", "text/plain", "application/json; charset=UTF-8", ""} {
			_, c := newPhoneClient(t, func(int, *http.Request) (*http.Response, error) {
				r := response(200, row.body)
				r.Header.Set("Content-Type", contentType)
				return r, nil
			})
			code, err := drawCode(c, QRCodeRequest{Scene: "a"})
			if row.reason == "" {
				if err != nil || string(code.Image) != row.body || code.MediaType != row.media {
					t.Errorf("%.20q: %v, %v", row.body, code.MediaType, err)
				}
				continue
			}
			if e := asError(t, c, err); e.Reason != row.reason || e.API != "getwxacodeunlimit" || code.Image != nil {
				t.Errorf("%.20q: %+v", row.body, e)
			}
		}
	}
}

func TestQRCodeErrcodes(t *testing.T) {
	for code, kind := range map[int]Kind{
		40097: Misconfigured, 40129: Misconfigured, 40169: Misconfigured, 41030: Misconfigured, 85096: Misconfigured,
		45009: Quota, -1: Unavailable, 48001: Unknown, 12345: Unknown,
	} {
		_, c := newPhoneClient(t, always(fmt.Sprintf(`{"errcode":%d,"errmsg":"%s rid: %s"}`, code, canaryErrmsg, testRID)))
		_, err := drawCode(c, QRCodeRequest{Scene: "a"})
		if e := asError(t, c, err); e.Kind != kind || e.Code != code || e.RID != testRID {
			t.Errorf("%d: %+v", code, e)
		}
	}
}

// TestQRCodeWithRefusedToken: another access token is fetched once.
func TestQRCodeWithRefusedToken(t *testing.T) {
	s, c := newPhoneClient(t, func(call int, _ *http.Request) (*http.Response, error) {
		if call == 1 {
			return response(200, `{"errcode":40001,"errmsg":"invalid credential"}`), nil
		}
		return response(200, jpegStart), nil
	})
	if _, err := drawCode(c, QRCodeRequest{Scene: "a"}); err != nil || strings.Join(s.calls, " ") != "1 2" {
		t.Errorf("%v, calls with tokens %v", err, s.calls)
	}
}

func TestBadQRCodesAreNotAskedFor(t *testing.T) {
	s, c := newPhoneClient(t, always(jpegStart))
	for _, in := range []QRCodeRequest{
		{}, {Scene: "a b"}, {Scene: "a%20"}, {Scene: "扫"}, {Scene: strings.Repeat("a", 33)},
		{Scene: "a", Page: "/pages/index"}, {Scene: "a", Page: "pages/index?x=1"}, {Scene: "a", EnvVersion: "beta"},
	} {
		_, err := drawCode(c, in)
		if e := asError(t, c, err); e.Kind != Misconfigured || e.Reason != "qr_code_format" || e.Sent {
			t.Errorf("%+v: %+v", in, e)
		}
	}
	_, err := c.UnlimitedQRCode(context.Background(), "wxnone", QRCodeRequest{Scene: "a"})
	if e := asError(t, c, err); e.Reason != "unknown_app" {
		t.Errorf("%+v", e)
	}
	if len(s.calls) != 0 {
		t.Errorf("%d calls", len(s.calls))
	}
}

// TestQRCodesMayTakeLong: 5 s, where other exchanges have 3.
func TestQRCodesMayTakeLong(t *testing.T) {
	for delay, want := range map[time.Duration]string{4900 * time.Millisecond: "", 5100 * time.Millisecond: "timeout"} {
		synctest.Test(t, func(t *testing.T) {
			_, c := newPhoneClient(t, func(_ int, r *http.Request) (*http.Response, error) {
				if !sleep(r.Context(), delay) {
					return nil, r.Context().Err()
				}
				return response(200, jpegStart), nil
			})
			_, err := drawCode(c, QRCodeRequest{Scene: "a"})
			if want == "" && err != nil || want != "" && asError(t, c, err).Reason != want {
				t.Errorf("after %v: %v", delay, err)
			}
		})
	}
}

func FuzzParseQRCode(f *testing.F) {
	for _, seed := range []string{jpegStart, "\x89PNG\r\n\x1a\n", `{"errcode":41030,"errmsg":"invalid page"}`, `{"errcode":0}`, "\xff\xd8", " {", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code, e := parseQRCode(body)
		switch {
		case (e == nil) == (code.Image == nil):
			t.Fatalf("%q: %v, %v", body, code, e)
		case e == nil && (!bytes.Equal(code.Image, body) || json.Valid(body)):
			t.Fatalf("taken: %q", body)
		}
	})
}
