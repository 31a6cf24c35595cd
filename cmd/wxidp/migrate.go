package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage/postgres"
)

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Manage the schema of a PostgreSQL database, and move data to it or from it",
		Long: `Manage the schema of the database of storage.driver: postgres, which the data
file of the driver bolt has not; and move everything from one to the other.

serve refuses a database whose schema it does not know, so run
"wxidp migrate up" before the first start and with each upgrade. Where several
nodes do so at once, one works and the others wait for it.

The user that serves needs no right to change tables: with --dsn-file the
schema can belong to another one.`,
		Args: cobra.NoArgs, // with RunE, so that a misspelt command is an error
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(migrateUpCommand(), migrateStatusCommand(), migrateDataCommand())
	return cmd
}

var errNewerSchema = errors.New("a newer program has migrated the database; use that one")

func migrateUpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Apply the migrations that the database lacks",
		Long: `Apply the migrations that the database lacks. Where it lacks none, that is
no error; where a newer program has migrated it, the exit code is 1.`,
		Example: `  wxidp migrate up --config /etc/wxidp/config.yaml
  wxidp migrate up --dsn-file /run/secrets/owner-dsn   # as the owner of the tables`,
		Args: takes(),
	}
	database := databaseFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dsn, err := database()
		if err != nil {
			return err
		}
		applied, err := postgres.Migrate(cmd.Context(), dsn, func(name string) {
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "applied", name) // the work goes on without a reader
		})
		if err != nil {
			return err
		}
		if len(applied) > 0 {
			return nil
		}
		schema, err := postgres.MigrateStatus(cmd.Context(), dsn)
		switch {
		case err != nil:
			return err
		case schema.Version > schema.Known:
			return errNewerSchema
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "the database is up to date")
		return err
	}
	return cmd
}

// migrateStatus is what `wxidp migrate status --json` prints.
type migrateStatus struct {
	Version int64    `json:"version"`
	Known   int64    `json:"known"`
	Pending []string `json:"pending"`
}

func migrateStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say which schema the database has",
		Long: `Say which schema the database has and which this program works with. The exit
code is 1 where they differ.`,
		Args: takes(),
	}
	database := databaseFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of text")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dsn, err := database()
		if err != nil {
			return err
		}
		schema, err := postgres.MigrateStatus(cmd.Context(), dsn)
		if err != nil {
			return err
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), migrateStatus{schema.Version, schema.Known, append([]string{}, schema.Pending...)})
		} else {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the database has schema version %d; this program works with %d\n", schema.Version, schema.Known)
		}
		switch {
		case err != nil:
			return err
		case schema.Version > schema.Known:
			return errNewerSchema
		case !schema.Current():
			return fmt.Errorf("not applied yet: %s; run wxidp migrate up", strings.Join(schema.Pending, ", "))
		}
		return nil
	}
	return cmd
}

// databaseFlags adds the flags by which a command finds the database.
func databaseFlags(flags *pflag.FlagSet) func() (secret.String, error) {
	path := configFlag(flags)
	dsnFile := flags.String("dsn-file", "", "`file` that holds the DSN; the configuration is not read then, which has every other secret, too")
	return func() (secret.String, error) {
		if *dsnFile != "" {
			return config.ReadSecret(*dsnFile, false)
		}
		loaded, err := config.Load(*path, os.Environ())
		if err != nil {
			return secret.String{}, err
		}
		if loaded.Config.Storage.Driver != config.DriverPostgres {
			return secret.String{}, errors.New("storage.driver is " + loaded.Config.Storage.Driver + ", which has no schema to migrate")
		}
		return loaded.Config.Storage.Postgres.DSN, nil
	}
}
