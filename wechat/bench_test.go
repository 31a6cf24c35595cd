package wechat

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkCode2Session measures an exchange over a loopback socket, the
// server's part included, and the client's own share without one.
func BenchmarkCode2Session(b *testing.B) {
	run := func(b *testing.B, o Options) {
		o.Apps = testApps()
		c, err := New(o)
		if err != nil {
			b.Fatal(err)
		}
		ctx := context.Background()
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.Code2Session(ctx, testAppID, canaryCode); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("socket", func(b *testing.B) {
		s := httptest.NewServer(answer200(goodAnswer))
		defer s.Close()
		run(b, Options{BaseURL: s.URL})
	})
	b.Run("client", func(b *testing.B) {
		run(b, Options{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return response(200, goodAnswer), nil
		})})
	})
}

func BenchmarkParseSession(b *testing.B) {
	body := []byte(goodAnswer)
	b.ReportAllocs()
	for b.Loop() {
		if _, e := parseSession(body); e != nil {
			b.Fatal(e)
		}
	}
}
