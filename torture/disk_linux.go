package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// runFileSize is G4 without root: no file of the server may grow or be written
// beyond its first pages for a while, which writes meet like a full disk.
func runFileSize(ctx context.Context, t *Trial) error {
	r, err := t.NewRig(RigOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	n := r.Nodes[0]
	limit := func(size uint64) error {
		return unix.Prlimit(n.Pid(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: math.MaxUint64}, nil)
	}
	return t.fullDisk(ctx, r, t.Size(3, 30), func() error { return limit(8192) }, func() error { return limit(math.MaxUint64) })
}

// runFullDisk is G4 on a file system that really is full.
func runFullDisk(ctx context.Context, t *Trial) error {
	r, disk, err := t.onDisk(ctx, 24<<20)
	if err != nil {
		return err
	}
	defer r.Close()
	ballast := filepath.Join(disk.mount, "ballast")
	fill := func() error {
		file, err := os.Create(ballast)
		if err != nil {
			return err
		}
		defer file.Close()
		chunk := make([]byte, 4096)
		for written := 0; written < 64<<20; written += len(chunk) {
			if _, err := file.Write(chunk); err != nil {
				return nil // full, as wanted
			}
		}
		return fmt.Errorf("%s does not get full", disk.mount)
	}
	return t.fullDisk(ctx, r, t.Size(3, 30), fill, func() error { return os.Remove(ballast) })
}

// onDisk prepares a rig whose only node keeps its data on a file system of its
// own.
func (t *Trial) onDisk(ctx context.Context, size int64) (*Rig, *disk, error) {
	if err := t.needMounts(); err != nil {
		return nil, nil, err
	}
	r, err := t.NewRig(RigOptions{})
	if err != nil {
		return nil, nil, err
	}
	disk := &disk{image: filepath.Join(t.Folder, "disk-image"), mount: filepath.Join(t.Folder, "disk")}
	t.cleanup(disk.detach)
	if err := disk.format(ctx, size); err != nil {
		return nil, nil, err
	}
	if err := disk.attach(ctx, "commit=5"); err != nil {
		return nil, nil, err
	}
	r.Nodes[0].Data = filepath.Join(disk.mount, "data")
	return r, disk, nil
}

// fullDisk lets clients work while the disk gets full and empty again: reads go
// on, writes are refused and nothing else, and all goes on by itself
// afterwards. Then the server is killed, and must know everything.
func (t *Trial) fullDisk(ctx context.Context, r *Rig, times int, fill, free func() error) error {
	n := r.Nodes[0]
	if _, err := n.Start(ctx); err != nil {
		return err
	}
	load := NewLoad(r, 6, t.Rand.Uint64())
	if err := load.Prepare(ctx); err != nil {
		return err
	}
	pid := n.Pid()
	var refused int
	var slowest time.Duration
	for range times {
		load.RunFor(ctx, time.Second)
		end := r.History.BeginFault("", "the disk is full", false)
		if err := fill(); err != nil {
			return err
		}
		before := r.History.Len()
		load.RunFor(ctx, time.Duration(700+t.Rand.IntN(800))*time.Millisecond)
		refused += t.readsGoOn(ctx, r, before)
		if err := free(); err != nil {
			return err
		}
		took, err := t.writesAgain(ctx, r)
		if err != nil {
			return err
		}
		slowest = max(slowest, took)
		end()
		load.Probe(20)
	}
	if n.Pid() != pid || !n.Running() {
		t.Fail("the process ended on a full disk")
	}
	if refused < times {
		t.Fail("only %d requests were refused: the disk was not full", refused)
	}
	t.Note("full %d times, %d requests refused, writes again after at most %s", times, refused, slowest.Round(time.Millisecond))
	end := r.History.BeginFault("", "kill -9", true)
	n.Kill()
	if _, err := n.Start(ctx); err != nil {
		return err
	}
	end()
	load.Probe(0)
	if err := t.JudgeCensus(ctx, r, standardRules); err != nil {
		return err
	}
	t.Judge(r, standardRules)
	return nil
}

// readsGoOn checks what was answered from the operation with this index on, and
// returns how many requests were refused: only such as write.
func (t *Trial) readsGoOn(ctx context.Context, r *Rig, from int) (refused int) {
	n := r.Nodes[0]
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/healthz"} {
		if op := r.Get(ctx, n, path); op.Status != http.StatusOK {
			t.Fail("%s on a full disk: %s", path, op)
		}
	}
	if op := r.ClientCredentials(ctx, n); op.Outcome != OK {
		t.Fail("client credentials on a full disk: %s", op)
	}
	for _, op := range r.History.snapshot()[from:] {
		if op.Status != http.StatusServiceUnavailable {
			continue
		}
		refused++
		if op.Kind == Introspect || op.Kind == UserInfo {
			t.Fail("a read was refused on a full disk: %s", op)
		}
	}
	return refused
}

// writesAgain waits until somebody can sign in.
func (t *Trial) writesAgain(ctx context.Context, r *Rig) (time.Duration, error) {
	const within = 5 * time.Second
	begin := time.Now()
	for time.Since(begin) < within {
		code, err := r.Sim.Login(appID, "returning")
		if err != nil {
			return 0, err
		}
		if op, _ := r.SignIn(ctx, r.Nodes[0], "returning", code, ""); op.Outcome == OK {
			return time.Since(begin), nil
		}
		pause(ctx, 50*time.Millisecond)
	}
	return 0, fmt.Errorf("nobody can sign in %s after there was room again", within)
}

// runDeadDisk lets the file system fail for good in the middle of the work, as
// one does that the kernel has found an error in: every further write is an
// error, and what was synced stays. Nothing may be acknowledged from then on,
// and with the disk repaired everything acknowledged before is there.
func runDeadDisk(ctx context.Context, t *Trial) error {
	r, disk, err := t.onDisk(ctx, 96<<20)
	if err != nil {
		return err
	}
	defer r.Close()
	n := r.Nodes[0]
	if _, err := n.Start(ctx); err != nil {
		return err
	}
	load := NewLoad(r, 6, t.Rand.Uint64())
	if err := load.Prepare(ctx); err != nil {
		return err
	}
	ended := 0
	times := t.Size(4, 40)
	for range times {
		working, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { load.Run(working); close(done) }()
		pause(ctx, 300*time.Millisecond+time.Duration(t.Rand.IntN(900))*time.Millisecond)
		end := r.History.BeginFault("", "the disk is dead", true)
		err := unix.Mount("", disk.mount, "", unix.MS_REMOUNT, "abort")
		pause(ctx, 300*time.Millisecond)
		stop()
		<-done
		if err != nil {
			return fmt.Errorf("remount with abort: %w", err)
		}
		if !n.Running() {
			ended++
			r.History.Died(n.Name)
		}
		n.Kill()
		if err := disk.detach(); err != nil {
			return err
		}
		if err := disk.attach(ctx, "commit=5"); err != nil {
			return err
		}
		if _, err := n.Start(ctx); err != nil {
			return err
		}
		end()
		load.Probe(20)
	}
	t.Note("%d dead disks, at which the process ended %d times by itself", times, ended)
	load.Probe(0)
	if err := t.JudgeCensus(ctx, r, standardRules); err != nil {
		return err
	}
	t.Judge(r, standardRules)
	return nil
}
