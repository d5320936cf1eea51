package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/policy"
	"imapwarden/store"
)

// records is what commands work on: a running server's, over its admin socket,
// or the store itself where no server runs.
type records struct {
	config   *configs.Config // as it is now, as far as the command asked for it
	names    auth.Names
	mode     auth.Mode // of the configuration as it is now
	accounts accounts
	events   admin.Events
	bans     bans
	// certificates are what a server shows its clients.
	certificates func(ctx context.Context) ([]admin.Certificate, error)
	explain      func(ctx context.Context, account string, source netip.Addr) (admin.Explanation, error)
	rotate       func(context.Context) (auth.Rotation, error)
	served       bool         // a running server's
	lost         error        // a change was made and could not be recorded in the audit
	close        func() error // ends the use of it
}

// withRecords makes a command of one that needs records, and of the configuration
// no more than who holds them, and the top level keys named.
func (o *options) withRecords(do func(ctx context.Context, r *records, args []string) error, keys ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		// Who looks after accounts need not be able to read a certificate's key.
		config, _, err := o.load(append(keys, "hostname", "default_domain", "account_names", "store", "admin", "mfa")...)
		if err != nil {
			return err
		}
		r, err := openRecords(cmd.Context(), config)
		if err != nil {
			return err
		}
		err = do(cmd.Context(), r, args)
		return errors.Join(err, r.lost, r.close())
	}
}

// withServer makes a command of one that needs the running server.
func (o *options) withServer(do func(ctx context.Context, client *admin.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		config, _, err := o.load("admin")
		if err != nil {
			return err
		}
		client, err := dialServer(cmd.Context(), config)
		if err != nil {
			return err
		}
		if client == nil {
			return fmt.Errorf("%s, and only a running server has sessions", unserved(config))
		}
		return errors.Join(do(cmd.Context(), client, args), client.Close())
	}
}

// unserved says why no server was asked.
func unserved(config *configs.Config) string {
	if config.Admin.Socket == "" {
		return "admin.socket is empty, so a server, if one runs, can't be asked"
	}
	return fmt.Sprintf("no server answers at admin.socket %q", config.Admin.Socket)
}

// openRecords asks the running server. It opens the store itself only where
// nothing listens, and not where a server may well be at work behind a socket
// that we just can't use.
func openRecords(ctx context.Context, config *configs.Config) (*records, error) {
	client, err := dialServer(ctx, config)
	if err != nil {
		return nil, err
	}
	r := &records{config: config, names: names(config), mode: auth.Mode(config.MFA.Mode)}
	if client == nil {
		return r, r.openStore(ctx, config)
	}
	r.accounts, r.events, r.bans, r.explain, r.rotate = client, client, client, client.Explain, client.Rotate
	r.certificates = client.Certificates
	r.served, r.close = true, client.Close
	return r, nil
}

// dialServer returns a client of the running server, and nil where none runs.
func dialServer(ctx context.Context, config *configs.Config) (*admin.Client, error) {
	if config.Admin.Socket == "" {
		return nil, nil
	}
	client, err := admin.Dial(ctx, config.Admin.Socket)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run this as root, or as the user that imapwarden runs as", err)
	}
	return client, err
}

// openStore makes the records those of the store itself.
func (r *records) openStore(ctx context.Context, config *configs.Config) error {
	if strings.HasPrefix(config.Store.URL, "memory:") {
		return fmt.Errorf("%s, and what store.url = %q holds ends with its server: start one with 'imapwarden serve'",
			unserved(config), config.Store.URL)
	}
	if err := checkOwner(config.Store); err != nil {
		return err
	}
	opened, err := store.Open(ctx, config.Store.URL)
	if err != nil {
		return err
	}
	keys, err := auth.OpenKeys(ctx, config.Store.KeyFile, opened)
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	by := fmt.Sprintf("uid %d by command line", os.Getuid())
	lost := func(err error) { r.lost = errors.Join(r.lost, err) }
	signed := admin.Signed(directory(config, opened, keys), opened, by, lost)
	r.bans = admin.SignBans(policy.Book{Memory: opened}, opened, by, lost)
	r.accounts, r.events, r.close = signed, opened, opened.Close
	r.certificates = storedCertificates(config, certs.NewStorage(opened, fileKeys{keys}, time.Now))
	r.explain = func(ctx context.Context, account string, source netip.Addr) (admin.Explanation, error) {
		name, err := r.names.Canonical(account)
		if err != nil {
			return admin.Explanation{}, err
		}
		rules, _ := rules(config, zap.NewNop()) // what is wrong with their files is said, see explainable
		e, err := explanation(ctx, config, rules, signed, name, source)
		if err != nil {
			return e, err
		}
		e.Bans, err = r.bansOf(ctx, source)
		return e, err
	}
	r.rotate = func(ctx context.Context) (auth.Rotation, error) {
		rotation, err := rotateKeys(ctx, keys, opened)
		return rotation, errors.Join(err, admin.Record(ctx, opened, by, audit.Event{Kind: "key.rotate"}, err))
	}
	return nil
}

// bansOf returns the bans that keep the source out, by network.
func (r *records) bansOf(ctx context.Context, source netip.Addr) (list []admin.Ban, err error) {
	limits := r.config.Limits
	if limits.Mode == "observe" || slices.ContainsFunc(limits.Trusted, func(p netip.Prefix) bool { return p.Contains(source) }) {
		return nil, nil
	}
	all, err := r.bans.Bans(ctx)
	for _, ban := range all {
		if ban.Network.Contains(source) {
			list = append(list, ban)
		}
	}
	return list, err
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
