package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/web"
)

func usersPasswordCommand(flags adminFlags) *cobra.Command {
	var unbind bool
	cmd := &cobra.Command{
		Use:   "set-password WHO",
		Short: "Give a user another password and end the user's sign-ins",
		Long: `Give a user another password. A terminal asks for it without showing it; without
one it is the first line of standard input. All sign-ins of the user end.

WeChat accounts stay bound and sign in without any password: also one that a
stranger bound while knowing the old one. Where somebody else may have known it,
say --unbind, which then removes all WeChat accounts of the user. The owner binds
theirs anew with the new password.
` + whoHelp,
		Example: `  wxidp users set-password username:ming
  wxidp users set-password username:ming --unbind < password.txt`,
		Args: takes("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			return setPassword(cmd, flags, args[0], password, unbind)
		},
	}
	cmd.Flags().BoolVar(&unbind, "unbind", false, "also remove all WeChat accounts of the user")
	return cmd
}

func setPassword(cmd *cobra.Command, flags adminFlags, who, password string, unbind bool) error {
	var set web.SetPasswordResponse
	if err := flags.post(cmd.Context(), web.AdminUsersPassword, web.SetPasswordRequest{Who: who, Password: password}, &set); err != nil {
		return err
	}
	changed := fmt.Sprintf("The password of %s is changed, and the user's sign-ins have ended.\n", set.ID)
	switch {
	case unbind:
		out, err := unbindAll(cmd.Context(), flags, set)
		if err != nil {
			return fmt.Errorf("the password of %s is changed, but WeChat accounts may still be bound; run \"wxidp users unbind %s --all\": %w", set.ID, set.ID, err)
		}
		return flags.done(cmd, out, "%s%s", changed, unboundText(&out))
	case set.Identities > 0:
		return flags.done(cmd, set, "%s%d WeChat account(s) stay bound and sign in without it; \"wxidp users unbind %s --all\" removes them.\n",
			changed, set.Identities, set.ID)
	}
	return flags.done(cmd, set, "%s", changed)
}

// unbindAll removes the WeChat accounts of a user who has another password.
func unbindAll(ctx context.Context, flags adminFlags, user web.SetPasswordResponse) (web.UnbindUserResponse, error) {
	out := web.UnbindUserResponse{ID: user.ID, AppIDs: []string{}}
	if user.Identities == 0 {
		return out, nil
	}
	err := flags.post(ctx, web.AdminUsersUnbind, web.UnbindUserRequest{Who: user.ID, All: true}, &out)
	return out, err
}

func usersUnbindCommand(flags adminFlags) *cobra.Command {
	var in web.UnbindUserRequest
	cmd := &cobra.Command{
		Use:   "unbind WHO",
		Short: "Remove a WeChat account from a user",
		Long: `Remove a user's WeChat account in one mini-program, or all of them, and end what
was signed in with it. The user keeps everything else. The WeChat account belongs
to nobody then: it may be bound anew, and what it signs in to silently is another
user.

Without --appid and --all the user's only WeChat account is removed; of a user
with several, "wxidp users show" lists the appids. Mini-programs of one open
platform know a person by one unionid: while one stays, the other leads back, so
a stranger is put out by --all.

The last way in is not removed. An access token that a resource server checks by
itself, without asking, goes on until it expires (15 minutes by default).
` + whoHelp,
		Example: `  wxidp users unbind username:ming
  wxidp users unbind external:42 --appid wx0123456789abcdef
  wxidp users unbind phone:+8613800138000 --all`,
		Args: takes("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Who = args[0]
			var out web.UnbindUserResponse
			if err := flags.post(cmd.Context(), web.AdminUsersUnbind, in, &out); err != nil {
				return err
			}
			return flags.done(cmd, out, "%s", unboundText(&out))
		},
	}
	cmd.Flags().StringVar(&in.AppID, "appid", "", "remove the WeChat account in the mini-program of this `appid`")
	cmd.Flags().BoolVar(&in.All, "all", false, "remove all WeChat accounts of the user")
	cmd.MarkFlagsMutuallyExclusive("appid", "all")
	return cmd
}

func unboundText(out *web.UnbindUserResponse) string {
	if len(out.AppIDs) == 0 {
		return out.ID + " has no WeChat account.\n"
	}
	text := fmt.Sprintf("Removed %d WeChat account(s) from %s, in %s; the user's sign-ins have ended. %d left.\n",
		len(out.AppIDs), out.ID, printable(strings.Join(out.AppIDs, ", ")), out.Identities)
	if len(out.LeadBack) > 0 {
		text += fmt.Sprintf("By a unionid that is left, the next sign-in in %s is this user again; --all removes every WeChat account.\n",
			printable(strings.Join(out.LeadBack, ", ")))
	}
	return text
}
