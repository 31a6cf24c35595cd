package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Where what runs: the server alone, everything else together.
const (
	coreOfServer = 0
	coreOfLoad   = 1
)

// clockTick is the unit of times in /proc, 1/USER_HZ, the same on every
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime returns the CPU time that a process has used, user and system.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; state is field 3.
	end := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	if end < 0 || len(fields) < 13 {
		return 0, errors.New("unknown form of /proc/…/stat")
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, fields 14 and 15
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// pinSelf binds all threads of this process to one core. Threads to come
// inherit it.
func pinSelf(core int) error {
	var set unix.CPUSet
	set.Set(core)
	for range 2 { // once more, for threads made meanwhile
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// startPinned starts a command on one core: a process inherits the affinity of
// the thread that made it.
func startPinned(cmd *exec.Cmd, core int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// kernel names the operating system's kernel.
func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "linux"
	}
	return "Linux " + unix.ByteSliceToString(name.Release[:])
}

// syncFile makes what was written to f durable.
func syncFile(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
