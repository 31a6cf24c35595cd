package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/config"
)

// adminFlags are the flags of all commands that talk to a running server.
type adminFlags struct {
	socket, config *string
	json           *bool
}

// newAdminFlags adds the flags to a command and to those below it.
func newAdminFlags(cmd *cobra.Command) adminFlags {
	flags := cmd.PersistentFlags()
	return adminFlags{
		socket: flags.String("socket", "", "admin `socket` of the server (default: the one in the configuration)"),
		config: configFlag(flags),
		json:   flags.Bool("json", false, "print JSON instead of text"),
	}
}

// admin finds the running server.
func (f adminFlags) admin() (*adminClient, error) {
	if *f.socket != "" {
		return newAdminClient(*f.socket), nil
	}
	loaded, err := config.Load(*f.config, os.Environ())
	if err != nil {
		return nil, fmt.Errorf("%w\nor name the admin socket with --socket", err)
	}
	if loaded.Config.Admin.Socket == "" {
		return nil, errors.New("the configuration names no admin.socket")
	}
	return newAdminClient(loaded.Config.Admin.Socket), nil
}

// post finds the running server and posts to its admin API.
func (f adminFlags) post(ctx context.Context, path string, in, out any) error {
	client, err := f.admin()
	if err != nil {
		return err
	}
	return client.call(ctx, http.MethodPost, path, in, out)
}

// adminClient talks to the admin API of the running server.
type adminClient struct {
	socket string
	http   http.Client
}

func newAdminClient(socket string) *adminClient {
	return &adminClient{socket: socket, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// call sends in and reads out, both JSON.
func (c *adminClient) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, 16<<20))
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// open sends in as JSON and returns the body of an answer that is no refusal.
func (c *adminClient) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no server answers at %s; is it running, and is this user its owner? (%w)", c.socket, err)
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return nil, err
	}
	var refusal struct {
		Description string `json:"error_description"`
	}
	if json.Unmarshal(raw, &refusal) == nil && refusal.Description != "" {
		return nil, errors.New(refusal.Description)
	}
	return nil, fmt.Errorf("the server answered %s", resp.Status)
}

func printJSON(w io.Writer, out any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
