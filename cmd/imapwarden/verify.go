package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imapwarden/admin"
	"imapwarden/audit"
)

func auditVerifyCommand(o *options) *cobra.Command {
	file := ""
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "See whether events of the audit were changed, removed or inserted",
		Long: `See whether events of the audit were changed, removed or inserted: each has a hash of
itself and of the one before. Who can write to the store can compute all hashes anew, and
cut off the end: compare the head with one that was noted elsewhere, or the store with
what audit.file exported, with --file.`,
		Args: takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			report, err := verify(ctx, file, auditSource{r.events})
			if err != nil {
				return err
			}
			if err := o.printReport(report); err != nil {
				return err
			}
			if report.Broken != nil {
				return errShown
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "compare this `file`, as audit.file has it, with the store")
	return cmd
}

func verify(ctx context.Context, file string, source audit.Source) (audit.Report, error) {
	if file == "" {
		return audit.Verify(ctx, source, nil)
	}
	f, err := os.Open(file)
	if err != nil {
		return audit.Report{}, misuse{fmt.Errorf("--file: %w", err)}
	}
	defer f.Close()
	return audit.VerifyFile(ctx, f, source)
}

// auditSource reads events where commands find them; nothing is written there.
type auditSource struct{ from admin.Events }

func (s auditSource) Events(ctx context.Context, f audit.Filter) ([]audit.Event, error) {
	return s.from.Events(ctx, f)
}

func (s auditSource) Mark(ctx context.Context, name string) (string, error) {
	return s.from.Mark(ctx, name)
}

func (auditSource) SetMark(context.Context, string, string) error {
	return errors.New("verifying the audit changes no mark")
}

func (o *options) printReport(r audit.Report) error {
	if o.json {
		return o.print(r)
	}
	table := o.columns()
	fmt.Fprintf(table, "events that are as they were written\t%d\n", r.Events)
	if r.Unchained > 0 {
		fmt.Fprintf(table, "of these, from before there was a chain\t%d\n", r.Unchained)
	}
	if r.Events > 0 {
		fmt.Fprintf(table, "first\t%d\n", r.First)
		fmt.Fprintf(table, "last\t%d, of %s\n", r.Last, clock(r.HeadTime))
		fmt.Fprintf(table, "head\t%x\n", r.Head[:])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	verdict := "Nothing is wrong with them.\n"
	if b := r.Broken; b != nil {
		verdict = "BROKEN: "
		if b.Line > 0 {
			verdict += fmt.Sprintf("line %d: ", b.Line)
		}
		verdict += printable(b.Problem) + "\n"
	}
	_, err := fmt.Fprint(o.stdout, verdict)
	return err
}
