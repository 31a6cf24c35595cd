package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// serviceManager is who started this process and wants to know how it is:
// systemd with Type=notify, or another that speaks sd_notify(3). The zero value
// stands for nobody.
type serviceManager struct{ socket string }

// findServiceManager returns the one that the environment names.
func findServiceManager() serviceManager {
	socket := os.Getenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return serviceManager{} // none, or of a kind that this does not speak
	}
	return serviceManager{socket}
}

// ready says that requests are answered.
func (m serviceManager) ready(status string) error { return m.send("READY=1\nSTATUS=" + status) }

// stopping says that the process is about to end.
func (m serviceManager) stopping() error { return m.send("STOPPING=1\nSTATUS=draining") }

// reloading says that the configuration is being read; ready ends it.
func (m serviceManager) reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return m.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

func (m serviceManager) send(state string) error {
	if m.socket == "" {
		return nil
	}
	// A name that begins with @ is an abstract one, for Go as for systemd.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
