package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/web"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// The mini-program that dev and simulator know where none is named.
const (
	demoAppID     = "wx0123456789abcdef"
	demoAppSecret = "simulated-app-secret-0123456789ab"
)

func simulatorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "simulator",
		Short: "Serve a stand-in for api.weixin.qq.com",
		Long: `Serve a stand-in for WeChat's API, for development and CI without a WeChat
account: set wechat.base_url to its address. Its control API under /control/
plays wx.login for named users, moves its clock and injects faults.

  wxidp simulator --app wx0123456789abcdef:some-secret:main
  curl -d appid=wx0123456789abcdef -d user=alice 'http://127.0.0.1:8090/control/login?format=text'

Whoever reaches it can be anybody: keep it on loopback.`,
		Args: takes(),
	}
	address := cmd.Flags().String("listen", "127.0.0.1:8090", "`host:port` to listen on")
	apps := cmd.Flags().StringArray("app", []string{demoAppID + ":" + demoAppSecret},
		"an app as `appid:secret[:open_platform]`; may be repeated")
	seed := cmd.Flags().String("seed", "", "makes openids and unionids; the same seed gives the same ids")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var parsed []simulator.App
		for _, text := range *apps {
			app, err := parseApp(text)
			if err != nil {
				return err
			}
			parsed = append(parsed, app)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		logger := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
		return serveSimulator(ctx, "--listen", *address, simulator.Options{Apps: parsed, Seed: *seed, Logger: logger}, func(address string) {
			printSimulator(cmd.OutOrStdout(), address, parsed)
		})
	}
	return cmd
}

// parseApp reads appid:secret[:open_platform].
func parseApp(text string) (simulator.App, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return simulator.App{}, fmt.Errorf("--app: want appid:secret or appid:secret:open_platform")
	}
	app := simulator.App{AppID: parts[0], Secret: parts[1]}
	if len(parts) == 3 {
		app.OpenPlatform = parts[2]
	}
	return app, nil
}

func printSimulator(w io.Writer, address string, apps []simulator.App) {
	fmt.Fprintf(w, "Simulating api.weixin.qq.com at http://%s (wechat.base_url)\n\n", address)
	for _, app := range apps {
		fmt.Fprintf(w, "# wx.login of user alice in %s\ncurl -d appid=%s -d user=alice 'http://%s/control/login?format=text'\n", app.AppID, app.AppID, address)
	}
}

// serveSimulator serves API and control API on one address, which a flag gave,
// until ctx ends.
func serveSimulator(ctx context.Context, flag, address string, opts simulator.Options, ready func(address string)) error {
	listener, err := listenTCP(flag, address)
	if err != nil {
		return err
	}
	server := web.HTTPServer(simulator.New(opts).Handler(), opts.Logger)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	ready(listener.Addr().String())
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ignoreClosed(server.Close())
	}
}
