package postgres

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// The test cluster does not sync to a disk: these say what the statements cost.

func BenchmarkRotate(b *testing.B) {
	s := openStore(b, Options{}, hooks{})
	b.SetParallelism(32)
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		res, err := s.SignIn(b.Context(), request(fmt.Sprint("o", n.Add(1))))
		if err != nil {
			b.Error(err)
			return
		}
		for generation := uint32(0); pb.Next(); generation++ {
			got, err := s.Rotate(b.Context(), storage.Rotation{FamilyID: res.Family.ID, ClientID: testClient, Generation: generation, Idle: time.Hour})
			if err != nil || got.Verdict != storage.RotateOK {
				b.Error(got.Verdict, err)
				return
			}
		}
	})
}

func BenchmarkSignIn(b *testing.B) {
	for name, people := range map[string]int64{"known": 100, "new": 1 << 40} {
		b.Run(name, func(b *testing.B) {
			s := openStore(b, Options{}, hooks{})
			b.SetParallelism(32)
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if res, err := s.SignIn(b.Context(), request(fmt.Sprint("o", n.Add(1)%people))); err != nil || res.Verdict != storage.SignInOK {
						b.Error(res.Verdict, err)
						return
					}
				}
			})
		})
	}
}
