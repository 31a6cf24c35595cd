package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wxidp/wxidp/config"
)

const envConfig = "WXIDP_CONFIG"

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "wxidp",
		Short: "OAuth 2.0 and OpenID Connect for WeChat mini-programs",
		Long: `wxidp turns the sign-in of a WeChat mini-program (wx.login) into standard
OAuth 2.0 and OpenID Connect tokens that any JWT library can verify. Browsers
and devices sign in with the same accounts: by scanning a code with the
mini-program, or by password.

First steps:
  wxidp dev                       try it: server, WeChat simulator and a ready
                                  configuration in one process
  wxidp init --dir /etc/wxidp     write a configuration and a master key
  wxidp check --config FILE       validate a configuration without serving
  wxidp migrate up --config FILE  prepare a PostgreSQL database, where one is used
  wxidp serve --config FILE       serve

With a running server:
  wxidp users import FILE         move in with the users you have
  wxidp users show WHO            look at a user
  wxidp backup FILE               copy the data while the server goes on

Without one:
  wxidp restore FILE              verify a backup and put it in place`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(initCommand(), serveCommand(), devCommand(), simulatorCommand(),
		checkCommand(), keysCommand(), usersCommand(), sessionsCommand(),
		compactCommand(), backupCommand(), restoreCommand(), healthCommand(), migrateCommand(), versionCommand())
	return root
}

// configFlag adds --config, whose default the environment may give.
func configFlag(flags *pflag.FlagSet) *string {
	path := os.Getenv(envConfig)
	if path == "" {
		path = "config.yaml"
	}
	return flags.String("config", path, "configuration `file` (or set "+envConfig+")")
}

// printError writes an error for a person: the faults of a configuration one a
// line, anything else in one sentence, and what the log has told not at all.
func printError(w io.Writer, err error) {
	if _, ok := errors.AsType[loggedError](err); ok {
		return
	}
	if faults, ok := errors.AsType[config.Faults](err); ok {
		fmt.Fprintln(w, err)
		fmt.Fprintf(w, "wxidp: the configuration has %d fault(s)\n", len(faults))
		return
	}
	fmt.Fprintln(w, "wxidp:", err)
}
