package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
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
	Reset(ctx context.Context, name string) error
	Remove(ctx context.Context, name string) error
}

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
		accountChangeCommand(o, "reset", "reset", "Take an account's second factor away, to enrol it anew",
			"its authenticator and its grants are gone, and it can be enrolled anew", accounts.Reset),
		accountChangeCommand(o, "remove", "removed", "Forget an account and all that belongs to it",
			"imapwarden has forgotten it, and the mailbox itself is untouched", accounts.Remove),
	)
	return cmd
}

func accountListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the accounts that imapwarden knows",
		Args:  takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			const page = 500
			table := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
			if !o.json {
				fmt.Fprintln(table, "ACCOUNT\tSECOND FACTOR\tSINCE")
			}
			for after := ""; ; {
				list, err := r.accounts.List(ctx, after, page)
				if err != nil {
					return err
				}
				for _, a := range list {
					if o.json {
						if err := o.print(a); err != nil {
							return err
						}
						continue
					}
					state, since := factor(a)
					fmt.Fprintf(table, "%s\t%s\t%s\n", a.Account, state, since)
				}
				if len(list) < page {
					return table.Flush()
				}
				after = list[len(list)-1].Account
			}
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
			table := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(table, "account\t%s\n", a.Account)
			fmt.Fprintf(table, "known since\t%s\n", clock(a.Created))
			fmt.Fprintf(table, "second factor\t%s\n", state)
			fmt.Fprintf(table, "since\t%s\n", since)
			fmt.Fprintf(table, "grants\t%d\n", a.Grants)
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
	if confirmed {
		_, err := fmt.Fprintf(o.stdout, "From now on %s signs in with the password followed by the app's six digits.\n", e.Account)
		return err
	}
	_, err := fmt.Fprintf(o.stdout, "It counts once the app has shown its first code. Then:\n\n    %s\n",
		o.command("account confirm "+e.Account+" CODE"))
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

// accountChangeCommand is a command that does one thing to one account.
func accountChangeCommand(o *options, verb, done, short, then string, change func(accounts, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  takes("NAME"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			if err := change(r.accounts, ctx, args[0]); err != nil {
				return err
			}
			return o.printChange(r, args[0], done, then+"; until it is enrolled again, "+bare(r.mode)+"; sessions that are open go on")
		}),
	}
}

// bare says what holds for an account without a second factor.
func bare(mode auth.Mode) string {
	if mode == auth.Required {
		return "nobody can sign in to it"
	}
	return fmt.Sprintf("the password alone lets in (mfa.mode = %q)", mode)
}

// printChange says what was done to an account, and what follows from it.
func (o *options) printChange(r *records, name, done, then string) error {
	// The change went well, so the name is one.
	if canonical, err := r.names.Canonical(name); err == nil {
		name = canonical
	}
	if o.json {
		return o.print(struct {
			Account string `json:"account"`
			Done    string `json:"done"`
		}{name, done})
	}
	_, err := fmt.Fprintf(o.stdout, "%s: %s; %s\n", name, done, then)
	return err
}
