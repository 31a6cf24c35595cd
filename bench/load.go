package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// script is what one connection does. It is used by one goroutine.
type script interface {
	// request returns the next request, or nil when there are no more.
	request() []byte
	// check judges the answer to it. body is valid during the call only.
	check(status int, body []byte) error
}

// result is one measurement.
type result struct {
	requests   int // between the beginning and the end of the measurement
	total      int // with those of the warm-up
	elapsed    time.Duration
	cpu        time.Duration // of the server; 0: not known
	database   time.Duration // CPU time of PostgreSQL; 0: none
	memory     int64         // of the server afterwards, in bytes
	mostMemory int64         // and the most until then
	latencies  []time.Duration
	commits    float64
	operations float64 // that the commits made durable
	exhausted  bool    // the supply of requests ended the measurement early
}

func (r *result) perSecond() float64 { return float64(r.requests) / r.elapsed.Seconds() }

func (r *result) cpuPerRequest() time.Duration {
	return time.Duration(float64(r.cpu) / float64(max(r.requests, 1)))
}

func (r *result) databasePerRequest() time.Duration {
	return time.Duration(float64(r.database) / float64(max(r.requests, 1)))
}

// percentile returns the latency that a share q of the requests did not exceed.
func (r *result) percentile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(int(q*float64(len(r.latencies))), len(r.latencies)-1)]
}

// clock returns CPU times used so far: the server's, and PostgreSQL's.
type clock func() (server, database time.Duration, err error)

// load lets every script run on a connection of its own, first to warm up and
// then to be measured. The first bad answer ends it.
func load(ctx context.Context, address string, cpu clock, warmUp, length time.Duration, scripts []script) (*result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		completed atomic.Int64
		measuring atomic.Bool
		stopping  atomic.Bool
		wait      sync.WaitGroup
		latencies = make([][]time.Duration, len(scripts))
	)
	deadline := time.Now().Add(warmUp + length + answerTimeout)
	for i, s := range scripts {
		c, err := dial(address)
		if err != nil {
			cancel(err)
			break
		}
		if err := c.SetDeadline(deadline); err != nil {
			cancel(err)
			break
		}
		wait.Go(func() {
			defer c.Close()
			taken := make([]time.Duration, 0, 1<<14)
			for !stopping.Load() {
				request := s.request()
				if request == nil {
					break
				}
				counts := measuring.Load()
				begin := time.Now()
				status, body, err := c.do(request)
				latency := time.Since(begin)
				if err == nil {
					err = s.check(status, body)
				}
				if err != nil {
					cancel(fmt.Errorf("bad answer: %w", err))
					return
				}
				completed.Add(1)
				if counts {
					taken = append(taken, latency)
				}
			}
			latencies[i] = taken
		})
	}
	ended := make(chan struct{})
	go func() { wait.Wait(); close(ended) }()
	defer func() { stopping.Store(true); <-ended }()

	r := new(result)
	if err := sleep(ctx, ended, warmUp); err != nil {
		return nil, err
	}
	before, databaseBefore, err := cpu()
	if err != nil {
		return nil, err
	}
	first, begin := completed.Load(), time.Now()
	measuring.Store(true)
	if err := sleep(ctx, ended, length); err != nil {
		return nil, err
	}
	r.requests, r.elapsed = int(completed.Load()-first), time.Since(begin)
	after, databaseAfter, err := cpu()
	if err != nil {
		return nil, err
	}
	r.cpu, r.database = after-before, databaseAfter-databaseBefore
	select {
	case <-ended:
		r.exhausted = true
	default:
	}
	stopping.Store(true)
	<-ended
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	r.total = int(completed.Load())
	r.latencies = slices.Concat(latencies...)
	slices.Sort(r.latencies)
	return r, nil
}

// sleep waits for d, the end of all scripts or the end of ctx.
func sleep(ctx context.Context, ended <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}
