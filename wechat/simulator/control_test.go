package simulator

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestLoginInEveryForm(t *testing.T) {
	s := newSimulator(t)
	jsonBody := `{"appid":"` + testApp + `","user":"安"}`
	formBody := "appid=" + testApp + "&user=%E5%AE%89"
	for name, r := range map[string]*http.Request{
		"json":               httptest.NewRequest("POST", "/control/login", strings.NewReader(jsonBody)),
		"form":               httptest.NewRequest("POST", "/control/login", strings.NewReader(formBody)),
		"query":              httptest.NewRequest("POST", "/control/login?"+formBody, nil),
		"json called a form": withHeader(httptest.NewRequest("POST", "/control/login", strings.NewReader(" "+jsonBody+"\n")), "Content-Type", "application/x-www-form-urlencoded"),
	} {
		w := do(s, r)
		var out struct{ Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
			continue
		}
		if body := exchange(s, testApp, out.Code); !strings.Contains(body, s.OpenID(testApp, "安")) {
			t.Errorf("%s: the code gives %s", name, body)
		}
	}
	for name, r := range map[string]*http.Request{
		"accept": withHeader(httptest.NewRequest("POST", "/control/login", strings.NewReader(formBody)), "Accept", "text/plain"),
		"format": httptest.NewRequest("POST", "/control/login?format=text", strings.NewReader(formBody)),
	} {
		w := do(s, r)
		code, ok := strings.CutSuffix(w.Body.String(), "\n")
		if !ok || len(code) != 32 || errcodeOf(t, exchange(s, testApp, code)) != 0 {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
}

func withHeader(r *http.Request, name, value string) *http.Request {
	r.Header.Set(name, value)
	return r
}

func TestControlErrors(t *testing.T) {
	s := newSimulator(t)
	rows := []struct {
		method, target, body string
		status               int
		says                 string
	}{
		{"GET", "/control/none", "", 404, "no such path"},
		{"PUT", "/control/login", "", 405, "use POST"},
		{"PUT", "/control/faults", "", 405, "use DELETE or GET or POST"},
		{"POST", "/control/login", "appid=wxnone&user=u", 400, `no app \"wxnone\"`},
		{"POST", "/control/login", "appid=" + testApp, 400, "user is missing"},
		{"POST", "/control/login", "appid=" + testApp + "&user=u&usr=u", 400, `\"usr\" is not known here; known: appid, format, user`},
		{"POST", "/control/login", "appid=" + testApp + "&user=u&user=v", 400, "user is given twice"},
		{"POST", "/control/login?user=u", "appid=" + testApp + "&user=u", 400, `\"user\" is in the query and in the body`},
		{"POST", "/control/login", `{"appid":`, 400, "not a JSON object"},
		{"POST", "/control/login", `{"appid":"a"} {}`, 400, "something follows"},
		{"POST", "/control/login", `{"appid":{}}`, 400, "is not a string"},
		{"POST", "/control/login", `{"appid":null}`, 400, "is not a string"},
		{"POST", "/control/login", "%zz", 400, "neither a JSON object nor a form"},
		{"POST", "/control/login", strings.Repeat("x", maxBody+1), 400, "64 KiB"},
		{"POST", "/control/login", "user=%ff", 400, "UTF-8"},
		{"GET", "/control/apps?format=text", "", 400, "no text form"},
		{"GET", "/control/apps?format=xml", "", 400, "format is text or json"},
		{"POST", "/control/apps", "appid=wxnew", 400, "secret is missing"},
		{"POST", "/control/apps", "appid=" + testApp + "&frozen=perhaps", 400, "frozen is true or false"},
		{"GET", "/control/users?appid=wxnone", "", 400, "no app"},
		{"GET", "/control/users?limit=0&appid=" + testApp, "", 400, "limit is 1 to 1000"},
		{"POST", "/control/users", "user=u&risk=high", 400, "risk is ok, blocked or frozen"},
		{"POST", "/control/session_key/rotate", "appid=" + testApp + "&user=none", 400, "never signed in"},
		{"POST", "/control/clock", "advance=soon", 400, "advance is a duration"},
		{"POST", "/control/clock", "advance=-1s", 400, "only goes forward"},
		{"POST", "/control/faults", "kind=none", 400, "kind is errcode"},
		{"POST", "/control/faults", "kind=errcode", 400, "errcode is missing"},
		{"POST", "/control/faults", "kind=errcode&errcode=x", 400, "errcode is a whole number"},
		{"POST", "/control/faults", "kind=html&endpoint=/x", 400, "endpoint is"},
		{"POST", "/control/faults", "kind=delay", 400, "delay is"},
		{"POST", "/control/faults", "kind=drip&interval=1ns", 400, "interval is"},
		{"POST", "/control/faults", "kind=status&status=200", 400, "status is"},
		{"POST", "/control/faults", "kind=huge&size=9999999999", 400, "size is"},
		{"POST", "/control/faults", "kind=redirect", 400, "location is"},
		{"POST", "/control/faults", "kind=reset&count=-1", 400, "count is"},
	}
	for _, row := range rows {
		w := do(s, httptest.NewRequest(row.method, row.target, strings.NewReader(row.body)))
		var out struct{ Error string }
		if w.Code != row.status || json.Unmarshal(w.Body.Bytes(), &out) != nil || !strings.Contains(w.Body.String(), row.says) {
			t.Errorf("%s %s %.40s: %d %s, want %d …%s…", row.method, row.target, row.body, w.Code, w.Body, row.status, row.says)
		}
	}
}

func TestControlActions(t *testing.T) {
	s := newSimulator(t)
	call := func(method, target, body, want string) {
		t.Helper()
		w := do(s, httptest.NewRequest(method, "/control/"+target, strings.NewReader(body)))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != want {
			t.Errorf("%s %s: %d %s, want %s", method, target, w.Code, got, want)
		}
	}
	call("POST", "apps", `{"appid":"wxnew","secret":"s","ip_allow_list":["192.0.2.1","198.51.100.0/24"],"frozen":true}`, `{"ok":true}`)
	call("POST", "apps", `appid=wxnew&frozen=false`, `{"ok":true}`)
	if a := s.apps["wxnew"]; a.Frozen || a.Secret != "s" || len(a.allowed) != 2 {
		t.Errorf("app %+v", a.App)
	}
	call("POST", "apps", `appid=wxnew&ip_allow_list=`, `{"ok":true}`)
	if a := s.apps["wxnew"]; len(a.allowed) != 0 {
		t.Errorf("app %+v", a.App)
	}
	if body := get(s, "/control/apps").Body.String(); strings.Contains(body, testSecret) || !strings.Contains(body, `"wxnew"`) {
		t.Errorf("apps: %s", body)
	}

	mint(t, s, testApp, "bob")
	code := mint(t, s, testApp, "ann")
	call("POST", "users", "user=bob&risk=blocked", `{"ok":true}`)
	call("GET", "users?appid="+testApp, "", `{"users":[{"user":"ann","risk":"ok","openid":"`+s.OpenID(testApp, "ann")+`","unionid":"`+s.UnionID("main", "ann")+
		`"},{"user":"bob","risk":"blocked","openid":"`+s.OpenID(testApp, "bob")+`","unionid":"`+s.UnionID("main", "bob")+`"}]}`)
	call("GET", "users?limit=1&after=ann&appid="+testApp, "", `{"users":[{"user":"bob","risk":"blocked","openid":"`+s.OpenID(testApp, "bob")+`","unionid":"`+s.UnionID("main", "bob")+`"}]}`)
	call("GET", "identity?format=text&user=eve&appid="+testApp, "", s.OpenID(testApp, "eve"))
	call("POST", "codes/expire", "user=ann&appid="+testApp, `{"expired":1}`)
	call("POST", "session_key/expire", "user=ann&appid="+testApp, `{"ok":true}`)

	w := post(s, "/control/session_key/rotate?format=text", "user=ann&appid="+testApp)
	if key := strings.TrimSpace(w.Body.String()); len(key) != 24 || !strings.Contains(get(s, "/control/identity?user=ann&appid="+testApp).Body.String(), key) {
		t.Errorf("rotate: %s", w.Body)
	}
	token, _ := stable(t, s, "")
	call("GET", "tokens/check?access_token="+url.QueryEscape(token), "", `{"errcode":0,"appid":"`+testApp+`"}`)
	call("POST", "tokens/expire", "appid="+testApp, `{"expired":1}`)
	call("GET", "tokens/check?format=text&access_token="+url.QueryEscape(token), "", `42001`)

	before := s.Now()
	if w := post(s, "/control/clock", "advance=1h"); w.Code != 200 || !strings.Contains(w.Body.String(), `"ahead":"1h0m0s"`) {
		t.Errorf("clock: %s", w.Body)
	}
	if d := s.Now().Sub(before); d < time.Hour || d > time.Hour+10*time.Second {
		t.Errorf("the clock went %v", d)
	}

	call("POST", "faults", `{"kind":"delay","delay":"1500ms","count":2,"endpoint":"/sns/jscode2session"}`, `{"ok":true}`)
	call("POST", "faults", `kind=drip`, `{"ok":true}`)
	call("GET", "faults", "", `{"faults":[{"kind":"delay","endpoint":"/sns/jscode2session","count":2,"delay":"1.5s"},{"kind":"drip","count":0,"interval":"1s"}]}`)
	call("DELETE", "faults", "", `{"ok":true}`)
	call("GET", "faults", "", `{"faults":[]}`)

	exchange(s, testApp, code)
	w = get(s, "/control/requests?path=/sns/jscode2session&js_code="+code)
	var log struct {
		Total    int
		Requests []Request
	}
	if err := json.Unmarshal(w.Body.Bytes(), &log); err != nil || len(log.Requests) != 1 || log.Total != 2 {
		t.Fatalf("requests: %s", w.Body)
	}
	if r := log.Requests[0]; r.Errcode != 40029 || r.AppID != testApp || r.Status != 200 || r.Method != "GET" {
		t.Errorf("entry %+v", r)
	}
	call("GET", "requests?format=text&appid=none", "", `0`)
	call("DELETE", "requests", "", `{"ok":true}`)
	call("GET", "requests", "", `{"total":0,"requests":[]}`)
	call("POST", "reset", "", `{"ok":true}`)

	if body := get(s, "/control/?format=text").Body.String(); !strings.Contains(body, "POST /control/login\n") || strings.Count(body, "\n") != 23 {
		t.Errorf("list: %s", body)
	}
}

func TestUnknownPathOfAPI(t *testing.T) {
	s := newSimulator(t)
	if w := get(s, "/wxa/msg_sec_check"); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, httptest.NewRequest("GET", "/control/apps", nil))
	if w.Code != 404 {
		t.Errorf("the control side is reached through API: %d", w.Code)
	}
}

func FuzzControl(f *testing.F) {
	for _, seed := range [][3]string{
		{"login", "", `{"appid":"wx0123456789abcdef","user":"ann"}`},
		{"apps", "frozen=1", `{"appid":"wx1","secret":"s","ip_allow_list":["::1",7,true]}`},
		{"faults", "", `{"kind":"errcode","errcode":-1,"count":2}`},
		{"faults", "", `kind=delay&delay=5m`},
		{"clock", "advance=1h", ``},
		{"users", "limit=5&appid=wx0123456789abcdef", ``},
		{"login", "a=%zz", `{"a":{"b":[]}}`},
		{"phone", "", `{"appid":"wx0123456789abcdef","user":"ann","phone":"13800138000","country_code":86}`},
		{"opendata", "kind=phone&age=1s", `appid=wx0123456789abcdef&user=ann`},
		{"event", "", `{"event":"user_info_modified","token":"tokenA1"}`}, // without an address
	} {
		f.Add(seed[0], seed[1], []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, path, query string, body []byte) {
		s := newSimulator(t)
		for _, method := range []string{"GET", "POST"} {
			r := httptest.NewRequest(method, "/control/", strings.NewReader(string(body)))
			r.URL.Path, r.URL.RawQuery = "/control/"+path, query
			w := do(s, r)
			if w.Code != 200 && w.Code != 400 && w.Code != 404 && w.Code != 405 {
				t.Fatalf("status %d", w.Code)
			}
			if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("not JSON: %q", w.Body)
			}
		}
		// Whatever the control side did, WeChat's side answers JSON.
		s.ClearFaults()
		if body := exchange(s, path, query); !json.Valid([]byte(body)) {
			t.Fatalf("not JSON: %q", body)
		}
	})
}
