package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/storage"
	"github.com/wxidp/wxidp/web"
)

// heapFloor keeps a server with little live memory from collecting garbage
// every few milliseconds under load. With it the heap grows to about 100 MiB
// before a collection, and each request costs 3 % less CPU.
const heapFloor = 16 << 20

// shutdownBudget is how long requests under way may take at the end.
const shutdownBudget = 20 * time.Second

// settleTime is how long connections go on answering after the listener has
// closed: as long as a balancer may take to notice that.
const settleTime = time.Second

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Serve until SIGTERM or SIGINT; a second signal ends at once. Standard output
carries one JSON object per event. A saved change of the configuration is taken
within two seconds, or at once on SIGHUP; a faulty one is refused and logged
while the last good one goes on.

Data that were restored from a backup are not served before you have said what
is to become of the sign-ins in them, of which some may have been ended since:
--after-restore=revoke-all ends all of them, accept lets them go on. It is done
once, before the first request; say it at one start only.`,
		Args: takes(),
	}
	path := configFlag(cmd.Flags())
	drain := cmd.Flags().Duration("drain", 5*time.Second, "how long /readyz fails before the listeners close")
	afterRestore := cmd.Flags().String("after-restore", "", afterRestoreUsage)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		harden()
		choice, err := checkAfterRestore(*afterRestore)
		if err != nil {
			return err
		}
		level := new(slog.LevelVar)
		logger := slog.New(slog.NewJSONHandler(cmd.OutOrStdout(), &slog.HandlerOptions{Level: level}))
		loaded, err := config.Load(*path, os.Environ())
		if err == nil {
			err = serve(cmd.Context(), loaded, serveOptions{
				logger: logger, level: level, drain: *drain, manager: findServiceManager(), afterRestore: choice,
			})
		}
		if err != nil {
			logFailure(logger, err)
			return loggedError{err}
		}
		return nil
	}
	return cmd
}

// loggedError is an error that the log has told already.
type loggedError struct{ error }

// logFailure logs why the server does not run, each fault of a configuration
// in a line of its own.
func logFailure(logger *slog.Logger, err error) {
	if _, ok := errors.AsType[*undecidedError](err); ok {
		logger.Error("restored data are not served without a choice", "event", "restore.undecided", "detail", err.Error())
		return
	}
	faults, ok := errors.AsType[config.Faults](err)
	if !ok {
		logger.Error("the server failed", "event", "server.failed", "detail", err.Error())
		return
	}
	for _, fault := range faults {
		logger.Error("the configuration has a fault; nothing was started", "event", "config.fault", "detail", fault.String())
	}
}

// serveOptions is what differs between serve and dev.
type serveOptions struct {
	logger *slog.Logger
	level  *slog.LevelVar
	drain  time.Duration
	ready  func(*parts) // called once all listeners are open; may be nil

	manager      serviceManager        // is told when the server is ready, reloads and ends
	afterRestore storage.RestoreChoice // "": none was made
}

// tell logs why the service manager could not be told something.
func (o serveOptions) tell(err error) {
	if err != nil {
		o.logger.Warn("the service manager could not be told", "event", "server.notify_failed", "detail", err.Error())
	}
}

// serve runs the server until a signal or the end of ctx.
func serve(ctx context.Context, loaded *config.Loaded, opts serveOptions) error {
	if os.Getenv("GOGC") == "" {
		// Tokens make much short-lived garbage on a small heap: collecting it a
		// quarter as often costs a few MiB and saves a tenth of the CPU.
		debug.SetGCPercent(400)
		// The collector counts this as live and waits for the heap to outgrow it
		// by as much; it takes address space only, because nobody touches it.
		floor := make([]byte, heapFloor)
		defer runtime.KeepAlive(floor)
	}
	opts.level.Set(loaded.Config.Log.SlogLevel())
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// From the very start to the very end, or a reload at a bad moment would
	// end the process.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	parts, err := build(ctx, loaded, opts.logger, opts.afterRestore)
	if err != nil {
		return err
	}
	defer func() {
		if err := parts.store.Close(); err != nil {
			opts.logger.Error("closing the storage failed", "event", "storage.close_failed", "detail", err.Error())
		}
	}()
	open, err := listen(loaded.Config, parts.metrics.ConnectionRefused)
	if err != nil {
		return err
	}
	defer open.close()

	group, background := errgroup.WithContext(context.WithoutCancel(ctx))
	background, endBackground := context.WithCancel(background)
	defer endBackground()
	servers := []*http.Server{
		web.HTTPServer(parts.web.Public(), opts.logger),
		web.HTTPServer(parts.web.Admin(), opts.logger),
		web.HTTPServer(parts.web.AdminSocket(), opts.logger),
	}
	for i, listener := range []net.Listener{open.public, open.admin, open.socket} {
		if listener != nil {
			group.Go(func() error { return ignoreClosed(servers[i].Serve(listener)) })
		}
	}
	parts.work(background, group)
	group.Go(func() error { return ignoreCanceled(watch(background, parts, loaded, opts, hangup)) })

	opts.logger.Info("serving", "event", "server.started", "issuer", loaded.Config.Issuer,
		"listen", open.public.Addr().String(), "version", version().Version)
	warnOfSwitches(opts.logger, loaded.Config)
	if opts.ready != nil {
		opts.ready(parts)
	}
	opts.tell(opts.manager.ready("serving " + loaded.Config.Issuer))
	select {
	case <-ctx.Done():
	case <-background.Done(): // a part failed; Wait says which
	}
	stop() // from here on a signal ends the process
	parts.web.Drain()
	opts.logger.Info("ending", "event", "server.stopping")
	opts.tell(opts.manager.stopping())
	pause(background, opts.drain)
	// First nothing new: who connects now is refused and goes to another node.
	// Connections that are there still answer, for a balancer may be sending a
	// request on one just when it is closed, and can then not know whether it was
	// worked on.
	_ = open.public.Close() // closed already is as good
	pause(background, min(opts.drain, settleTime))
	shutdown(servers, opts.logger)
	endBackground()
	return group.Wait()
}

// work does what goes on beside requests, until ctx ends.
func (p *parts) work(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return ignoreCanceled(p.keys.Run(ctx)) })
	group.Go(func() error { p.store.RunGC(ctx, collectEvery); return nil })
	group.Go(func() error { p.custody.run(ctx); return nil })
	group.Go(func() error { p.provider.RunLogouts(ctx); return nil })
	if p.exchange != nil {
		group.Go(func() error { p.exchange.Run(ctx); return nil })
		group.Go(func() error { return untilMoved(ctx, p.store) })
	}
}

func warnOfSwitches(logger *slog.Logger, c *config.Config) {
	for _, name := range c.Insecure.Enabled() {
		logger.Warn("a protection is switched off", "event", "config.insecure", "switch", name)
	}
	if c.RateLimits.Disabled {
		logger.Warn("all rate limits are off", "event", "config.insecure", "switch", "rate_limits.disabled")
	}
}

// watch reloads the configuration on change and on hangup.
func watch(ctx context.Context, parts *parts, loaded *config.Loaded, opts serveOptions, hangup <-chan os.Signal) error {
	refused := func(err error) {
		parts.metrics.ReloadRefused()
		opts.logger.Error("the changed configuration was refused; the last good one goes on",
			"event", "config.rejected", "detail", err.Error())
	}
	watcher := &config.Watcher{
		Loaded: loaded,
		OnReload: func(next *config.Config) error {
			if err := parts.apply(next); err != nil {
				return err
			}
			opts.level.Set(next.Log.SlogLevel())
			parts.metrics.ReloadApplied()
			opts.logger.Info("the changed configuration is in force", "event", "config.applied", "clients", len(next.Clients))
			return nil
		},
		OnReject: refused,
	}
	go func() {
		for {
			select {
			case <-hangup:
				opts.tell(opts.manager.reloading())
				status := "serving " + loaded.Config.Issuer
				if watcher.Reload() != nil { // told to OnReject
					status += "; the last change of the configuration was refused, the log says why"
				}
				opts.tell(opts.manager.ready(status))
			case <-ctx.Done():
				return
			}
		}
	}()
	return watcher.Run(ctx)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// shutdown lets the requests under way finish.
func shutdown(servers []*http.Server, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownBudget)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			logger.Warn("requests were cut off", "event", "server.cut_off", "detail", err.Error())
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
