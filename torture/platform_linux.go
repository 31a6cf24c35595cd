package main

import (
	"os/exec"
	"syscall"
)

// endWithUs makes the kernel kill the child when this process dies.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
