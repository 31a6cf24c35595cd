package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/config"
)

// healthTimeout is how long the server may take to say how it is.
const healthTimeout = 3 * time.Second

func healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running server whether it is ready",
		Long: `Ask the admin listener of a running server on this machine whether it should get
requests (/readyz), or with --live whether it answers at all (/healthz). If not,
the exit code is 1: for the health check of a container that has no curl.

The configuration is not read, as a running server may be well beside a file that
has just got a fault.`,
		Example: `  wxidp health
  wxidp health --admin 127.0.0.1:9081
  wxidp health --socket /run/wxidp/admin.sock`,
		Args: takes(),
	}
	address := os.Getenv(envAdminListen)
	if address == "" {
		address = config.Default().Admin.Listen
	}
	cmd.Flags().StringVar(&address, "admin", address, "`host:port` of admin.listen (or set "+envAdminListen+")")
	socket := cmd.Flags().String("socket", "", "ask this admin `socket` instead")
	live := cmd.Flags().Bool("live", false, "ask whether the server answers, ready or not")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path := "/readyz"
		if *live {
			path = "/healthz"
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
		defer cancel()
		answer, err := askHealth(ctx, healthDialer(address, *socket), path)
		if err != nil {
			return err
		}
		_, err = io.WriteString(cmd.OutOrStdout(), answer)
		return err
	}
	return cmd
}

// envAdminListen sets admin.listen.
const envAdminListen = "WXIDP_ADMIN_LISTEN"

// dialer opens a connection to the server, wherever a request is for.
type dialer func(ctx context.Context, _, _ string) (net.Conn, error)

// healthDialer dials the socket or else the address. One that listens on all
// addresses, such as :8081, is asked on loopback.
func healthDialer(address, socket string) dialer {
	network, where := "tcp", address
	if host, port, err := net.SplitHostPort(address); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			where = net.JoinHostPort("localhost", port)
		}
	}
	if socket != "" {
		network, where = "unix", socket
	}
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, where)
	}
}

// askHealth returns what the server says where that is 200, and else an error.
func askHealth(ctx context.Context, dial dialer, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		var network *net.OpError
		if errors.As(err, &network) { // without the address of the request, which nobody dialled
			err = network
		}
		return "", fmt.Errorf("no server answers: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s %s", path, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
