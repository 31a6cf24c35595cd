package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// people is a DirectoryStore that answers what a test says.
type people struct {
	DirectoryStore // nil: a call of anything else panics
	accountTable
	asked    []string
	users    map[string]storage.User // by "kind:value"
	rows     []storage.ImportRow
	verdicts []storage.ImportVerdict
	families []storage.Family
	created  storage.NewAccount
}

func (p *people) AccountByUsername(ctx context.Context, username string) (storage.Account, error) {
	return p.accountTable.AccountByUsername(ctx, username)
}

func (p *people) SetPassword(ctx context.Context, userID, oldHash, newHash string, endFamilies bool) (bool, error) {
	if !endFamilies {
		return false, errors.New("the families go on")
	}
	return p.accountTable.SetPassword(ctx, userID, oldHash, newHash, false)
}

func (p *people) find(key string) (storage.User, error) {
	p.asked = append(p.asked, key)
	user, ok := p.users[key]
	if !ok {
		return storage.User{}, storage.ErrNotFound
	}
	return user, nil
}

func (p *people) User(_ context.Context, id string) (storage.User, error) { return p.find("id:" + id) }

func (p *people) UserBy(_ context.Context, kind storage.IndexKind, value string) (storage.User, error) {
	return p.find(fmt.Sprintf("%d:%s", kind, value))
}

func (p *people) IdentityUser(_ context.Context, appID, openID string) (storage.User, storage.Digest, error) {
	user, err := p.find(appID + "/" + openID)
	return user, storage.Digest{}, err
}

func (p *people) Identities(context.Context, string) ([]storage.Identity, error) {
	return []storage.Identity{{AppID: "wx1", WeChatOpenID: "oABCdefGHIjklxyz", UnionID: "uABCdefGHIjklxyz", OpenPlatform: "main"}}, nil
}

func (p *people) PageFamilies(_ context.Context, userID, after string, limit int) ([]storage.Family, string, error) {
	from := 0
	if after != "" {
		from = slices.IndexFunc(p.families, func(f storage.Family) bool { return f.ID.String() == after }) + 1
	}
	page := p.families[from:min(len(p.families), from+2)] // short pages
	if from+2 < len(p.families) {
		return page, page[len(page)-1].ID.String(), nil
	}
	return page, "", nil
}

func (p *people) CreateAccount(_ context.Context, in storage.NewAccount) (storage.AccountResult, error) {
	p.created = in
	return storage.AccountResult{Verdict: storage.AccountCreated, UserID: "new"}, nil
}

func (p *people) ImportUsers(_ context.Context, rows []storage.ImportRow, _ bool) ([]storage.ImportVerdict, error) {
	p.rows = rows
	return p.verdicts, nil
}

func newDirectory(store *people) *Directory {
	return &Directory{
		Store: store, Passwords: quickPasswords(PasswordOptions{}), Defaults: NewDefaults(storage.Profile{Nickname: "default"}),
		OpenPlatform: func(appID string) (string, bool) {
			switch appID {
			case "wx1":
				return "main", true
			case "wx2":
				return "", true
			}
			return "", false
		},
	}
}

func importDirectory() *Directory { return newDirectory(&people{}) }

func TestFind(t *testing.T) {
	const id = "kB3abcdefghijklmnopqrs"
	for who, want := range map[string]string{
		id:                                     "id:" + id,
		"username: MING ":                      fmt.Sprintf("%d:ming", storage.IndexUsername),
		"phone:+8613800138000":                 fmt.Sprintf("%d:+8613800138000", storage.IndexPhone),
		"external:42:x":                        fmt.Sprintf("%d:42:x", storage.IndexExternalID),
		"wechat:wx1/oABC/def":                  "wx1/oABC/def",
		"":                                     "",
		"ming":                                 "",
		id + "x":                               "",
		"mail:x@y":                             "",
		"username:":                            "",
		"username:\x00":                        "",
		"phone:13800138000":                    "",
		"phone:+86 13800138000":                "",
		"phone:+0123456789":                    "",
		"external:":                            "",
		"external: 42":                         "",
		"external:4\n2":                        "",
		"external:" + strings.Repeat("x", 257): "",
		"wechat:wx1":                           "",
		"wechat:/o":                            "",
		"wechat:wx1/":                          "",
		"wechat:wx1/o b":                       "",
		"wechat:wx1/中":                         "",
	} {
		store := &people{users: map[string]storage.User{want: {ID: id}}}
		user, err := newDirectory(store).Find(t.Context(), who)
		if want == "" {
			if !errors.Is(err, ErrWho) || len(store.asked) > 0 || who != "" && len(who) > 9 && strings.Contains(err.Error(), who) {
				t.Errorf("%.40q: %+v, %v, asked %q", who, user, err, store.asked)
			}
			continue
		}
		if err != nil || user.ID != id || !slices.Equal(store.asked, []string{want}) {
			t.Errorf("%q: %+v, %v, asked %q", who, user, err, store.asked)
		}
	}
	store := &people{users: map[string]storage.User{"id:" + id: {ID: id, Retired: true}}}
	if _, err := newDirectory(store).FindLiving(t.Context(), id); !errors.Is(err, ErrRetired) || !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a retired user: %v", err)
	}
	if _, err := newDirectory(store).FindLiving(t.Context(), "external:42"); !errors.Is(err, storage.ErrNotFound) || errors.Is(err, ErrRetired) {
		t.Errorf("an unknown user: %v", err)
	}
}

func TestAdd(t *testing.T) {
	d := newDirectory(new(people))
	created := func(in NewUser) storage.NewAccount {
		t.Helper()
		if _, err := d.Add(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		return d.Store.(*people).created
	}
	got := created(NewUser{Username: " MING", Password: secret.New(canaryPassword), Nickname: "小明", Picture: "https://example.com/a.png"})
	match, err := d.Passwords.Verify(t.Context(), got.PasswordHash, secret.New(canaryPassword))
	if err != nil || !match.OK || got.Username != "ming" || got.ExternalID != "" || got.Profile != (storage.Profile{Nickname: "小明", Picture: "https://example.com/a.png"}) {
		t.Errorf("%+v, %+v, %v", got, match, err)
	}
	if got := created(NewUser{ExternalID: "42"}); got != (storage.NewAccount{ExternalID: "42", Profile: storage.Profile{Nickname: "default"}}) {
		t.Errorf("%+v", got)
	}
	for param, in := range map[string]NewUser{
		"username":    {Username: "\x00"},
		"external_id": {ExternalID: " 42"},
		"nickname":    {Username: "a", Nickname: "\x1b[31m"},
		"picture":     {Username: "a", Picture: "http://example.com/a.png"},
		"password":    {Username: "a", Password: secret.New(strings.Repeat(canaryPassword, 20))},
	} {
		_, err := d.Add(t.Context(), in)
		if e := asError(t, err, InvalidInput); e.Param != param {
			t.Errorf("%s: %v", param, e)
		}
	}
	if _, err := d.Add(t.Context(), NewUser{}); asError(t, err, InvalidInput).Param != "username" {
		t.Errorf("nothing: %v", err)
	}
	if _, err := d.Add(t.Context(), NewUser{ExternalID: "42", Password: secret.New(canaryPassword)}); !errors.Is(err, ErrNoUsername) {
		t.Errorf("a password without a username: %v", err)
	}
}

func TestSetPasswordOfOperator(t *testing.T) {
	store := new(people)
	store.accounts = map[string]storage.Account{"ming": {UserID: "u1", PasswordHash: "old"}, "li": {UserID: "u2", PasswordHash: "old"}}
	d := newDirectory(store)
	if err := d.SetPassword(t.Context(), storage.User{ID: "u1", Username: "ming"}, secret.New(canaryPassword)); err != nil {
		t.Fatal(err)
	}
	if match, err := d.Passwords.Verify(t.Context(), store.get("ming").PasswordHash, secret.New(canaryPassword)); err != nil || !match.OK || store.swaps != 1 {
		t.Errorf("%+v, %v, %d swaps", match, err, store.swaps)
	}
	if err := d.SetPassword(t.Context(), storage.User{ID: "u1"}, secret.New("x")); !errors.Is(err, ErrNoUsername) {
		t.Errorf("no username: %v", err)
	}
	if err := d.SetPassword(t.Context(), storage.User{ID: "u3", Username: "li"}, secret.New("x")); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the username went to another user: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	now := time.Now()
	store := &people{families: []storage.Family{
		{ClientID: "a", IdleExpiresAt: now.Add(time.Hour), ExpiresAt: now.Add(2 * time.Hour), RotatedAt: now, Generation: 3},
		{ClientID: "b", IdleExpiresAt: now.Add(-time.Hour), ExpiresAt: now.Add(time.Hour), RotatedAt: now},
		{ClientID: "a", IdleExpiresAt: now.Add(time.Hour), ExpiresAt: now.Add(time.Minute), RevokedAt: now, RevokedFor: "reuse"},
	}}
	for i := range store.families {
		store.families[i].ID = storage.NewFamilyID()
		store.families[i].Secret = storage.NewFamilySecret()
	}
	d := newDirectory(store)
	person, err := d.Describe(t.Context(), storage.User{
		ID: "u1", Username: "ming@example", Phone: "+8613800138000", ExternalID: "customer-0042", HasPassword: true,
		Profile:    storage.Profile{Nickname: "小明"},
		Attributes: storage.Attributes{Roles: []string{"admin"}, Claims: map[string]string{"level": `{"a":1}`}},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, s := range person.SignIns {
		states = append(states, s.ClientID+" "+s.State+" "+s.EndedFor)
	}
	if !slices.Equal(states, []string{"a ended reuse", "b expired ", "a active "}) || person.MoreSignIns {
		t.Errorf("sign-ins %q", states)
	}
	if s := person.SignIns[2]; !s.LastRefreshAt.Equal(now) || !s.ExpiresAt.Equal(now.Add(time.Hour)) || !person.SignIns[1].LastRefreshAt.IsZero() ||
		!person.SignIns[0].ExpiresAt.Equal(now.Add(time.Minute)) {
		t.Errorf("times %+v", person.SignIns)
	}
	raw, err := json.Marshal(person)
	if err != nil || !strings.Contains(string(raw), `"level":{"a":1}`) || !strings.Contains(string(raw), "oABCdefGHIjklxyz") || strings.Contains(string(raw), "***") {
		t.Errorf("%s, %v", raw, err)
	}
	masked, err := json.Marshal(person.Masked())
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"ming@example", "13800138000", "customer-0042", "oABCdefGHIjklxyz", "uABCdefGHIjklxyz", `{"a":1}`} {
		if strings.Contains(string(masked), value) {
			t.Errorf("%q is not masked: %s", value, masked)
		}
	}
	for _, value := range []string{"138****8000", "oABC…xyz", "小明"} {
		if !strings.Contains(string(masked), value) {
			t.Errorf("%q is missing: %s", value, masked)
		}
	}
	if person.Identities[0].WeChatOpenID != "oABCdefGHIjklxyz" {
		t.Error("masking changed the original")
	}
	if some, err := d.Describe(t.Context(), storage.User{ID: "u1"}, 2); err != nil || len(some.SignIns) != 2 || !some.MoreSignIns || some.SignIns[0].EndedFor == "" {
		t.Errorf("the newest two: %+v, %v", some.SignIns, err)
	}
	if gone, err := d.Describe(t.Context(), storage.User{ID: "u1", Retired: true}, 0); err != nil || gone.State != StateRetired || len(gone.Identities)+len(gone.SignIns) > 0 {
		t.Errorf("a retired user: %+v, %v", gone, err)
	}
	active, next, err := d.PageSignIns(t.Context(), SignInFilter{ClientID: "a", Active: true}, "", 10)
	if err != nil || len(active) != 1 || next == "" {
		t.Errorf("%+v, %q, %v", active, next, err)
	}
}

func TestMasks(t *testing.T) {
	for value, want := range map[string]string{"": "", "a": "a…", "ming": "m…", "小明同学": "小…", "0123456789": "0…", "0123456789a": "0123…89a"} {
		if got := MaskText(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
	for value, want := range map[string]string{"+8613800138000": "138****8000", "+14155550123": "+14****23", "+1234": "+…", "": "", "+86138001380001": "+86****01"} {
		if got := MaskPhone(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestImportRows(t *testing.T) {
	const bcryptHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	sound := ImportRow{ExternalID: "42", AppID: "wx1", WeChatOpenID: "oCANARY", UnionID: "uCANARY"}
	with := func(edit func(r *ImportRow)) ImportRow { r := sound; edit(&r); return r }
	d := importDirectory()
	for _, test := range []struct {
		row  ImportRow
		want string // in the fault; "": none
	}{
		{sound, ""},
		{with(func(r *ImportRow) { r.AppID = "wx2" }), ""},
		{with(func(r *ImportRow) { r.Nickname, r.Picture = "=cmd()", "https://example.com/a.png" }), ""},
		{ImportRow{Username: " MING", PasswordHash: bcryptHash}, ""},
		{with(func(r *ImportRow) {
			r.Username, r.PasswordHash = "ming", mustHash(t, quickPasswords(PasswordOptions{}), "x")
		}), ""},
		{ImportRow{}, "neither an appid"},
		{ImportRow{ExternalID: "42"}, "neither an appid"},
		{with(func(r *ImportRow) { r.AppID = "" }), "appid is missing"},
		{with(func(r *ImportRow) { r.AppID = "wxCANARY" }), "not one of wechat.apps"},
		{with(func(r *ImportRow) { r.WeChatOpenID = "" }), "wechat_openid is missing"},
		{with(func(r *ImportRow) { r.WeChatOpenID = "CANARY\x00" }), "wechat_openid is not"},
		{with(func(r *ImportRow) { r.WeChatOpenID = strings.Repeat("CANARY", 30) }), "wechat_openid is not"},
		{with(func(r *ImportRow) { r.UnionID = "CANARY 中" }), "unionid is not"},
		{with(func(r *ImportRow) { r.ExternalID = "" }), "external_id is missing"},
		{with(func(r *ImportRow) { r.ExternalID = "CANARY\n" }), "external_id is not"},
		{with(func(r *ImportRow) { r.ExternalID = strings.Repeat("CANARY", 50) }), "external_id is not"},
		{with(func(r *ImportRow) { r.Nickname = "CANARY\x1b[2J" }), "nickname is not"},
		{with(func(r *ImportRow) { r.Picture = "javascript:CANARY" }), "picture is not"},
		{ImportRow{Username: "CANARY"}, "password_hash is missing"},
		{ImportRow{PasswordHash: "CANARY"}, "username is missing"},
		{ImportRow{Username: "CANARY\x00", PasswordHash: bcryptHash}, "username is not"},
		{ImportRow{Username: "CANARY", PasswordHash: "CANARY"}, "password_hash is not a password hash that can be checked"},
	} {
		row, fault := d.judgeRow(&test.row)
		if (fault == "") != (test.want == "") || !strings.Contains(fault, test.want) || strings.Contains(fault, "CANARY") {
			t.Errorf("%+v: %q, want %q", test.row, fault, test.want)
		}
		if fault == "" && (row.ExternalID != test.row.ExternalID || row.AppID == "wx1" && row.OpenPlatform != "main" || row.Profile.Nickname == "") {
			t.Errorf("%+v became %+v", test.row, row)
		}
	}
}

func TestImportCounts(t *testing.T) {
	row := func(appID string) ImportRow {
		return ImportRow{ExternalID: "42", AppID: appID, WeChatOpenID: "o", UnionID: "u"}
	}
	store := &people{verdicts: []storage.ImportVerdict{
		storage.ImportCreated, storage.ImportIdentityTaken, storage.ImportLinked, storage.ImportUnionIDTaken, storage.ImportUnchanged, storage.ImportSameApp,
		storage.ImportUsernameTaken, storage.ImportOtherUsername, storage.ImportDisabled, 99,
	}}
	rows := []ImportRow{row("wx0"), row("wx1"), row("wx2"), {}, row("wx1"), row("wx1"), row("wx2"), row("wx1"), row("wx1"), row("wx1"), row("wx1"), row("wx1")}
	got, err := newDirectory(store).Import(t.Context(), rows, false)
	if err != nil {
		t.Fatal(err)
	}
	var faulty []int
	texts := map[string]bool{}
	for _, fault := range got.Faults {
		faulty = append(faulty, fault.Row)
		texts[fault.Text] = true
	}
	if got.Created != 1 || got.Linked != 1 || got.Unchanged != 1 || got.UnionIDsNotKept != 2 || len(texts) != len(faulty) ||
		!slices.Equal(faulty, []int{0, 2, 3, 5, 7, 8, 9, 10, 11}) || len(store.rows) != 10 {
		t.Errorf("%+v of %d sound rows", got, len(store.rows))
	}
	if got, err := newDirectory(&people{}).Import(t.Context(), nil, false); err != nil || got.Created != 0 || got.Faults != nil {
		t.Errorf("nothing: %+v, %v", got, err)
	}
}
