package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// untilSignal ends ctx at the first signal that asks the process to go, so that
// work is left in order. A second one ends the process.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// readUntilDone reads what r has until ctx ends: a Read that waits returns the
// error of ctx then, while that of r is left to itself.
func readUntilDone(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { _ = in.CloseWithError(ctx.Err()) }) // returns nil
	go func() {
		_, err := io.Copy(in, r)
		_ = in.CloseWithError(err) // returns nil
	}()
	return out
}

// readPassword asks for a password at a terminal, and reads the first line of
// anything else.
func readPassword(cmd *cobra.Command) (string, error) {
	in := cmd.InOrStdin()
	if isTerminal(in) {
		return askPassword(cmd.Context(), in.(*os.File), cmd.ErrOrStderr())
	}
	line, err := bufio.NewReaderSize(io.LimitReader(in, 4096), 4096).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	password := strings.TrimRight(line, "\r\n")
	if password == "" {
		return "", errors.New("standard input has no password in its first line")
	}
	return password, nil
}

// askPassword asks twice, since nobody sees what is typed.
func askPassword(ctx context.Context, terminal *os.File, prompts io.Writer) (string, error) {
	password, err := readHidden(ctx, terminal, prompts, "Password: ")
	switch {
	case err != nil:
		return "", err
	case password == "":
		return "", errors.New("nothing was changed: a password is not empty")
	}
	again, err := readHidden(ctx, terminal, prompts, "The same again: ")
	switch {
	case err != nil:
		return "", err
	case again != password:
		return "", errors.New("nothing was changed: the second password is not the first")
	}
	return password, nil
}

// readHidden reads a line from a terminal, which shows nothing of it and is as
// it was afterwards, whatever ends this.
func readHidden(ctx context.Context, terminal *os.File, prompts io.Writer, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	type typed struct {
		line []byte
		err  error
	}
	done := make(chan typed, 1)
	fmt.Fprint(prompts, prompt)
	go func() {
		line, err := term.ReadPassword(fd)
		done <- typed{line, err}
	}()
	select {
	case <-ctx.Done():
		err = errors.Join(errors.New("interrupted; nothing was changed"), term.Restore(fd, before))
		fmt.Fprintln(prompts)
		return "", err
	case in := <-done:
		fmt.Fprintln(prompts)
		if in.err != nil && !errors.Is(in.err, io.EOF) {
			return "", in.err
		}
		return string(in.line), nil
	}
}
