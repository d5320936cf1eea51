package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
)

func certificateCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "certificate",
		Short: "See the certificates that clients are shown, and renew one",
	})
	cmd.AddCommand(certificateListCommand(o), certificateRenewCommand(o))
	return cmd
}

func certificateListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the certificates, when they expire, and what is the matter with them",
		Args:  takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			list, err := r.certificates(ctx)
			if err != nil {
				return err
			}
			table := o.columns()
			if !o.json {
				fmt.Fprintln(table, "NAMES\tFROM\tISSUER\tKEY\tEXPIRES\tRENEWAL\tTROUBLE")
			}
			for _, c := range list {
				if o.json {
					if err := o.print(c); err != nil {
						return err
					}
					continue
				}
				line(table, strings.Join(c.Names, ","), c.Source, cmp.Or(c.Issuer, "-"), cmp.Or(c.Key, "-"),
					clockOrNot(c.Expires), clockOrNot(c.Renewal), certificateTrouble(c))
			}
			return table.Flush()
		}, "tls", "listener"),
	}
}

func clockOrNot(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return clock(t)
}

func certificateTrouble(c admin.Certificate) string {
	switch {
	case c.Trouble == "":
		return "-"
	case !c.NextTry.IsZero():
		return fmt.Sprintf("%s; tried again at %s", c.Trouble, clock(c.NextTry))
	}
	return c.Trouble
}

func certificateRenewCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "renew NAME",
		Short: "Get a new certificate for a name from the CA, at once",
		Long: `Get a new certificate for one of tls.acme.domains from the CA at once, whether it is time or
not, and use it. CAs count: Let's Encrypt gives five for the same name in a week. Certificates
are renewed in time without this; it is for one whose key may have been seen by others, and to
try anew after a cause of trouble has been removed.

The CA's question is answered by the running server, so one must run.`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, _, err := o.load("admin")
			if err != nil {
				return err
			}
			client, err := dialServer(cmd.Context(), config)
			if err != nil {
				return err
			}
			if client == nil {
				return fmt.Errorf("%s, and only a running server can answer the CA's question", unserved(config))
			}
			defer client.Close()
			name := strings.ToLower(args[0])
			if err := client.RenewCertificate(cmd.Context(), name); err != nil {
				return err
			}
			if o.json {
				return o.print(struct {
					Name string `json:"name"`
					Done string `json:"done"`
				}{name, "renewed"})
			}
			_, err = fmt.Fprintf(o.stdout, "%s: a new certificate is in use\n", name)
			return err
		},
	}
}

// shownCertificates are those of files and of the CA. It is an admin.Certificates.
type shownCertificates struct {
	files *certs.Files // nil: none
	acme  *certs.ACME  // nil: none
}

// Certificates returns all, those from files first.
func (s shownCertificates) Certificates(ctx context.Context) ([]admin.Certificate, error) {
	var list []admin.Certificate
	if s.files != nil {
		for _, c := range s.files.List() {
			list = append(list, admin.Certificate(c))
		}
	}
	if s.acme != nil {
		for _, c := range s.acme.List(ctx) {
			list = append(list, admin.Certificate(c))
		}
	}
	return list, nil
}

// RenewCertificate gets a new one from the CA.
func (s shownCertificates) RenewCertificate(ctx context.Context, name string) error {
	err := certs.ErrNoDomain
	if s.acme != nil {
		err = s.acme.Renew(ctx, name)
	}
	if errors.Is(err, certs.ErrNoDomain) {
		return &auth.Refusal{Reason: auth.NotFound, Message: fmt.Sprintf("%q is not in tls.acme.domains; to see the certificates, run: imapwarden certificate list", name)}
	}
	return err
}

// expiries are when the certificates that clients are shown expire, by a name of each.
func (s shownCertificates) expiries() map[string]time.Time {
	all := make(map[string]time.Time)
	if s.acme != nil {
		all = s.acme.Expires()
	}
	if s.files != nil {
		for _, c := range s.files.List() {
			for _, name := range c.Names {
				if known, ok := all[name]; !ok || c.Expires.Before(known) {
					all[name] = c.Expires
				}
			}
		}
	}
	return all
}

// storedCertificates are those that a server would show, by the files and the store.
func storedCertificates(config *configs.Config, storage *certs.Storage) func(context.Context) ([]admin.Certificate, error) {
	return func(ctx context.Context) ([]admin.Certificate, error) {
		shown := shownCertificates{}
		var err error
		if len(config.TLS.Certificates) > 0 {
			if shown.files, err = certificates(config.TLS, zap.NewNop()); err != nil {
				return nil, err
			}
		}
		if shown.acme, err = acme(config, storage, zap.NewNop()); err != nil {
			return nil, err
		}
		return shown.Certificates(ctx)
	}
}
