package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runPower is G2: the power fails, and what the disk has by then is all there
// is.
func runPower(ctx context.Context, t *Trial) error {
	r, err := t.powerCuts(ctx, t.Binary, t.Folder, t.Size(20, 200))
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.JudgeCensus(ctx, r, standardRules); err != nil {
		return err
	}
	t.Judge(r, standardRules)
	return nil
}

// catchByPowerCuts lets clients work on a server whose power fails.
func catchByPowerCuts(ctx context.Context, t *Trial, binary string) ([]Violation, error) {
	folder, err := t.subFolder("power")
	if err != nil {
		return nil, err
	}
	r, err := t.powerCuts(ctx, binary, folder, 4)
	if errors.Is(err, errSkipped) {
		return nil, nil
	}
	if err != nil && t.powerLost {
		// So much was lost that the server cannot even start.
		return []Violation{{Rule: "R1", Text: err.Error()}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return Check(r.History, standardRules), nil
}

// powerCuts lets clients work on a server whose data is on a file system in a
// file. Again and again that file is copied while the server is stopped: what
// the kernel still held back is not in the copy, on which the server then goes
// on.
func (t *Trial) powerCuts(ctx context.Context, binary, folder string, cuts int) (_ *Rig, err error) {
	if err := t.needMounts(); err != nil {
		return nil, err
	}
	r, err := t.NewRig(RigOptions{Dir: folder, Binary: binary})
	if err != nil {
		return nil, err
	}
	disk := &disk{image: filepath.Join(folder, "disk-0"), mount: filepath.Join(folder, "disk")}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close(), disk.detach())
		}
	}()
	t.cleanup(func() error { return disk.detach() })
	if err := disk.format(ctx, 96<<20); err != nil {
		return nil, err
	}
	n := r.Nodes[0]
	n.Data = filepath.Join(disk.mount, "data")
	// ext4 writes what nobody asked it to write after so many seconds.
	interval := []string{"commit=1", "commit=5", "commit=60"}
	if err := disk.attach(ctx, interval[t.Rand.IntN(3)]); err != nil {
		return nil, err
	}
	if _, err := n.Start(ctx); err != nil {
		return nil, err
	}
	load := NewLoad(r, 8, t.Rand.Uint64())
	if err := load.Prepare(ctx); err != nil {
		return nil, err
	}
	for cut := range cuts {
		working, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { load.Run(working); close(done) }()
		pause(ctx, 500*time.Millisecond+time.Duration(t.Rand.IntN(1500))*time.Millisecond)
		end := r.History.BeginFault("", "power cut", true)
		err := n.process().signal(syscall.SIGSTOP)
		next := filepath.Join(folder, fmt.Sprintf("disk-%d", cut+1))
		if err == nil {
			err = command(ctx, "cp", "--sparse=always", disk.image, next)
		}
		n.Kill()
		stop()
		<-done
		if err = errors.Join(err, disk.detach(), os.Remove(disk.image)); err != nil {
			return nil, err
		}
		disk.image = next
		t.powerLost = true
		if err := disk.attach(ctx, interval[t.Rand.IntN(3)]); err != nil {
			return nil, err
		}
		if _, err := n.Start(ctx); err != nil {
			return nil, err
		}
		end()
		t.powerLost = false
		load.Probe(30)
	}
	t.Note("%d power cuts", cuts)
	return r, nil
}

// disk is a file system in a file.
type disk struct {
	image, mount string
	attached     bool
}

func (d *disk) format(ctx context.Context, size int64) error {
	file, err := os.OpenFile(d.image, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(size), file.Close(), os.MkdirAll(d.mount, 0o700)); err != nil {
		return err
	}
	return command(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", d.image)
}

// attach mounts the image with more options, separated by commas.
func (d *disk) attach(ctx context.Context, options string) error {
	err := command(ctx, "mount", "-t", "ext4", "-o", "loop,"+options, d.image, d.mount)
	d.attached = d.attached || err == nil
	return err
}

// detach unmounts; what the kernel still has to write goes to the image.
func (d *disk) detach() error {
	if !d.attached {
		return nil
	}
	var err error
	for range 50 { // the server's last pages may take a moment
		if err = unix.Unmount(d.mount, 0); err == nil {
			d.attached = false
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("unmount %s: %w", d.mount, err)
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// needMounts skips the scenario where no file system can be mounted: that
// takes root and loop devices, which containers have none of. Where they are,
// as on a machine of one's own, missing tools are a failure in CI.
func (t *Trial) needMounts() error {
	if os.Geteuid() != 0 {
		return t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return t.Skip("there are no loop devices")
	}
	for _, tool := range []string{"mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				return fmt.Errorf("%s is missing, and this machine has root and loop devices", tool)
			}
			return t.Skip("%s is missing", tool)
		}
	}
	trial := &disk{image: filepath.Join(t.Folder, "trial"), mount: filepath.Join(t.Folder, "trial-mount")}
	defer os.Remove(trial.image)
	if err := trial.format(context.Background(), 8<<20); err != nil {
		return err
	}
	if err := trial.attach(context.Background(), "ro"); err != nil {
		return t.Skip("no file system can be mounted here: %v", err)
	}
	return trial.detach()
}
