package bolt

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// bench runs call b.N times from the given number of goroutines and reports
// how many commits one call took.
func bench(b *testing.B, s *Store, callers int, call func(caller int) error) {
	before := s.Stats()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(caller); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(s.Stats().Commits-before.Commits)/float64(b.N), "commits/op")
}

var benchCallers = []int{1, 64}

func BenchmarkSignIn(b *testing.B) {
	const people = 10_000
	for _, callers := range benchCallers {
		b.Run(fmt.Sprintf("known/%d", callers), func(b *testing.B) {
			s := openStore(b, Options{})
			var wg sync.WaitGroup
			for i := range people {
				wg.Go(func() {
					if _, err := s.SignIn(context.Background(), signInRequest(fmt.Sprint("o", i))); err != nil {
						b.Error(err)
					}
				})
				if i%1000 == 999 {
					wg.Wait()
				}
			}
			var n atomic.Int64
			bench(b, s, callers, func(int) error {
				_, err := s.SignIn(context.Background(), signInRequest(fmt.Sprint("o", n.Add(1)*7919%people)))
				return err
			})
		})
		b.Run(fmt.Sprintf("new/%d", callers), func(b *testing.B) {
			s := openStore(b, Options{})
			var n atomic.Int64
			bench(b, s, callers, func(int) error {
				_, err := s.SignIn(context.Background(), signInRequest(fmt.Sprint("o", n.Add(1))))
				return err
			})
		})
	}
}

func BenchmarkRotate(b *testing.B) {
	for _, callers := range benchCallers {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			s := openStore(b, Options{})
			families := make([]storage.Family, callers)
			for i := range families {
				res, err := s.SignIn(context.Background(), signInRequest(fmt.Sprint("o", i)))
				if err != nil {
					b.Fatal(err)
				}
				families[i] = res.Family
			}
			bench(b, s, callers, func(i int) error {
				res, err := s.Rotate(context.Background(), storage.Rotation{
					FamilyID: families[i].ID, ClientID: "shop-mini", Generation: families[i].Generation, Idle: time.Hour,
				})
				if err == nil && res.Verdict != storage.RotateOK {
					err = fmt.Errorf("verdict %d", res.Verdict)
				}
				families[i] = res.Family
				return err
			})
		})
	}
}

func BenchmarkCheckAccess(b *testing.B) {
	s := openStore(b, Options{})
	res, err := s.SignIn(b.Context(), signInRequest("o1"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if access, err := s.CheckAccess(context.Background(), storage.AccessCheck{FamilyID: res.Family.ID, JTI: "jti"}); err != nil || access.Verdict != storage.AccessActive {
			b.Fatal(access.Verdict, err)
		}
	}
}
