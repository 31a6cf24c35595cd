//go:build !linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"time"
)

const (
	coreOfServer = 0
	coreOfLoad   = 1
)

// cpuTime is not known here; tables show no CPU time.
func cpuTime(...int) (time.Duration, error) { return 0, nil }

func familyTime(int) (time.Duration, error) { return 0, nil }

func memory(int) (now, most int64, err error) { return 0, 0, nil }

func residentMemory(int) (all, own int64, err error) { return 0, 0, nil }

// forgetPages does nothing here: what is called cold is not.
func forgetPages(string) error { return nil }

func pinSelf(int) (undo func(), err error) { return nil, errors.ErrUnsupported }

func startPinned(*exec.Cmd, int) error { return errors.ErrUnsupported }

func kernel() string { return runtime.GOOS }

func syncFile(f *os.File) error { return f.Sync() }
