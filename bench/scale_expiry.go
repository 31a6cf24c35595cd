package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wxidp/wxidp/keys"
	"github.com/wxidp/wxidp/storage"
)

// How the wave of expiring sign-ins is measured: the load before it, in windows
// of a few seconds after it until all are deleted, for waveMost at the longest.
const (
	waveConnections = 8
	waveMost        = 5 * time.Minute
)

// expiry lets many sign-ins expire at one moment under load.
func (m *scaleRun) expiry(ctx context.Context) error {
	if m.o.wave == 0 {
		return nil
	}
	lead := 2*m.o.seconds + 20*time.Second
	at, err := m.importWave(ctx, func() time.Time { return time.Now().Add(lead) })
	if err != nil {
		return err
	}
	return m.serving(ctx, func(s *server) error { return m.ride(ctx, s, at) })
}

// importWave adds sign-ins that expire at what when returns once they are
// made. They began at any time of half a year, so that they lie among others.
func (m *scaleRun) importWave(ctx context.Context, when func() time.Time) (at time.Time, err error) {
	store, err := openStore(ctx, m.o.dir, m.db)
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	mac, err := openRing(ctx, store, keys.Options{Keyring: store.keyring})
	if err != nil {
		return at, err
	}
	began := make([]time.Time, m.o.wave)
	for i := range began {
		began[i] = time.Now().Add(-time.Duration(rand.Float64() * float64(absoluteLifetime-24*time.Hour)))
	}
	slices.SortFunc(began, time.Time.Compare)
	at = when().Add(time.Duration(m.o.wave) * 50 * time.Microsecond) // their import, too
	var rows []storage.Row
	for i := range began {
		f := newFamily(mac, m.sample[rand.IntN(len(m.sample))].Sub, storage.Digest{}, began[i])
		f.IdleExpiresAt = storage.RoundTime(at)
		rows = append(rows, familyRow(&f))
		if len(rows) == storage.MaxRows || i == len(began)-1 {
			if err := store.ImportRows(ctx, rows); err != nil {
				return at, err
			}
			rows = rows[:0]
		}
	}
	return at, nil
}

const metricExpired = "wxidp_storage_expired_total"

// ride measures refreshes before the wave and while it is worked off.
func (m *scaleRun) ride(ctx context.Context, s *server, at time.Time) error {
	m.report.printf("\n%d sign-ins expire at once; refreshes meanwhile, %d connections:\n\n"+
		"| s after | deleted so far | refreshes/s | p50 ms | p99 ms | max ms | CPU of the server | of PostgreSQL |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n", m.o.wave, waveConnections)
	before, err := s.metrics(metricExpired)
	if err != nil {
		return err
	}
	window := func() (deleted int, err error) {
		result, err := m.workload(ctx, s, "refresh", waveConnections)
		if err != nil {
			return 0, err
		}
		after, err := s.metrics(metricExpired)
		if err != nil {
			return 0, err
		}
		deleted = int(after[0] - before[0])
		m.report.printf("| %.0f | %d | %.0f | %.2f | %.2f | %.2f | %.0f %% | %.0f %% |\n", time.Since(at).Seconds(), deleted, result.perSecond(),
			millis(result.percentile(.5)), millis(result.percentile(.99)), millis(result.percentile(1)),
			100*result.cpu.Seconds()/result.elapsed.Seconds(), 100*result.database.Seconds()/result.elapsed.Seconds())
		return deleted, nil
	}
	for time.Until(at) > m.o.seconds+2*time.Second {
		if _, err := window(); err != nil {
			return err
		}
	}
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return ctx.Err()
	}
	for time.Since(at) < waveMost {
		deleted, err := window()
		if err != nil || deleted >= m.o.wave {
			return err
		}
	}
	return fmt.Errorf("not all were deleted within %s", waveMost)
}
