package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/configs"
	"imapwarden/store"
)

// records is what commands work on: a running server's, over its admin socket,
// or the store itself where no server runs.
type records struct {
	names    auth.Names
	mode     auth.Mode // of the configuration as it is now
	accounts accounts
	events   admin.Events
	lost     error        // a change was made and could not be recorded in the audit
	close    func() error // ends the use of it
}

// withRecords makes a command of one that needs records.
func (o *options) withRecords(do func(ctx context.Context, r *records, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		// Who looks after accounts need not be able to read a certificate's key.
		config, _, err := o.load("hostname", "default_domain", "account_names", "store", "admin", "mfa")
		if err != nil {
			return err
		}
		r, err := openRecords(cmd.Context(), config)
		if err != nil {
			return err
		}
		r.mode = auth.Mode(config.MFA.Mode)
		err = do(cmd.Context(), r, args)
		return errors.Join(err, r.lost, r.close())
	}
}

// openRecords asks the running server. It opens the store itself only where
// nothing listens, and not where a server may well be at work behind a socket
// that we just can't use.
func openRecords(ctx context.Context, config *configs.Config) (*records, error) {
	if config.Admin.Socket == "" {
		return openStore(ctx, config)
	}
	client, err := admin.Dial(ctx, config.Admin.Socket)
	switch {
	case err == nil:
		return &records{names: names(config), accounts: client, events: client, close: client.Close}, nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return openStore(ctx, config)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run this as root, or as the user that imapwarden runs as", err)
	}
	return nil, err
}

func openStore(ctx context.Context, config *configs.Config) (*records, error) {
	if strings.HasPrefix(config.Store.URL, "memory:") {
		return nil, fmt.Errorf("no server answers at admin.socket %q, and what store.url = %q holds ends with its server: start one with 'imapwarden serve'",
			config.Admin.Socket, config.Store.URL)
	}
	if err := checkOwner(config.Store); err != nil {
		return nil, err
	}
	opened, err := store.Open(ctx, config.Store.URL)
	if err != nil {
		return nil, err
	}
	keys, err := auth.OpenKeys(ctx, config.Store.KeyFile, opened)
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	r := &records{names: names(config), events: opened}
	by := fmt.Sprintf("uid %d by command line", os.Getuid())
	r.accounts = admin.Signed(directory(config, opened, keys), opened, by, func(err error) { r.lost = err })
	r.close = opened.Close
	return r, nil
}

// checkOwner keeps root from making a store that the server can't open later.
func checkOwner(c configs.Store) error {
	file := strings.TrimPrefix(c.URL, "sqlite:")
	if _, err := os.Stat(file); err == nil || os.Geteuid() != 0 {
		return nil
	}
	for _, folder := range []string{filepath.Dir(file), filepath.Dir(c.KeyFile)} {
		info, err := os.Stat(folder)
		if err != nil {
			continue // whoever makes the file says so better
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
			return fmt.Errorf("there is no store yet, %s belongs to uid %d, and the server couldn't open what root makes there: "+
				"start the server first, or run this as that user", folder, owner)
		}
	}
	return nil
}
