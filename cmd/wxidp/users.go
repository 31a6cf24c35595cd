package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/accounts"
	"github.com/wxidp/wxidp/web"
)

// whoHelp explains how users are named.
const whoHelp = `
WHO is the user's id (the sub of tokens), or one of
  username:NAME   phone:+8613800138000   external:ID   wechat:APPID/OPENID`

func usersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "users",
		Short: "Find, add, import, disable, unbind, merge, export and erase the users of the running server",
		Long: `Manage the users of the running server through its admin socket. What is done
takes effect on the next request.
` + whoHelp,
		Example: `  wxidp users list --limit 20
  wxidp users show phone:+8613800138000
  wxidp users disable username:ming`,
		Args: cobra.NoArgs, // with RunE, so that a misspelt command is an error
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := newAdminFlags(cmd)
	cmd.AddCommand(
		usersListCommand(flags), usersShowCommand(flags), usersAddCommand(flags), usersPasswordCommand(flags), usersUnbindCommand(flags),
		usersStateCommand(flags, "disable", web.AdminUsersDisable), usersStateCommand(flags, "enable", web.AdminUsersEnable),
		usersEraseCommand(flags), usersExportCommand(flags), usersMergeCommand(flags), usersImportCommand(flags),
	)
	return cmd
}

func usersListCommand(flags adminFlags) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users",
		Long: `List all users in order of their ids, page by page. WAYS IN says how a user can
sign in: with how many WeChat accounts, by password, by phone number, and
whether the product knows the user by an id of its own. A retired user was
merged into another or erased; the id stays so that it is never used again.
With --json every user is one line.`,
		Example: `  wxidp users list
  wxidp users list --json | jq -r 'select(.state == "disabled") | .id'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return listUsers(cmd, flags, limit) },
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "list no more than so `many` (default all)")
	return cmd
}

func listUsers(cmd *cobra.Command, flags adminFlags, limit int) error {
	if err := checkLimit(limit); err != nil {
		return err
	}
	client, err := flags.admin()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	lines := json.NewEncoder(out)
	if !*flags.json {
		fmt.Fprintf(out, "%-22s  %-19s  %-8s  %-34s  %s\n", "ID", "CREATED", "STATE", "WAYS IN", "NICKNAME")
	}
	for after, left := "", limit; ; {
		query := url.Values{"after": {after}}
		if limit > 0 {
			query.Set("limit", strconv.Itoa(min(left, 1000)))
		}
		var page web.UsersResponse
		if err := client.call(cmd.Context(), http.MethodGet, web.AdminUsers+"?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		for i := range page.Users {
			user := &page.Users[i]
			if *flags.json {
				err = lines.Encode(user)
			} else {
				_, err = fmt.Fprintf(out, "%-22s  %-19s  %-8s  %-34s  %s\n",
					user.ID, when(user.CreatedAt), user.State, waysIn(user), orDash(user.Nickname))
			}
			if err != nil {
				return err
			}
		}
		left -= len(page.Users)
		if after = page.Next; after == "" || limit > 0 && left <= 0 {
			return nil
		}
	}
}

func waysIn(user *web.UserLine) string {
	var ways []string
	if user.Identities > 0 {
		ways = append(ways, fmt.Sprintf("wechat×%d", user.Identities))
	}
	for _, way := range []struct {
		name string
		has  bool
	}{{"password", user.Password}, {"phone", user.Phone}, {"external", user.ExternalID}} {
		if way.has {
			ways = append(ways, way.name)
		}
	}
	return orDash(strings.Join(ways, ", "))
}

func usersShowCommand(flags adminFlags) *cobra.Command {
	var reveal bool
	cmd := &cobra.Command{
		Use:   "show WHO",
		Short: "Show a user with WeChat accounts and sign-ins",
		Long: `Show what is kept about a user. Personal values are masked (138****1234);
--reveal shows them, and the server's log says that somebody looked.
` + whoHelp,
		Example: `  wxidp users show external:42
  wxidp users show wechat:wx0123456789abcdef/oABCdefGHIjklMNOpqrSTUvwxyz12 --reveal`,
		Args: takes("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var person accounts.Person
			if err := flags.post(cmd.Context(), web.AdminUsersShow, web.ShowUserRequest{Who: args[0], Reveal: reveal}, &person); err != nil {
				return err
			}
			if *flags.json {
				return printJSON(cmd.OutOrStdout(), person)
			}
			return printPerson(cmd.OutOrStdout(), &person)
		},
	}
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show personal values in full")
	return cmd
}

func printPerson(w io.Writer, p *accounts.Person) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" && value != "-" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	line("id", p.ID)
	line("state", p.State)
	line("created", when(p.CreatedAt))
	line("profile changed", when(p.UpdatedAt))
	line("nickname", printable(p.Profile.Nickname))
	line("picture", printable(p.Profile.Picture))
	line("username", printable(p.Username))
	if p.HasPassword {
		line("password", "yes")
	}
	line("phone", printable(p.Phone))
	line("phone verified", when(p.PhoneVerifiedAt))
	line("external id", printable(p.ExternalID))
	line("roles", printable(strings.Join(p.Roles, ", ")))
	for _, name := range slices.Sorted(maps.Keys(p.Claims)) {
		line("claim "+printable(name), printable(string(p.Claims[name])))
	}
	if len(p.Identities) > 0 {
		fmt.Fprintln(table, "\nAPPID\tOPENID\tUNIONID\tOPEN PLATFORM\tLINKED")
		for _, i := range p.Identities {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", orDash(i.AppID), orDash(i.WeChatOpenID), orDash(i.UnionID), orDash(i.OpenPlatform), when(i.LinkedAt))
		}
	}
	if len(p.SignIns) > 0 {
		fmt.Fprintln(table, "\nSID\tCLIENT\tSIGNED IN\tLAST REFRESH\tEXPIRES\tSTATE")
		for i := range p.SignIns {
			s := &p.SignIns[i]
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, orDash(s.ClientID), when(s.CreatedAt), when(s.LastRefreshAt), when(s.ExpiresAt), signInState(s))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if p.MoreSignIns {
		fmt.Fprintln(w, "… and more: `wxidp sessions list --user` lists all of them")
	}
	return nil
}

func signInState(s *accounts.SignIn) string {
	if s.EndedFor != "" {
		return s.State + " (" + printable(s.EndedFor) + ")"
	}
	return s.State
}

func usersExportCommand(flags adminFlags) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "export WHO",
		Short: "Write everything kept about a user as JSON",
		Long: `Write one JSON document with everything that is kept about a user: profile,
WeChat accounts with openid and unionid, username, phone number, external id,
roles and claims, and all sign-ins with their times. It has no password hash,
session_key or token. The server's log says that the user was exported.
` + whoHelp,
		Example: `  wxidp users export external:42 -o user-42.json`,
		Args:    takes("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := flags.admin()
			if err != nil {
				return err
			}
			body, err := client.open(cmd.Context(), http.MethodPost, web.AdminUsersExport, web.UserRequest{Who: args[0]})
			if err != nil {
				return err
			}
			defer body.Close()
			var document json.RawMessage
			if err := json.NewDecoder(body).Decode(&document); err != nil {
				return fmt.Errorf("the export is not complete: %w", err)
			}
			if file == "" {
				return printJSON(cmd.OutOrStdout(), document)
			}
			return writePrivate(file, func(w io.Writer) error { return printJSON(w, document) })
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to this `file`, readable by its owner only; it must not exist")
	return cmd
}

// writePrivate makes a file that only its owner may read, whole or not at all.
func writePrivate(path string, write func(io.Writer) error) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	return write(file)
}
