//go:build !linux

package main

import (
	"context"
	"os/exec"
)

func endWithUs(*exec.Cmd) {}

func runPower(_ context.Context, t *Trial) error { return t.Skip("needs Linux") }

func runFileSize(_ context.Context, t *Trial) error { return t.Skip("needs Linux") }

func runFullDisk(_ context.Context, t *Trial) error { return t.Skip("needs Linux") }

func runDatabaseDisk(_ context.Context, t *Trial) error { return t.Skip("needs Linux") }

func runDeadDisk(_ context.Context, t *Trial) error { return t.Skip("needs Linux") }

func catchByPowerCuts(_ context.Context, t *Trial, _ string) ([]Violation, error) {
	return nil, t.Skip("needs Linux")
}
