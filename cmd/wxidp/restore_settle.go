package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/storage"
)

const (
	afterRestoreUsage = "`choice` about the sign-ins in data that were restored from a backup: " +
		"revoke-all or accept. To be said once, at the first start after restoring"

	// settleLogEvery is the pause between log lines about the progress.
	settleLogEvery = 10 * time.Second
)

// undecidedError says that restored data must not be served without a choice.
type undecidedError struct{ restored storage.Restored }

func (e *undecidedError) Error() string {
	return "the data come out of a backup" + takenText(e.restored.TakenAt) + ", so that what was done since is undone: devices that " +
		"were signed out, users who were disabled or erased, passwords, phone numbers and bindings that were changed, consents and keys " +
		"that were revoked may be as they were. Nothing was started. Start once with --after-restore=revoke-all, which ends all sign-ins, so " +
		"that everybody signs in again, or with --after-restore=accept, which lets them go on; neither brings back the rest: see docs/backup.md"
}

func takenOr(at time.Time) string {
	if at.IsZero() {
		return "unknown"
	}
	return at.UTC().Format(time.RFC3339)
}

func takenText(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return " of " + takenOr(at)
}

// checkAfterRestore judges --after-restore.
func checkAfterRestore(value string) (storage.RestoreChoice, error) {
	switch choice := storage.RestoreChoice(value); choice {
	case "", storage.RestoreAccept, storage.RestoreRevokeAll:
		return choice, nil
	}
	return "", fmt.Errorf("--after-restore is %s or %s, not %q", storage.RestoreRevokeAll, storage.RestoreAccept, value)
}

// settleRestored carries out what was chosen about data that come out of a
// backup. restoredAt is when that was, zero where it never was: what was good
// for one use before may be presented again since.
func settleRestored(
	ctx context.Context, store storage.Store, choice storage.RestoreChoice, c *config.Config, log *slog.Logger,
) (restoredAt time.Time, err error) {
	begin, told := time.Now(), time.Now()
	progress := func(n storage.RestoreCounts) {
		if time.Since(told) >= settleLogEvery {
			told = time.Now()
			log.Info("what restored data bring back is being ended", "event", "restore.settling",
				"families", n.Families, "login_sessions", n.Logins, "others", n.Others)
		}
	}
	restored, n, settled, err := storage.Settle(ctx, store, choice, notifiedClients(c), progress)
	switch {
	case errors.Is(err, storage.ErrUndecided):
		return time.Time{}, &undecidedError{restored}
	case errors.Is(err, storage.ErrRevokeAllBegun):
		return time.Time{}, errors.New("ending all sign-ins of the restored data has begun, so they cannot all be accepted any more; " +
			"start with --after-restore=revoke-all, or without the flag, to finish it")
	case err != nil:
		return time.Time{}, err
	case settled:
		log.Warn("the data come out of a backup; what was chosen about its sign-ins is done", "event", "restore.settled",
			"choice", string(restored.Choice), "backup_of", takenOr(restored.TakenAt), "families", n.Families, "login_sessions", n.Logins, "others", n.Others,
			"elapsed", time.Since(begin).Round(time.Millisecond).String())
	case choice != "":
		log.Info("--after-restore is given and there is nothing to choose; leave it out, or the next backup that is restored will not be asked about",
			"event", "restore.nothing", "choice", string(choice))
	}
	return restored.SettledAt, nil
}

// notifiedClients are the clients that are told of logouts.
func notifiedClients(c *config.Config) (ids []string) {
	for i := range c.Clients {
		if c.Clients[i].BackchannelLogoutURI != "" {
			ids = append(ids, c.Clients[i].ClientID)
		}
	}
	return ids
}
