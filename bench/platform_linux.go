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

// cpuTime returns the CPU time that processes have used, user and system.
func cpuTime(pids ...int) (total time.Duration, err error) {
	for _, pid := range pids {
		fields, err := stat(pid)
		if err != nil {
			return 0, err
		}
		ticks, err := sum(fields[11:13]) // utime and stime, fields 14 and 15
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * clockTick
	}
	return total, nil
}

// familyTime returns the CPU time that a process and its children have used,
// of those too that have ended.
func familyTime(parent int) (total time.Duration, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		fields, err := stat(pid)
		if err != nil {
			continue // it has ended
		}
		of := fields[11:13]
		switch {
		case pid == parent:
			of = fields[11:15] // cutime and cstime, too
		case string(fields[1]) != strconv.Itoa(parent): // ppid, field 4
			continue
		}
		n, err := sum(of)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// stat returns the fields of /proc/PID/stat from the third on, the state.
func stat(pid int) ([][]byte, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The name, in parentheses, may hold anything.
	end := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[end+1:])
	if end < 0 || len(fields) < 15 {
		return nil, errors.New("unknown form of /proc/…/stat")
	}
	return fields, nil
}

func sum(fields [][]byte) (total int64, err error) {
	for _, field := range fields {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// memory returns the resident memory of a process and the most that it ever
// was, in bytes.
func memory(pid int) (now, most int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		to := map[string]*int64{"VmRSS": &now, "VmHWM": &most}[string(name)]
		if to == nil {
			continue
		}
		if _, err := fmt.Sscanf(string(value), "%d kB", to); err != nil {
			return 0, 0, err
		}
		*to <<= 10
	}
	return now, most, nil
}

// residentMemory returns the resident memory of a process, and how much of it
// are no pages of files, in bytes.
func residentMemory(pid int) (all, own int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		to := map[string]*int64{"VmRSS": &all, "RssAnon": &own}[string(name)]
		if to == nil {
			continue
		}
		if _, err := fmt.Sscanf(string(value), "%d kB", to); err != nil {
			return 0, 0, err
		}
		*to <<= 10
	}
	return all, own, nil
}

// forgetPages has the kernel drop a file that nobody uses from its page cache.
func forgetPages(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// pinSelf binds all threads of this process to one core, until undo. Threads
// to come inherit it.
func pinSelf(core int) (undo func(), err error) {
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	set.Set(core)
	return func() { _ = setAffinity(&before) }, setAffinity(&set) // it was allowed before
}

func setAffinity(set *unix.CPUSet) error {
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
			if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
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
