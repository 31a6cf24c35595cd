package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildVersion is set by the linker for releases.
var buildVersion string

// buildInfo is what `wxidp version` prints.
type buildInfo struct {
	Version, Commit, Go string
}

func version() buildInfo {
	info := buildInfo{Version: "devel", Commit: "unknown", Go: runtime.Version()}
	if build, ok := debug.ReadBuildInfo(); ok {
		if build.Main.Version != "" && build.Main.Version != "(devel)" {
			info.Version = build.Main.Version
		}
		for _, setting := range build.Settings {
			if setting.Key == "vcs.revision" {
				info.Commit = setting.Value
			}
		}
	}
	if buildVersion != "" {
		info.Version = buildVersion
	}
	return info
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Args:  takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "wxidp %s (commit %s, %s %s/%s)\n", v.Version, v.Commit, v.Go, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
