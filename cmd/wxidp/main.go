// Command wxidp is an OAuth 2.0 and OpenID Connect identity provider for
// WeChat mini-programs. See `wxidp --help`.
package main

import (
	"context"
	"io"
	"os"
	"runtime"
)

func main() {
	runtime.MemProfileRate = 8 << 20 // the default takes a percent of the CPU
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command line and returns the exit code: 0 for success, 1 for
// any failure, which has been written to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		printError(stderr, err)
		return 1
	}
	return 0
}
