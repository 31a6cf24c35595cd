package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage/postgres/pgtest"
)

func TestStorageFlag(t *testing.T) {
	for _, row := range []struct {
		args []string
		want []string
	}{
		{nil, []string{engineBolt, enginePostgres}},
		{[]string{"-storage", "both"}, []string{engineBolt, enginePostgres}},
		{[]string{"-storage", "bolt"}, []string{engineBolt}},
		{[]string{"-storage", "postgres", "-pool", "4"}, []string{enginePostgres}},
		{[]string{"-storage", "mysql"}, nil},
		{[]string{"-pool", "0"}, nil},
	} {
		o, err := parseFlags(row.args)
		if (err != nil) != (row.want == nil) || err == nil && !slices.Equal(o.storage, row.want) {
			t.Errorf("%v: %+v, %v", row.args, o, err)
		}
	}
}

func TestRowName(t *testing.T) {
	id, version, err := parseRowName(rowName(4711, 12))
	if err != nil || id != bareID(4711) || version != 12 {
		t.Errorf("%v, %d, %v", id, version, err)
	}
	for _, bad := range []string{"", "1", "1.", ".1", "a.b"} {
		if _, _, err := parseRowName(bad); err == nil {
			t.Errorf("taken: %q", bad)
		}
	}
}

func TestMedian(t *testing.T) {
	results := []*result{{requests: 30, elapsed: time.Second}, {requests: 10, elapsed: time.Second}, {requests: 20, elapsed: time.Second}}
	if got := median(results).requests; got != 20 || results[0].requests != 30 {
		t.Errorf("the median is %d", got)
	}
}

// The bare server commits what it answers for, and refuses what it must.
func TestBareServer(t *testing.T) {
	db, err := startDatabase(t.Context(), "", 2)
	if errors.Is(err, pgtest.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if version, err := db.version(t.Context()); err != nil || !strings.Contains(version, "fsync=on") || !strings.Contains(version, "synchronous_commit=on") {
		t.Errorf("%s, %v", version, err)
	}
	weChat := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"openid":"` + r.URL.Path + `"}`))
	}))
	defer weChat.Close()
	b, err := newBareServer(t.Context(), db.dsn, weChat.URL+"/", 100)
	if err != nil {
		t.Fatal(err)
	}
	defer b.pool.Close()
	server := httptest.NewServer(b.routes())
	defer server.Close()
	for _, row := range []struct {
		path, name, value string
		status            int
	}{
		{"/refresh", "refresh_token", rowName(7, 0), http.StatusOK},
		{"/refresh", "refresh_token", rowName(7, 0), http.StatusBadRequest},
		{"/refresh", "refresh_token", rowName(7, 1), http.StatusOK},
		{"/refresh", "refresh_token", rowName(bareRows, 0), http.StatusBadRequest},
		{"/sign-in", "js_code", "code", http.StatusOK},
		{"/introspect", "token", rowName(7, 0), http.StatusOK},
		{"/introspect", "token", rowName(bareRows, 0), http.StatusBadRequest},
	} {
		answer, err := http.PostForm(server.URL+row.path, url.Values{row.name: {row.value}})
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Body.Close(); err != nil || answer.StatusCode != row.status || row.status == http.StatusOK && answer.ContentLength != 100 {
			t.Errorf("%s %s: %s, %d bytes, %v", row.path, row.value, answer.Status, answer.ContentLength, err)
		}
	}
	versions := make([]int64, bareRows)
	if err := db.versions(t.Context(), versions); err != nil || versions[7] != 2 || versions[8] != 0 {
		t.Errorf("versions %v, %v", versions[:10], err)
	}
	if _, err := familyTime(db.Pid()); err != nil {
		t.Error(err)
	}
}
