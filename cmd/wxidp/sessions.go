package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/web"
)

func sessionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List and end the sign-ins at the running server",
		Long: `List and end sign-ins at the running server through its admin socket. A sign-in
is one user at one client on one device; its id is the sid of the tokens. It
goes on by refresh tokens until it expires or is ended.`,
		Example: `  wxidp sessions list --user phone:+8613800138000
  wxidp sessions revoke --user phone:+8613800138000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := newAdminFlags(cmd)
	cmd.AddCommand(sessionsListCommand(flags), sessionsRevokeCommand(flags))
	return cmd
}

func sessionsListCommand(flags adminFlags) *cobra.Command {
	var in web.SessionsRequest
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List sign-ins, the oldest first",
		Long: `List the sign-ins that are active, the oldest first: all of them, or those of one
user or client. --all lists also those that have ended or expired and are not
deleted yet. With --json every sign-in is one line.
` + whoHelp,
		Example: `  wxidp sessions list --user external:42
  wxidp sessions list --client shop-mini --json | wc -l`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return listSessions(cmd, flags, in, limit) },
	}
	cmd.Flags().StringVar(&in.Who, "user", "", "only those of this user (`WHO`)")
	cmd.Flags().StringVar(&in.ClientID, "client", "", "only those at this `client`")
	cmd.Flags().BoolVar(&in.All, "all", false, "also those that have ended or expired")
	cmd.Flags().IntVar(&limit, "limit", 0, "list no more than so `many` (default all)")
	return cmd
}

func listSessions(cmd *cobra.Command, flags adminFlags, in web.SessionsRequest, limit int) error {
	if err := checkLimit(limit); err != nil {
		return err
	}
	client, err := flags.admin()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	lines := json.NewEncoder(out)
	head := true
	for n := 0; ; {
		var page web.SessionsResponse
		if err := client.call(cmd.Context(), http.MethodPost, web.AdminSessions, in, &page); err != nil {
			return err
		}
		if head && !*flags.json {
			fmt.Fprintf(out, sessionLine, "SID", "USER", "CLIENT", "SIGNED IN", "LAST REFRESH", "EXPIRES", "STATE")
		}
		head = false
		for i := range page.SignIns {
			if *flags.json {
				err = lines.Encode(&page.SignIns[i])
			} else {
				err = printSession(out, &page.SignIns[i])
			}
			if err != nil {
				return err
			}
			if n++; n == limit {
				return nil
			}
		}
		if in.After = page.Next; in.After == "" {
			return nil
		}
	}
}

const sessionLine = "%-22s  %-22s  %-16s  %-19s  %-19s  %-19s  %s\n"

func printSession(w io.Writer, s *accounts.SignIn) error {
	_, err := fmt.Fprintf(w, sessionLine, s.ID, s.UserID, orDash(s.ClientID), when(s.CreatedAt), when(s.LastRefreshAt), when(s.ExpiresAt), signInState(s))
	return err
}

func sessionsRevokeCommand(flags adminFlags) *cobra.Command {
	var in web.RevokeSessionsRequest
	cmd := &cobra.Command{
		Use:   "revoke [SID]",
		Short: "End a sign-in, or all of a user or client",
		Long: `End one sign-in by its sid, all of a user's, or all at a client. From the next
request on refresh tokens are refused, introspection says inactive and UserInfo
answers 401. An access token that a resource server checks by itself goes on
until it expires. Users may sign in anew.

--client is also for a client that was removed from the configuration: its
sign-ins would be alive again if it came back.
` + whoHelp,
		Example: `  wxidp sessions revoke AZ2kq0mVQ5yJ4tq7RrCk9g
  wxidp sessions revoke --user username:ming
  wxidp sessions revoke --client shop-mini`,
		Args: takes("[SID]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			named := 0
			if len(args) == 1 {
				in.SID = args[0]
			}
			for _, name := range []string{in.SID, in.Who, in.ClientID} {
				if name != "" {
					named++
				}
			}
			if named != 1 {
				return errors.New("name exactly one of a sid, --user and --client")
			}
			var out web.RevokeSessionsResponse
			if err := flags.post(cmd.Context(), web.AdminSessionsRevoke, in, &out); err != nil {
				return err
			}
			return flags.done(cmd, out, "%s", revokedText(&out))
		},
	}
	cmd.Flags().StringVar(&in.Who, "user", "", "all sign-ins of this user (`WHO`)")
	cmd.Flags().StringVar(&in.ClientID, "client", "", "all sign-ins at this `client`")
	return cmd
}

func revokedText(out *web.RevokeSessionsResponse) string {
	switch {
	case out.UserID != "":
		return "All sign-ins of " + out.UserID + " have ended.\n"
	case out.UnknownClient:
		return "All sign-ins at " + printable(out.ClientID) + " have ended. No client of that name is configured now: check the spelling.\n"
	case out.ClientID != "":
		return "All sign-ins at " + printable(out.ClientID) + " have ended.\n"
	}
	return "The sign-in " + out.SID + " has ended.\n"
}
