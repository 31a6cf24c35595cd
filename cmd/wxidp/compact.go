package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/web"
)

func compactCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Rid the running server's data file of free pages",
		Long: `Rewrite the data file of the running server without its free pages, which may
still hold what was deleted: erasures are complete only after this. The server
goes on meanwhile. It needs free space for a second file beside the first.`,
		Example: `  wxidp compact --config /etc/wxidp/config.yaml`,
		Args:    takes(),
	}
	flags := newAdminFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := flags.admin()
		if err != nil {
			return err
		}
		start := time.Now()
		out, err := compactData(cmd, client)
		if err != nil {
			return err
		}
		if out.Instead != "" {
			return errors.New("the storage engine leaves this to its database: " + out.Instead)
		}
		return flags.done(cmd, out, "Compacted: the data takes %s, before %s (%.1f s).\n",
			bytesText(out.SizeAfter), bytesText(out.SizeBefore), time.Since(start).Seconds())
	}
	return cmd
}

// compactData compacts and shows progress on standard error.
func compactData(cmd *cobra.Command, client *adminClient) (web.CompactProgress, error) {
	body, err := client.open(cmd.Context(), http.MethodPost, web.AdminCompact, nil)
	if err != nil {
		return web.CompactProgress{}, err
	}
	defer body.Close()
	progress := newProgress(cmd.ErrOrStderr())
	defer progress.clear()
	for lines := json.NewDecoder(body); ; {
		var state web.CompactProgress
		if err := lines.Decode(&state); err != nil {
			return web.CompactProgress{}, fmt.Errorf("the server went away before it was done: %w", err)
		}
		if state.Error != "" {
			return web.CompactProgress{}, errors.New("the data file was not compacted and stays as it was: " + state.Description)
		}
		if state.Done {
			return state, nil
		}
		progress.show("compacting: %s copied of at most %s", bytesText(state.Copied), bytesText(state.SizeBefore))
	}
}
