package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration without serving",
		Long: `Validate a configuration, the files it names and the master key, without
serving and without touching any data. All faults are reported at once, each
with its line and what would be right; the exit code is 1 if there is any.`,
		Args: takes(),
	}
	path := configFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := config.Load(*path, os.Environ())
		if err != nil {
			return err
		}
		keys, err := loaded.MasterKeys()
		if err != nil {
			return err
		}
		if _, err := seal.ParseKeyring([]byte(keys.Reveal())); err != nil {
			return err
		}
		c := loaded.Config
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: issuer %s, %d app(s), %d client(s)\n",
			*path, c.Issuer, len(c.WeChat.Apps), len(c.Clients))
		return err
	}
	return cmd
}
