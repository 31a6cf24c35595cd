//go:build unix

package main

import "syscall"

// harden keeps what the process writes to its owner and secrets out of core
// files.
func harden() {
	syscall.Umask(0o077)
	// Where the limit cannot be lowered there is nothing better to do.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
