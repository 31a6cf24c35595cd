package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// takes demands one argument of each name. A name in brackets may be left out;
// an empty argument, such as a shell variable without a value, is none.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var missing []string
		for i, name := range names {
			if !strings.HasPrefix(name, "[") && (i >= len(args) || args[i] == "") {
				missing = append(missing, name)
			}
		}
		var text string
		switch {
		case len(missing) == 1:
			text = missing[0] + " is missing"
		case len(missing) > 1:
			text = strings.Join(missing, " and ") + " are missing"
		case len(args) <= len(names):
			return nil
		case len(names) == 0:
			text = "it takes no arguments, only flags"
		default:
			text = fmt.Sprintf("it takes no more than %s, and there are %d arguments; a value with spaces stands in quotes", strings.Join(names, " and "), len(args))
		}
		path := cmd.CommandPath()
		_, command, _ := strings.Cut(path, " ")
		return fmt.Errorf("%s: %s; see \"%s --help\"", command, text, path)
	}
}

// checkLimit judges --limit.
func checkLimit(limit int) error {
	if limit < 0 {
		return errors.New("--limit is a number of lines, from 1; leave it out for all")
	}
	return nil
}
