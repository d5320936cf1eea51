package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/configs"
)

func reportCommand(o *options) *cobra.Command {
	since := ""
	cmd := &cobra.Command{
		Use:   "report",
		Short: `Say how each account signs in, and whom mfa.mode = "required" would lock out`,
		Long: `Say how each account signs in, and whom mfa.mode = "required" would lock out: those
with a program that last signed in with the password alone. And who should get another
password: it is a common one, or others try it. The audit tells all that, so no further
back than audit.keep.`,
		Args: takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			d, err := configs.ParseDuration(since)
			if err != nil {
				return misuse{fmt.Errorf("--since %q: write how long ago, like \"12h\" or \"30d\"", since)}
			}
			return o.report(ctx, r.accounts, r.events, time.Now().Add(-d.D()))
		}),
	}
	cmd.Flags().StringVar(&since, "since", "30d", "what happened in the last `while`")
	return cmd
}

// A usage is how an account signs in.
type usage struct {
	Account      string      `json:"account"`
	Enrolled     bool        `json:"enrolled"`
	AppPasswords int         `json:"app_passwords"`
	Grants       int         `json:"grants"`
	SignIns      []audit.Way `json:"sign_ins"`
	LockedOut    bool        `json:"locked_out"`              // with mfa.mode = "required"
	Why          string      `json:"why"`                     // "" where it isn't
	WeakPassword string      `json:"weak_password,omitempty"` // the signal that says what is bad about its password
}

// lockedOut says which programs an account uses with the password alone, as far as its
// ways tell: those that haven't signed in with a second factor since.
func lockedOut(ways []audit.Way) (programs []string) {
	for _, w := range ways {
		if w.Factor != string(auth.FactorNone) {
			continue
		}
		better := slices.ContainsFunc(ways, func(other audit.Way) bool {
			return other.Program == w.Program && other.Factor != w.Factor && !other.Last.Before(w.Last)
		})
		if !better {
			programs = append(programs, w.Program)
		}
	}
	return programs
}

// judge fills in whether and why the account would be locked out.
func (u *usage) judge() {
	programs := lockedOut(u.SignIns)
	if u.LockedOut = len(programs) > 0; !u.LockedOut {
		return
	}
	for i, p := range programs {
		programs[i] = "a program that doesn't say what it is"
		if p != "" {
			programs[i] = fmt.Sprintf("%q", p)
		}
	}
	const most = 10
	if more := len(programs) - most; more > 0 {
		programs = append(programs[:most], fmt.Sprintf("%d more", more))
	}
	u.Why = "signs in with the password alone: " + strings.Join(programs, ", ")
}

// summary is what stands at the end of a report.
type summary struct {
	accounts, active int
	locked           int
	names            []string // of those locked out, the first ones
}

const maxNamed = 1000 // accounts at the end of a report

func (s *summary) add(u usage) {
	s.accounts++
	if len(u.SignIns) > 0 {
		s.active++
	}
	if !u.LockedOut {
		return
	}
	if s.locked++; len(s.names) < maxNamed {
		s.names = append(s.names, u.Account)
	}
}

// report prints how accounts signed in since then: those that are known, and those that
// aren't and signed in all the same.
func (o *options) report(ctx context.Context, known accounts, events admin.Events, since time.Time) error {
	var total summary
	weak, err := weakPasswords(ctx, events, since)
	if err != nil {
		return err
	}
	if !o.json {
		fmt.Fprintf(o.stdout, reportRow, "ACCOUNT", "ENROLLED", "SIGNS IN WITH", "TIMES", "LAST", "SOURCE", "PROGRAM")
	}
	summaries := merged[auth.Summary]{
		ask: func(after string) ([]auth.Summary, error) { return known.List(ctx, after, page) },
		of:  func(a auth.Summary) string { return a.Account },
	}
	ways := merged[audit.Way]{
		ask: func(after string) ([]audit.Way, error) { return events.Ways(ctx, since, after, page) },
		of:  func(w audit.Way) string { return w.Account },
	}
	for {
		name, err := firstOf(&summaries, &ways)
		if err != nil {
			return err
		}
		if name == "" {
			break
		}
		u := usage{Account: name, SignIns: []audit.Way{}, WeakPassword: weak[name]}
		for _, a := range summaries.take(name) {
			u.Enrolled, u.AppPasswords, u.Grants = a.Enrolled, a.AppPasswords, a.Grants
		}
		u.SignIns = append(u.SignIns, ways.take(name)...)
		u.judge()
		total.add(u)
		if err := o.printUsage(u); err != nil {
			return err
		}
	}
	if o.json {
		return nil
	}
	if err := o.printSummary(total, since); err != nil {
		return err
	}
	return printWeak(o.stdout, weak)
}

// merged reads something by account, pages of it at a time.
type merged[T any] struct {
	ask   func(after string) ([]T, error) // some, ordered by account, all of an account's at once; none: the end
	of    func(T) string                  // whose it is
	page  []T
	after string
	ended bool
}

// next returns the account whose turn it is; "": there are no more.
func (m *merged[T]) next() (account string, err error) {
	if len(m.page) == 0 && !m.ended {
		if m.page, err = m.ask(m.after); err != nil {
			return "", err
		}
		if m.ended = len(m.page) == 0; !m.ended {
			m.after = m.of(m.page[len(m.page)-1])
		}
	}
	if len(m.page) == 0 {
		return "", nil
	}
	return m.of(m.page[0]), nil
}

// take returns what there is of the account, if it is its turn.
func (m *merged[T]) take(account string) []T {
	n := 0
	for n < len(m.page) && m.of(m.page[n]) == account {
		n++
	}
	taken := m.page[:n]
	m.page = m.page[n:]
	return taken
}

// firstOf returns the account that comes first in either; "": there are no more.
func firstOf(a *merged[auth.Summary], b *merged[audit.Way]) (string, error) {
	one, err := a.next()
	if err != nil {
		return "", err
	}
	other, err := b.next()
	if err != nil {
		return "", err
	}
	if one == "" || other == "" {
		return cmp.Or(one, other), nil
	}
	return min(one, other), nil
}

// reportRow has fixed widths: the accounts of a page aren't known before its first is printed.
const reportRow = "%-30s  %-8s  %-18s  %7v  %-25s  %-15s  %s\n"

func (o *options) printUsage(u usage) error {
	if o.json {
		return o.print(u)
	}
	enrolled := "no"
	if u.Enrolled {
		enrolled = "yes"
	}
	name := printable(u.Account)
	if len(u.SignIns) == 0 {
		_, err := fmt.Fprintf(o.stdout, reportRow, name, enrolled, "-", 0, "-", "-", "-")
		return err
	}
	for _, w := range u.SignIns {
		factor := w.Factor
		if text, ok := factorTexts[auth.Factor(w.Factor)]; ok {
			factor = text
		}
		if _, err := fmt.Fprintf(o.stdout, reportRow, name, enrolled, printable(factor), w.Count, clock(w.Last),
			printable(w.Source), cmp.Or(printable(w.Program), "-")); err != nil {
			return err
		}
		name, enrolled = "", "" // once is enough
	}
	return nil
}

func (o *options) printSummary(s summary, since time.Time) error {
	fmt.Fprintf(o.stdout, "\nSince %s, %d of %s signed in.\n", clock(since), s.active, count(s.accounts, "account"))
	if s.locked == 0 {
		_, err := fmt.Fprintf(o.stdout, "None of them would be locked out by mfa.mode = \"required\".\n")
		return err
	}
	fmt.Fprintf(o.stdout, "mfa.mode = \"required\" would lock out %s, which last signed in with the password alone from some program:\n\n", count(s.locked, "account"))
	for _, name := range s.names {
		fmt.Fprintf(o.stdout, "    %s\n", printable(name))
	}
	if more := s.locked - len(s.names); more > 0 {
		fmt.Fprintf(o.stdout, "    and %d more; --json says it of each\n", more)
	}
	_, err := fmt.Fprintf(o.stdout, "\nTo enrol one: %s; to issue an app password: %s\n",
		o.command("account enroll NAME"), o.command("app-password create NAME --label LABEL"))
	return err
}
