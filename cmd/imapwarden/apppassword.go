package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/auth"
	"imapwarden/configs"
)

// appPasswords are those of the directory.
type appPasswords interface {
	CreateAppPassword(ctx context.Context, wanted auth.NewAppPassword) (auth.IssuedAppPassword, error)
	AppPasswords(ctx context.Context, name string) ([]auth.AppPasswordSummary, error)
	RevokeAppPassword(ctx context.Context, name, id string) error
	RevokeAppPasswords(ctx context.Context, name string) (n int, err error)
}

// forUpstreams are the keys that say which upstream an account has, and how we log in there.
var forUpstreams = []string{"upstream", "route"}

func appPasswordCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "app-password",
		Short: "Issue a password of its own to each device, and take it away again",
	})
	cmd.AddCommand(
		appPasswordCreateCommand(o),
		appPasswordListCommand(o),
		appPasswordRevokeCommand(o),
	)
	return cmd
}

func appPasswordCreateCommand(o *options) *cobra.Command {
	var wanted auth.NewAppPassword
	var expires string
	var networks []string
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "create NAME --label LABEL",
		Short: "Issue an app password and show it, once",
		Long: `Issue an app password and show it, once: a random secret that one device signs in with, in
place of the account's password, and without a code.

Behind it, imapwarden signs in to the upstream with the account's own password, which it
keeps so that the app password alone opens it. Where that was not given with
--password-stdin, the app password works after the next sign-in with the password and a
second factor. An upstream with login = "master" needs none of this.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := takes("NAME")(cmd, args); err != nil {
				return err
			}
			if wanted.Label == "" {
				return errors.New("--label is missing: say which device or program it is for")
			}
			return nil
		},
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) (err error) {
			wanted.Account = args[0]
			if wanted.Expires, err = expiry(expires, time.Now()); err != nil {
				return misuse{err}
			}
			if wanted.Networks, err = networkList(networks); err != nil {
				return misuse{err}
			}
			master := hasMaster(r.config, r.canonical(wanted.Account))
			if fromStdin && master {
				return misuse{errors.New(`--password-stdin: the account's upstream has login = "master", so the app password works at once without it`)}
			}
			if fromStdin {
				if wanted.Password, err = readPassword(o.stdin); err != nil {
					return misuse{fmt.Errorf("--password-stdin: %w", err)}
				}
				defer wanted.Password.Wipe()
			}
			issued, err := r.accounts.CreateAppPassword(ctx, wanted)
			if err != nil {
				return err
			}
			issued.Sealed = issued.Sealed || master
			if o.json {
				return o.print(issued)
			}
			return o.printAppPassword(issued, wanted)
		}, forUpstreams...),
	}
	flags := cmd.Flags()
	flags.StringVar(&wanted.Label, "label", "", "which device or program it is for, as in \"Anna's phone\"")
	flags.StringVar(&expires, "expires", "", "until `when` it works: a while, as in 90d, or a day and its end, as in 2027-01-31")
	flags.StringArrayVar(&networks, "network", nil, "only from this address or `network`, as in 203.0.113.0/24; may be given again")
	flags.BoolVar(&wanted.ReadOnly, "read-only", false, "let its sessions change nothing")
	flags.BoolVar(&fromStdin, "password-stdin", false, "read the account's present password from standard input, so that it works at once")
	return cmd
}

// expiry reads when an app password is to end; "" is never.
func expiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := configs.ParseDuration(s); err == nil {
		return now.Add(d.D()), nil
	}
	day, err := time.ParseInLocation(time.DateOnly, s, now.Location())
	if err != nil {
		return time.Time{}, fmt.Errorf("--expires %q: write a while, like \"90d\" or \"12h\", or a day, like \"2027-01-31\"", s)
	}
	return day.AddDate(0, 0, 1), nil
}

func networkList(texts []string) (list []netip.Prefix, err error) {
	for _, text := range texts {
		n, err := network(text)
		if err != nil {
			return nil, fmt.Errorf("--network %q is neither an address nor a network, as in 203.0.113.0/24", text)
		}
		list = append(list, n)
	}
	return list, nil
}

// readPassword reads a password, without the end of its line.
func readPassword(r io.Reader) (auth.Secret, error) {
	const most = 1024
	line, err := bufio.NewReaderSize(io.LimitReader(r, most+3), most+4).ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	defer clear(line)
	password := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	switch {
	case len(password) == 0:
		return nil, errors.New("the first line of standard input is empty: it must be the account's password")
	case len(password) > most:
		return nil, fmt.Errorf("the first line of standard input is longer than %d octets: it must be the account's password", most)
	}
	return auth.Secret(bytes.Clone(password)), nil
}

func (o *options) printAppPassword(issued auth.IssuedAppPassword, wanted auth.NewAppPassword) error {
	fmt.Fprintf(o.stdout, "App password for %s (%s), shown this once:\n\n    %s\n\n",
		printable(issued.Account), printable(issued.Label), issued.Password)
	fmt.Fprint(o.stdout, "Put it into the mail program in place of the account's password, with or without the dashes.\n")
	if limits := limitsOf(wanted.Expires, wanted.Networks, wanted.ReadOnly); limits != "" {
		fmt.Fprintf(o.stdout, "It is limited: %s.\n", limits)
	}
	if issued.Sealed {
		fmt.Fprint(o.stdout, "It works from now on, if that was the account's password at the upstream: it wasn't tried.\n")
	} else {
		fmt.Fprintf(o.stdout, "It works once %s has signed in again with the password and a second factor.\n", issued.Account)
	}
	_, err := fmt.Fprintf(o.stdout, "When the device is lost:\n\n    %s\n", o.command("app-password revoke "+issued.Account+" "+issued.ID))
	return err
}

// limitsOf says what an app password is not good for; "" where it is good for all.
func limitsOf(expires time.Time, networks []netip.Prefix, readOnly bool) string {
	var limits []string
	if readOnly {
		limits = append(limits, "read-only")
	}
	if !expires.IsZero() {
		limits = append(limits, "until "+clock(expires))
	}
	if len(networks) > 0 {
		var from []string
		for _, n := range networks {
			from = append(from, n.String())
		}
		limits = append(limits, "from "+strings.Join(from, " "))
	}
	return strings.Join(limits, ", ")
}

func appPasswordListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list [NAME]",
		Short: "List an account's app passwords, or those of all accounts",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%q is too much", args[1])
			}
			return nil
		},
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			table := o.columns()
			if !o.json {
				fmt.Fprintln(table, "ACCOUNT\tID\tLABEL\tSTATE\tCREATED\tLAST USED\tSOURCE\tPROGRAM\tLIMITS")
			}
			list := func(name string) error {
				apps, err := r.accounts.AppPasswords(ctx, name)
				if err != nil {
					return err
				}
				for _, app := range apps {
					app.Ready = app.Ready || app.Revoked.IsZero() && hasMaster(r.config, app.Account)
					if o.json {
						if err := o.print(app); err != nil {
							return err
						}
						continue
					}
					line(table, appPasswordRow(app, time.Now())...)
				}
				return nil
			}
			if len(args) == 1 {
				return errors.Join(list(args[0]), table.Flush())
			}
			return r.eachPage(ctx, func(accounts []auth.Summary) error {
				for _, a := range accounts {
					if err := list(a.Account); err != nil {
						return err
					}
				}
				return table.Flush()
			})
		}, forUpstreams...),
	}
}

func appPasswordRow(app auth.AppPasswordSummary, now time.Time) []string {
	last, source := "never", "-"
	if !app.LastUse.Time.IsZero() {
		last, source = clock(app.LastUse.Time), app.LastUse.Source.String()
	}
	return []string{
		app.Account, app.ID, app.Label, appPasswordState(app, now), clock(app.Created),
		last, source, cmp.Or(app.LastUse.Program, "-"), cmp.Or(limitsOf(app.Expires, app.Networks, app.ReadOnly), "-"),
	}
}

func appPasswordState(app auth.AppPasswordSummary, now time.Time) string {
	switch {
	case !app.Revoked.IsZero():
		return "revoked"
	case !app.Expires.IsZero() && !now.Before(app.Expires):
		return "expired"
	case app.Ready:
		return "ready"
	case app.Stale:
		return "waits for a sign-in with the new password"
	}
	return "waits for a sign-in"
}

func appPasswordRevokeCommand(o *options) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "revoke NAME ID | revoke NAME --all",
		Short: "Take an app password away, or all of an account's",
		Args:  takesSome(&all, "NAME", "ID", 1),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) (err error) {
			n := 1
			if all {
				n, err = r.accounts.RevokeAppPasswords(ctx, args[0])
			} else {
				err = r.accounts.RevokeAppPassword(ctx, args[0], args[1])
			}
			if err != nil {
				return err
			}
			return o.printRevoked(r, args[0], n, "app password")
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of the account's")
	return cmd
}

// takesSome says that a command wants a name and, unless all is set, what of it: most at most.
func takesSome(all *bool, name, what string, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("%s is missing", name)
		case *all && len(args) > 1:
			return fmt.Errorf("%q and --all: give one of them", args[1])
		case !*all && len(args) == 1:
			return fmt.Errorf("%s is missing; --all means all of them", what)
		case len(args) > 1+most:
			return fmt.Errorf("%q is too much", args[1+most])
		}
		return nil
	}
}

// printRevoked says how many were taken away from an account.
func (o *options) printRevoked(r *records, name string, n int, noun string) error {
	name = r.canonical(name)
	if o.json {
		return o.print(struct {
			Account string `json:"account"`
			Done    string `json:"done"`
			Count   int    `json:"count"`
		}{name, "revoked", n})
	}
	then := ""
	if n > 0 {
		then = r.ended("the sessions under "+them(n)) + "\n"
	}
	_, err := fmt.Fprintf(o.stdout, "%s: %s revoked\n%s", name, count(n, noun), then)
	return err
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
