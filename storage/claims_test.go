package storage

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func claimDigest(n int) (d Digest) {
	binary.BigEndian.PutUint64(d[:], uint64(n)+1)
	return d
}

func TestClaimsHoldReleaseAndExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClaims(0)
		key := claimDigest(1)
		if !c.Take(key, 10*time.Minute) || c.Take(key, 10*time.Minute) {
			t.Fatal("a claim must be taken once")
		}
		c.Release(key)
		if !c.Take(key, 10*time.Minute) {
			t.Fatal("a released claim must be free")
		}
		for n := range 20 { // other claims come and go meanwhile
			time.Sleep(29 * time.Second)
			c.Take(claimDigest(100+n), time.Second)
			if c.Take(key, time.Minute) {
				t.Fatalf("the claim was forgotten after %v", time.Duration(n+1)*29*time.Second)
			}
		}
		time.Sleep(20 * time.Second)
		if !c.Take(key, time.Minute) {
			t.Fatal("the claim must be free at its end")
		}
	})
}

func TestClaimsAreBoundedAndForgetTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		c := NewClaims(limit)
		for n := range 20 * limit {
			if !c.Take(claimDigest(n), time.Hour) {
				t.Fatalf("claim %d is not free", n)
			}
			if size := len(c.newer) + len(c.older); size > 2*limit {
				t.Fatalf("%d claims are held, limit %d", size, 2*limit)
			}
		}
		for n := 19 * limit; n < 20*limit; n++ {
			if c.Take(claimDigest(n), time.Hour) {
				t.Fatalf("young claim %d was forgotten", n)
			}
		}
		if !c.Take(claimDigest(0), time.Hour) {
			t.Fatal("the oldest claim should have made room")
		}
	})
}

func TestClaimsDoNotGrowOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClaims(0)
		for n := range 5000 {
			c.Take(claimDigest(n), 10*time.Second)
			time.Sleep(time.Second)
			if size := len(c.newer) + len(c.older); size > 40 {
				t.Fatalf("%d claims are held after %d, of which 10 are live", size, n)
			}
		}
	})
}

func TestClaimsHaveOneWinner(t *testing.T) {
	c := NewClaims(0)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if c.Take(claimDigest(7), time.Hour) {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d callers took one claim", won.Load())
	}
}
