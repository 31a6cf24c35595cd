package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/web"
)

func usersAddCommand(flags adminFlags) *cobra.Command {
	var in web.AddUserRequest
	var noPassword bool
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add a user with a username and password",
		Long: `Add a user who signs in with a username and password. A terminal asks for the
password without showing it; without one it is the first line of standard input.
It is never an argument, which other users of the machine can see. With
--no-password the user has only an external id, the id under which the product
knows the user.`,
		Example: `  wxidp users add --username ming
  wxidp users add --username ming < password.txt
  wxidp users add --external-id 42 --no-password`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case in.Username == "" && in.ExternalID == "":
				return errors.New("name the user with --username, or with --external-id and --no-password")
			case noPassword && in.ExternalID == "":
				return errors.New("without a password a user needs an --external-id, or nothing leads to the user")
			case !noPassword && in.Username == "":
				return errors.New("a password needs a --username; without one, say --no-password")
			}
			if !noPassword {
				var err error
				if in.Password, err = readPassword(cmd); err != nil {
					return err
				}
			}
			var out web.UserResponse
			if err := flags.post(cmd.Context(), web.AdminUsersAdd, in, &out); err != nil {
				return err
			}
			if *flags.json {
				return printJSON(cmd.OutOrStdout(), out)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "Added", out.ID)
			return err
		},
	}
	cmd.Flags().StringVar(&in.Username, "username", "", "`name` to sign in with; upper and lower case are one")
	cmd.Flags().StringVar(&in.ExternalID, "external-id", "", "the `id` under which the product knows the user")
	cmd.Flags().StringVar(&in.Nickname, "nickname", "", "`name` to show (default as of new users)")
	cmd.Flags().StringVar(&in.Picture, "picture", "", "https `URL` of a picture (default as of new users)")
	cmd.Flags().BoolVar(&noPassword, "no-password", false, "let the user have no password")
	return cmd
}

// done prints an outcome: JSON or a sentence.
func (f adminFlags) done(cmd *cobra.Command, out any, format string, args ...any) error {
	if *f.json {
		return printJSON(cmd.OutOrStdout(), out)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format, args...)
	return err
}

func usersStateCommand(flags adminFlags, name, path string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disable WHO",
		Short: "Shut a user out at once",
		Long: `Shut a user out: all sign-ins end, and neither WeChat nor a password lets the
user in. From the next request on refresh tokens are refused, introspection says
inactive and UserInfo answers 401. An access token that a resource server checks
by itself, without asking, goes on until it expires (15 minutes by default).
` + whoHelp,
		Example: `  wxidp users disable phone:+8613800138000`,
		Args:    takes("WHO"),
	}
	sentence := "%s is disabled, and the user's sign-ins have ended.\n"
	if name == "enable" {
		cmd.Use, cmd.Short = "enable WHO", "Let a disabled user in again"
		cmd.Long = "Let a disabled user in again. What ended stays so: the user signs in anew.\n" + whoHelp
		cmd.Example = "  wxidp users enable phone:+8613800138000"
		sentence = "%s is enabled and may sign in.\n"
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var out web.UserResponse
		if err := flags.post(cmd.Context(), path, web.UserRequest{Who: args[0]}, &out); err != nil {
			return err
		}
		return flags.done(cmd, out, sentence, out.ID)
	}
	return cmd
}

func usersEraseCommand(flags adminFlags) *cobra.Command {
	var yes, noCompact bool
	cmd := &cobra.Command{
		Use:   "erase WHO",
		Short: "Erase a user for good",
		Long: `Erase a user: destroy the key that the user's values are sealed under, remove
everything that leads to the user, and compact the data file, so that nothing is
left in its free pages either. The id is never used again; the same WeChat
account that signs in later is a new user. Backups made before still hold the
user until they are deleted.

Each compaction copies the data file. To erase several users, say --no-compact
and run "wxidp compact" after the last: the erasures are complete only then.
` + whoHelp,
		Example: `  wxidp users erase external:42
  wxidp users erase external:43 --yes --no-compact && wxidp compact`,
		Args: takes("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error { return eraseUser(cmd, flags, args[0], yes, !noCompact) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&noCompact, "no-compact", false, "leave compacting to a later \"wxidp compact\"")
	return cmd
}

func eraseUser(cmd *cobra.Command, flags adminFlags, who string, yes, compact bool) error {
	client, err := flags.admin()
	if err != nil {
		return err
	}
	// What is asked about is what is erased, whatever becomes of the name.
	var person accounts.Person
	if err := client.call(cmd.Context(), http.MethodPost, web.AdminUsersShow, web.ShowUserRequest{Who: who}, &person); err != nil {
		return err
	}
	if !yes && person.State != accounts.StateRetired {
		if err := confirmErasure(cmd, &person); err != nil {
			return err
		}
	}
	var out web.UserResponse
	if err := client.call(cmd.Context(), http.MethodPost, web.AdminUsersErase, web.UserRequest{Who: person.ID}, &out); err != nil {
		return err
	}
	if !compact {
		return flags.done(cmd, out, "%s is erased. The erasure is complete only after \"wxidp compact\".\n", out.ID)
	}
	result, err := compactData(cmd, client)
	if err != nil {
		return fmt.Errorf("%s is erased, but free pages of the data file may still hold sealed values; run \"wxidp compact\": %w", out.ID, err)
	}
	if result.Instead != "" {
		return flags.done(cmd, out, "%s is erased. What is left of it on the disk is for the database to reuse: %s.\n", out.ID, result.Instead)
	}
	return flags.done(cmd, out, "%s is erased, and the data file is compacted (%s of data, before %s).\n",
		out.ID, bytesText(result.SizeAfter), bytesText(result.SizeBefore))
}

func confirmErasure(cmd *cobra.Command, person *accounts.Person) error {
	in := cmd.InOrStdin()
	if !isTerminal(in) {
		return errors.New("nothing was erased: say --yes, since there is nobody to ask")
	}
	if err := printPerson(cmd.ErrOrStderr(), person); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "\nThis cannot be undone. Type the id to erase this user: ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != person.ID {
		return errors.New("nothing was erased: that is not the id")
	}
	return nil
}

func usersMergeCommand(flags adminFlags) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "merge FROM INTO",
		Short: "Move everything of one user to another",
		Long: `Move the WeChat accounts, the username with its password, the phone number and
the external id of FROM to INTO, and retire FROM: its sign-ins end and its id is
never used again. INTO keeps its id, profile and sign-ins.

This settles an identity.conflict in the log, where WeChat's openid leads to one
user and the unionid to another. Make sure that both are one person. Both in the
same mini-program, or both with a username, number or external id, are refused.
So is a disabled user, whom a merge could let in again.

FROM and INTO are named as WHO elsewhere.
` + whoHelp,
		Example: `  wxidp users merge 3vXqTtF0Qm2cI9hYkL8wZA tB7uYdE1RkC5oN2pWsXg4Q --dry-run
  wxidp users merge 3vXqTtF0Qm2cI9hYkL8wZA tB7uYdE1RkC5oN2pWsXg4Q`,
		Args: takes("FROM", "INTO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out web.MergeUsersResponse
			in := web.MergeUsersRequest{From: args[0], Into: args[1], DryRun: dryRun}
			if err := flags.post(cmd.Context(), web.AdminUsersMerge, in, &out); err != nil {
				return err
			}
			if *flags.json {
				return printJSON(cmd.OutOrStdout(), out)
			}
			return printMerge(cmd.OutOrStdout(), &out)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen")
	return cmd
}

func printMerge(w io.Writer, out *web.MergeUsersResponse) error {
	moves := []string{fmt.Sprintf("%d WeChat account(s)", out.Identities)}
	for _, part := range []struct {
		name string
		has  bool
	}{{"the username with its password", out.Username}, {"the phone number", out.Phone}, {"the external id", out.ExternalID}} {
		if part.has {
			moves = append(moves, part.name)
		}
	}
	format := "Merged %[1]s into %[2]s.\nMoved: %[3]s.\n%[1]s is retired, and its %[4]d sign-in(s) have ended.\n"
	if out.DryRun {
		format = "Would merge %[1]s into %[2]s. Nothing was changed.\nWould move: %[3]s.\n%[1]s would be retired, and its %[4]d sign-in(s) would end.\n"
	}
	_, err := fmt.Fprintf(w, format, out.From, out.Into, strings.Join(moves, ", "), out.SignIns)
	return err
}
