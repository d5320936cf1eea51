package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/auth"
)

// accounts is the directory, at the other end of the admin socket (admin.Client)
// or in the store that we opened (auth.Directory).
type accounts interface {
	List(ctx context.Context, after string, limit int) ([]auth.Summary, error)
	Show(ctx context.Context, name string) (auth.Summary, error)
	Enroll(ctx context.Context, name string, confirmed bool) (auth.Enrolment, error)
	Confirm(ctx context.Context, name, code string) error
	RenewRecovery(ctx context.Context, name string) (codes []string, err error)
	Reset(ctx context.Context, name string) error
	Remove(ctx context.Context, name string) error
	appPasswords
	accountGrants
}

// page is how many accounts are asked for at once.
const page = 500

// eachPage tells do all accounts, by name, a page at a time.
func (r *records) eachPage(ctx context.Context, do func([]auth.Summary) error) error {
	for after := ""; ; {
		list, err := r.accounts.List(ctx, after, page)
		if err != nil {
			return err
		}
		if err := do(list); err != nil {
			return err
		}
		if len(list) < page {
			return nil
		}
		after = list[len(list)-1].Account
	}
}

// columns aligns what is written to it, cells ending in tabs, until it is flushed.
func (o *options) columns() *tabwriter.Writer { return tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0) }

func accountCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "account",
		Short: "Enrol accounts for the second factor, and look after them",
	})
	cmd.AddCommand(
		accountListCommand(o),
		accountShowCommand(o),
		accountEnrollCommand(o),
		accountConfirmCommand(o),
		accountRecoveryCommand(o),
		accountChangeCommand(o, "reset", "reset", "Take an account's second factor away, to enrol it anew", accounts.Reset, afterReset),
		accountChangeCommand(o, "remove", "removed", "Forget an account and all that belongs to it", accounts.Remove, afterRemove),
	)
	return cmd
}

func accountListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the accounts that imapwarden knows",
		Args:  takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			table := o.columns()
			if !o.json {
				fmt.Fprintln(table, "ACCOUNT\tSECOND FACTOR\tSINCE\tRECOVERY CODES\tAPP PASSWORDS")
			}
			return r.eachPage(ctx, func(list []auth.Summary) error {
				for _, a := range list {
					if o.json {
						if err := o.print(a); err != nil {
							return err
						}
						continue
					}
					state, since := factor(a)
					line(table, a.Account, state, since, recoveryLeft(a), strconv.Itoa(a.AppPasswords))
				}
				return table.Flush()
			})
		}),
	}
}

func accountShowCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show one account",
		Args:  takes("NAME"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			a, err := r.accounts.Show(ctx, args[0])
			if err != nil {
				return err
			}
			if o.json {
				return o.print(a)
			}
			state, since := factor(a)
			table := o.columns()
			line(table, "account", a.Account)
			line(table, "known since", clock(a.Created))
			line(table, "second factor", state)
			line(table, "since", since)
			line(table, "recovery codes left", recoveryLeft(a))
			line(table, "grants", strconv.Itoa(a.Grants))
			line(table, "app passwords", strconv.Itoa(a.AppPasswords))
			return table.Flush()
		}),
	}
}

// factor says how it stands with an account's second factor, and since when.
func factor(a auth.Summary) (state, since string) {
	switch {
	case a.Enrolled:
		return "enrolled", clock(a.Confirmed)
	case a.Pending:
		return "waits for its first code", "-"
	}
	return "none", "-"
}

// recoveryLeft says how many recovery codes an account has left, where it has an authenticator
// for them.
func recoveryLeft(a auth.Summary) string {
	if !a.Enrolled && !a.Pending {
		return "-"
	}
	return strconv.Itoa(a.RecoveryCodes)
}

// clock prints a time for people, in their own zone, and says which that is.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -0700") }

func accountEnrollCommand(o *options) *cobra.Command {
	confirmed := false
	cmd := &cobra.Command{
		Use:   "enroll NAME",
		Short: "Give an account a second factor: a secret for an authenticator app",
		Args:  takes("NAME"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			e, err := r.accounts.Enroll(ctx, args[0], confirmed)
			if err != nil {
				return err
			}
			if o.json {
				return o.print(e)
			}
			return o.printEnrolment(e, confirmed)
		}),
	}
	cmd.Flags().BoolVar(&confirmed, "confirmed", false, "let it count at once, without a first code")
	return cmd
}

func (o *options) printEnrolment(e auth.Enrolment, confirmed bool) error {
	fmt.Fprintf(o.stdout, "Scan this with an authenticator app:\n\n")
	if err := writeQR(o.stdout, e.URI); err != nil {
		return err
	}
	fmt.Fprintf(o.stdout, "\nor open    %s\nor type    %s\n\n", e.URI, grouped(e.Secret))
	if err := o.printRecovery(e.RecoveryCodes); err != nil {
		return err
	}
	if confirmed {
		_, err := fmt.Fprintf(o.stdout, "From now on %s signs in with the password followed by the app's six digits.\n", e.Account)
		return err
	}
	_, err := fmt.Fprintf(o.stdout, "It counts once the app has shown its first code. Then:\n\n    %s\n",
		o.command("account confirm "+e.Account+" CODE"))
	return err
}

// printRecovery shows recovery codes for the only time.
func (o *options) printRecovery(codes []string) error {
	fmt.Fprintln(o.stdout, "Recovery codes, to be kept where the app isn't. Each counts once, typed behind the password in place of the six digits, with its dash:")
	fmt.Fprintln(o.stdout)
	for pair := range slices.Chunk(codes, 2) {
		fmt.Fprintf(o.stdout, "    %s\n", strings.Join(pair, "    "))
	}
	_, err := fmt.Fprintln(o.stdout)
	return err
}

// grouped makes a secret fit for typing: groups of four.
func grouped(secret string) string {
	var groups []string
	for group := range slices.Chunk([]byte(secret), 4) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, " ")
}

func accountConfirmCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm NAME CODE",
		Short: "Complete an enrolment with a first code",
		Long:  "Complete an enrolment with a first code. Where CODE is -, it is read from standard input.",
		Args:  takes("NAME", "CODE"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			name, code := args[0], args[1]
			if code == "-" {
				line, err := bufio.NewReader(io.LimitReader(o.stdin, 1024)).ReadString('\n')
				if err != nil && err != io.EOF {
					return fmt.Errorf("reading the code from standard input: %w", err)
				}
				code = line
			}
			if err := r.accounts.Confirm(ctx, name, strings.TrimSpace(code)); err != nil {
				return err
			}
			return o.printChange(r, name, "confirmed", "it signs in with the password followed by the app's six digits from now on")
		}),
	}
}

func accountRecoveryCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "recovery NAME",
		Short: "Give an account ten new recovery codes; its old ones don't count any more",
		Args:  takes("NAME"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			codes, err := r.accounts.RenewRecovery(ctx, args[0])
			if err != nil {
				return err
			}
			if o.json {
				return o.print(struct {
					Account       string   `json:"account"`
					RecoveryCodes []string `json:"recovery_codes"`
				}{r.canonical(args[0]), codes})
			}
			if err := o.printRecovery(codes); err != nil {
				return err
			}
			_, err = fmt.Fprintf(o.stdout, "Those that %s had before don't count any more.\n", r.canonical(args[0]))
			return err
		}),
	}
}

// accountChangeCommand is a command that does one thing to one account. then says what
// follows from it.
func accountChangeCommand(o *options, verb, done, short string, change func(accounts, context.Context, string) error, then func(o *options, r *records, name string) string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  takes("NAME"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			if err := change(r.accounts, ctx, args[0]); err != nil {
				return err
			}
			return o.printChange(r, args[0], done, then(o, r, r.canonical(args[0])))
		}),
	}
}

func afterReset(o *options, r *records, name string) string {
	return "its authenticator, recovery codes and grants are gone, and it can be enrolled anew; until it is enrolled again, " +
		bare(r.mode) + "\n" + r.ended("sessions that its own password let in") +
		"\nIts app passwords stay, for they belong to other devices. To take them away too:\n\n    " +
		o.command("app-password revoke "+name+" --all")
}

func afterRemove(_ *options, r *records, _ string) string {
	return "imapwarden has forgotten it, its app passwords and grants, and the mailbox itself is untouched; until it is enrolled again, " +
		bare(r.mode) + "\n" + r.ended("all its sessions")
}

// bare says what holds for an account without a second factor.
func bare(mode auth.Mode) string {
	if mode == auth.Required {
		return "nobody can sign in with its password"
	}
	return fmt.Sprintf("the password alone lets in (mfa.mode = %q)", mode)
}

// ended says, as a sentence, what became of sessions that live under what was taken away.
func (r *records) ended(sessions string) string {
	switch {
	case r.served:
		return strings.ToUpper(sessions[:1]) + sessions[1:] + " have ended."
	case r.config.Admin.Socket == "":
		return "Where a server runs, " + sessions + " go on: it can't be told, for admin.socket is empty."
	}
	return "No server runs here, so there are no sessions that would have to end."
}

// canonical is the account that a name means which has been taken for one.
func (r *records) canonical(name string) string {
	if canonical, err := r.names.Canonical(name); err == nil {
		return canonical
	}
	return name
}

// printChange says what was done to an account, and what follows from it.
func (o *options) printChange(r *records, name, done, then string) error {
	name = r.canonical(name)
	if o.json {
		return o.print(struct {
			Account string `json:"account"`
			Done    string `json:"done"`
		}{name, done})
	}
	_, err := fmt.Fprintf(o.stdout, "%s: %s; %s\n", name, done, then)
	return err
}
