package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
)

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration and a master key",
		Long: `Write config.yaml and data/master.key into a folder. Nothing that exists is
ever overwritten. Keep a copy of the master key in a safe place: without it the
data cannot be read.`,
		Args: takes(),
	}
	dir := cmd.Flags().String("dir", ".", "the `folder` to write into")
	var params config.InitParams
	cmd.Flags().StringVar(&params.Issuer, "issuer", "", "URL under which clients reach wxidp (default http://127.0.0.1:8080)")
	cmd.Flags().StringVar(&params.AppID, "appid", "", "AppID of the mini-program")
	cmd.Flags().StringVar(&params.ClientID, "client-id", "", "OAuth client_id of the mini-program (default shop-mini)")
	cmd.Flags().StringVar(&params.Audience, "audience", "", "aud of access tokens: the API they are for")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		harden()
		configFile, key := filepath.Join(*dir, "config.yaml"), filepath.Join(*dir, "data", "master.key")
		if err := writeInstallation(*dir, params, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), `Wrote %s and %s.

Next:
  1. edit the configuration: issuer, appid, clients
  2. export WECHAT_SECRET=...        # the AppSecret of the mini-program
  3. wxidp check --config %s
  4. wxidp serve --config %s

Copy the master key to a safe place: without it the data cannot be read.
`, configFile, key, configFile, configFile)
		return err
	}
	return cmd
}

// writeInstallation writes config.yaml, data/master.key and more files (by
// path below dir), all readable by their owner only, or nothing if one of them
// exists.
func writeInstallation(dir string, params config.InitParams, more map[string]string) error {
	files := map[string]string{
		"config.yaml":     string(config.InitFile(params)),
		"data/master.key": seal.GenerateKey() + "\n",
	}
	for name, content := range more {
		files[name] = content
	}
	for name := range files {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = fmt.Errorf("%s is there already; nothing was written", path)
			}
			return err
		}
	}
	// config.yaml is first by name: last, it says that the rest is complete.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(files))) {
		if err := writeNew(filepath.Join(dir, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

func writeNew(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	if err == nil {
		// A master key that a power cut takes away takes the data with it.
		err = file.Sync()
	}
	return errors.Join(err, file.Close(), syncFolder(filepath.Dir(path)))
}

// syncFolder makes a new directory entry durable, where the system can.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := folder.Sync(); err != nil && runtime.GOOS != "windows" {
		_ = folder.Close() // the first error is the one to tell
		return err
	}
	return folder.Close()
}
