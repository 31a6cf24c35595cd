package main

import (
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/web"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List, rotate, revoke and rewrap the signing keys of the running server",
		Long: `Manage the signing keys of the running server through its admin socket. Keys
rotate by themselves; these commands are for looking, for rotating early and
for a key or master key that has leaked.`,
		Args: cobra.NoArgs, // with RunE, so that a misspelt command is an error
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := newAdminFlags(cmd)
	cmd.AddCommand(keysListCommand(flags), keysRotateCommand(flags), keysRevokeCommand(flags), keysRewrapCommand(flags))
	return cmd
}

// showKeys calls the admin API and prints the keys that it answers.
func (f adminFlags) showKeys(cmd *cobra.Command, method, path string, in any) error {
	client, err := f.admin()
	if err != nil {
		return err
	}
	var out web.KeysResponse
	if err := client.call(cmd.Context(), method, path, in, &out); err != nil {
		return err
	}
	return printKeys(cmd.OutOrStdout(), out, *f.json)
}

func keysListCommand(flags adminFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.showKeys(cmd, http.MethodGet, web.AdminKeys, nil)
		},
	}
}

func keysRotateCommand(flags adminFlags) *cobra.Command {
	var alg string
	cmd := &cobra.Command{
		Use: "rotate", Short: "Let the next key sign from now on",
		Long: `Let the next key of one algorithm, or of all, sign from now on. A next key that
was not yet published long enough takes over as soon as it was, so that no
resource server ever meets a key it does not know.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.showKeys(cmd, http.MethodPost, web.AdminKeysRotate, web.RotateKeysRequest{Alg: alg})
		},
	}
	cmd.Flags().StringVar(&alg, "alg", "", "ES256, RS256, EdDSA or MAC (refresh tokens); default all")
	return cmd
}

func keysRevokeCommand(flags adminFlags) *cobra.Command {
	return &cobra.Command{
		Use: "revoke KEY-ID", Short: "Drop a compromised key at once",
		Long: `Drop a compromised key at once: it leaves the JWK Set and nothing it signed is
accepted here any more. Resource servers go on accepting its tokens until their
copy of the JWK Set expires. Revoking a MAC key ends the sign-ins whose refresh
tokens it made.`,
		Args: takes("KEY-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.showKeys(cmd, http.MethodPost, web.AdminKeysRevoke, web.RevokeKeyRequest{ID: args[0]})
		},
	}
}

func keysRewrapCommand(flags adminFlags) *cobra.Command {
	return &cobra.Command{
		Use: "rewrap", Short: "Seal everything under the first master key",
		Long: `Seal everything that is kept under the first line of the master key file. To
change the master key: add a new key as the first line, restart, run this, and
remove the old line.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := flags.admin()
			if err != nil {
				return err
			}
			var out web.RewrapResponse
			if err := client.call(cmd.Context(), http.MethodPost, web.AdminKeysRewrap, nil, &out); err != nil {
				return err
			}
			if *flags.json {
				return printJSON(cmd.OutOrStdout(), out)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Sealed anew under the first master key: %d key(s), %d value(s).\n", out.Keys, out.Values)
			return err
		},
	}
}

func printKeys(w io.Writer, out web.KeysResponse, asJSON bool) error {
	if asJSON {
		return printJSON(w, out)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ALG\tSTATE\tKEY ID\tCREATED\tSIGNS FROM\tUNTIL\tREMOVED")
	for _, key := range out.Keys {
		from := key.SigningSince
		if from.IsZero() {
			from = key.SignsFrom
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key.Alg, key.State, key.ID,
			when(key.Created), when(from), when(key.RetiresAt), when(key.RemovedAt))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if !out.Scheduled.IsZero() {
		fmt.Fprintf(w, "\nThe next key has not been published long enough; it takes over at %s.\n", when(out.Scheduled))
	}
	return nil
}
