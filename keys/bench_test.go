package keys

import (
	"testing"
)

const benchClaims = `{"iss":"https://id.example.com","sub":"u_2Yk3vQn8c1mZr7dTq0aXwE","aud":["https://api.shop.example"],` +
	`"client_id":"shop-mini","scope":"openid orders.read","iat":1790000000,"exp":1790000900,"auth_time":1790000000,` +
	`"jti":"Yk3vQn8c1mZr7dTq0aXwEg","sid":"n8c1mZr7dTq0aXwEgYk3vQ"}`

func BenchmarkSign(b *testing.B) {
	r := newWorld(b, defaults()).open(b)
	claims := []byte(benchClaims)
	for _, alg := range []string{ES256, RS256, EdDSA} {
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Sign(alg, "at+jwt", claims); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	r := newWorld(b, defaults()).open(b)
	for _, alg := range []string{ES256, RS256, EdDSA} {
		token := sign(b, r, alg, "at+jwt", benchClaims)
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Verify(token, "at+jwt"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		token := segment(`{"alg":"ES256","kid":"x","typ":"JWT"}`) + "." + segment(benchClaims) + "." + segment("x")
		for b.Loop() {
			if _, err := r.Verify(token, "at+jwt"); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}

// BenchmarkRound is what every node does each few seconds.
func BenchmarkRound(b *testing.B) {
	r := newWorld(b, defaults()).open(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.maintain(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
