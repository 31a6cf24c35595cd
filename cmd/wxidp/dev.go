package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/wechat/simulator"
)

// Client ids of the ready configuration.
const (
	demoClient    = "shop-mini"
	demoBackend   = "orders-api"
	demoWeb       = "shop-web"
	demoDevice    = "shop-tv"
	backendSecret = "secrets/orders-api"
	webSecret     = "secrets/shop-web"
	weChatSecret  = "secrets/wechat"

	// The second mini-program of the demonstration.
	demoAppID2     = "wxfedcba9876543210"
	demoAppSecret2 = "simulated-app-secret-456789abcdef01"
	demoClient2    = "shop-mini-2"
	weChatSecret2  = "secrets/wechat-2"
)

func devCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try it: server, WeChat simulator and a ready configuration in one process",
		Long: `Start the server with a ready configuration and a simulated WeChat, and print
commands that sign in. Everything is kept in one folder, which may be deleted to
start afresh; edit the config.yaml in it while this runs.`,
		Args: takes(),
	}
	dir := cmd.Flags().String("dir", "wxidp-dev", "`folder` for configuration and data")
	address := cmd.Flags().String("listen", "127.0.0.1:8080", "`host:port` of the server")
	admin := cmd.Flags().String("admin-listen", "127.0.0.1:8081", "`host:port` of metrics and admin API")
	afterRestore := cmd.Flags().String("after-restore", "", afterRestoreUsage)
	simulated := cmd.Flags().String("simulator-listen", "127.0.0.1:8090", "`host:port` of the WeChat simulator")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		harden()
		choice, err := checkAfterRestore(*afterRestore)
		if err != nil {
			return err
		}
		if err := prepareDev(*dir); err != nil {
			return err
		}
		// A closed terminal ends it too: there is nobody left to reload for.
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		context.AfterFunc(ctx, stop) // from then on a signal ends the process

		// The simulator ends last, so that sign-ins under way get their answer.
		simulating, endSimulator := context.WithCancel(context.WithoutCancel(ctx))
		defer endSimulator()
		ready, done := make(chan string, 1), make(chan error, 1)
		go func() {
			done <- serveSimulator(simulating, "--simulator-listen", *simulated, simulator.Options{
				Apps: []simulator.App{
					{AppID: demoAppID, Secret: demoAppSecret, OpenPlatform: "main"},
					{AppID: demoAppID2, Secret: demoAppSecret2, OpenPlatform: "main"},
				},
				Logger: slog.New(slog.DiscardHandler),
			}, func(address string) { ready <- address })
		}()
		select {
		case err := <-done:
			return err
		case weChat := <-ready:
			err := serveDev(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), *dir, *address, *admin, weChat, choice)
			endSimulator()
			return errors.Join(err, <-done)
		}
	}
	return cmd
}

// prepareDev writes the ready configuration unless it is there.
func prepareDev(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "config.yaml")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeInstallation(dir, config.InitParams{
		AppID:                   demoAppID,
		AppSecretFile:           weChatSecret,
		ClientID:                demoClient,
		OpenPlatform:            "main",
		IntrospectionSecretFile: backendSecret,
		Demo: &config.InitDemo{
			AppID: demoAppID2, AppSecretFile: weChatSecret2, ClientID: demoClient2, WebSecretFile: webSecret,
		},
	}, map[string]string{
		weChatSecret:  demoAppSecret + "\n",
		weChatSecret2: demoAppSecret2 + "\n",
		backendSecret: rand.Text() + rand.Text() + "\n",
		webSecret:     rand.Text() + rand.Text() + "\n",
	})
}

// serveDev serves the configuration in dir, at the addresses given: the
// environment of this run says what the file leaves to the command line.
func serveDev(ctx context.Context, out, logs io.Writer, dir, address, admin, weChat string, afterRestore storage.RestoreChoice) error {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "WXIDP_") })
	env = append(env,
		"WXIDP_ISSUER=http://"+address,
		"WXIDP_LISTEN="+address,
		"WXIDP_ADMIN_LISTEN="+admin,
		"WXIDP_WECHAT_BASE_URL=http://"+weChat,
	)
	loaded, err := config.Load(filepath.Join(dir, "config.yaml"), env)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	return serve(ctx, loaded, serveOptions{
		logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: level})),
		level:  level,

		afterRestore: afterRestore,
		ready: func(*parts) {
			printWelcome(out, dir, loaded.Config.Issuer, admin, weChat)
		},
	})
}

// printWelcome prints commands that need nothing but a POSIX shell and curl.
func printWelcome(w io.Writer, dir, issuer, admin, weChat string) {
	replace := strings.NewReplacer("PROGRAM", os.Args[0], "ISSUER", issuer, "WECHAT", "http://"+weChat, "ADMIN", "http://"+admin,
		"DIR", dir, "APPID", demoAppID, "CLIENT", demoClient, "BACKEND", demoBackend, "SECRETFILE", filepath.Join(dir, backendSecret))
	fmt.Fprint(w, replace.Replace(welcome))
}

const welcome = `
wxidp is running. Paste this into another terminal:

# 1. wx.login, as the simulated WeChat plays it for user alice
CODE=$(curl -s 'WECHAT/control/login?format=text' -d appid=APPID -d user=alice)

# 2. sign in: the js_code goes in, tokens come out
TOKENS=$(curl -s ISSUER/oauth2/token -d grant_type=wechat_jscode -d client_id=CLIENT -d js_code=$CODE)
echo "$TOKENS"

# 3. refresh
REFRESH=$(echo "$TOKENS" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
TOKENS=$(curl -s ISSUER/oauth2/token -d grant_type=refresh_token -d client_id=CLIENT -d refresh_token=$REFRESH)

# 4. what the access token says
ACCESS=$(echo "$TOKENS" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
echo "$ACCESS" | cut -d. -f2 | tr '_-' '/+' | awk '{while(length($0)%4)$0=$0"=";print}' | base64 -d; echo

# 5. ask the server about it, as a backend may
curl -s -u "BACKEND:$(cat SECRETFILE)" ISSUER/oauth2/introspect -d token=$ACCESS

# 6. with a browser: make an account, then open ISSUER/account and sign in
echo 'correct horse battery' | PROGRAM users add --config DIR/config.yaml --username alice

# 7. or scan the code there with a phone that curl plays: fill in the link, which
#    stands in the page's source at id="scan-link", and the number beside the code
LINK='ISSUER/scan?t=...' NUMBER=00
CODE=$(curl -s 'WECHAT/control/login?format=text' -d appid=APPID -d user=alice)
PHONE=$(curl -s ISSUER/oauth2/token -d grant_type=wechat_jscode -d client_id=CLIENT -d js_code=$CODE -d scope='openid device.approve' |
  sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -s ISSUER/device/context -H "Authorization: Bearer $PHONE" --data-urlencode "ticket=$LINK"
curl -s ISSUER/device/approve -H "Authorization: Bearer $PHONE" --data-urlencode "ticket=$LINK" -d number=$NUMBER

discovery   ISSUER/.well-known/openid-configuration
metrics     ADMIN/metrics
everything  DIR/ (edit config.yaml while this runs; delete the folder to start afresh)

Ctrl-C ends it.

`
