package simulator

import (
	"bytes"
	"image/jpeg"
	"testing"
	"time"
)

func TestQRCode(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	w := post(s, PathQRCode+"?access_token="+token, `{"scene":"t=Ab-_~123","page":"pages/scan/scan","check_path":false,"width":300}`)
	if got := w.Header().Get("Content-Type"); got != "image/jpeg" {
		t.Errorf("Content-Type %q", got)
	}
	drawn, err := jpeg.Decode(bytes.NewReader(w.Body.Bytes()))
	if err != nil || drawn.Bounds().Dx() != 300 {
		t.Errorf("%v, %v", drawn, err)
	}
	if !bytes.Contains(w.Body.Bytes(), []byte("pages/scan/scan?scene=t=Ab-_~123")) {
		t.Error("the comment does not say what was drawn")
	}
	if all := s.Requests(); all[len(all)-1].AppID != testApp || all[len(all)-1].Path != PathQRCode {
		t.Errorf("logged %+v", all[len(all)-1])
	}
}

func TestQRCodeErrors(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	target := PathQRCode + "?access_token=" + token
	for body, want := range map[string]int{
		"":                  44002,
		"scene=1":           47001,
		`{}`:                40169,
		`{"scene":""}`:      40169,
		`{"scene":"a b"}`:   40129,
		`{"scene":"a%20b"}`: 40129,
		`{"scene":"扫码"}`:    40129,
		`{"scene":"0123456789012345678901234567890123"}`: 40169,
		`{"scene":"a","page":"/pages/index"}`:            41030,
		`{"scene":"a","page":"pages/index?x=1"}`:         41030,
		`{"scene":"a","env_version":"beta"}`:             40097,
		`{"scene":"a","width":100}`:                      40097,
		`{"scene":1}`:                                    47001,
	} {
		w := post(s, target, body)
		if got := errcodeOf(t, w.Body.String()); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
		if got := w.Header().Get("Content-Type"); got != typeCGI[0] {
			t.Errorf("Content-Type %q", got)
		}
	}
	if got := errcodeOf(t, get(s, target).Body.String()); got != 43002 {
		t.Errorf("GET: %d", got)
	}
	if got := errcodeOf(t, post(s, PathQRCode, `{"scene":"a"}`).Body.String()); got != 41001 {
		t.Errorf("without a token: %d", got)
	}
	s.ExpireTokens(testApp)
	if got := errcodeOf(t, post(s, target, `{"scene":"a"}`).Body.String()); got != 42001 {
		t.Errorf("with an expired token: %d", got)
	}
}

func TestQRCodesAMinute(t *testing.T) {
	s := newSimulator(t)
	token, _ := stable(t, s, "")
	s.apps[testApp].drawings = counter{period: s.now().Unix() / 60, n: drawingsPerMinute}
	target := PathQRCode + "?access_token=" + token
	got := post(s, target, `{"scene":"a"}`)
	if s.apps[testApp].drawings.n > 1 && errcodeOf(t, got.Body.String()) != 45009 { // n is 1 where the minute just ended
		t.Errorf("%s", got.Body)
	}
	_ = s.Advance(time.Minute)
	if got := post(s, target, `{"scene":"a"}`).Header().Get("Content-Type"); got != "image/jpeg" {
		t.Errorf("a minute later: %s", got)
	}
	if err := s.Inject(Fault{Kind: FaultErrcode, Endpoint: PathQRCode, Errcode: 45009, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if got := errcodeOf(t, post(s, target, `{"scene":"a"}`).Body.String()); got != 45009 {
		t.Errorf("injected: %d", got)
	}
}
