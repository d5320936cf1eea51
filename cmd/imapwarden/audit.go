package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/audit"
	"imapwarden/configs"
)

func auditCommand(o *options) *cobra.Command {
	var account, source, since string
	var limit int
	var follow bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List who signed in or was refused, who changed what, and why",
		Args:  takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			filter := audit.Filter{Limit: limit}
			if err := r.choose(&filter, account, source, since); err != nil {
				return misuse{err}
			}
			return o.printEvents(ctx, r, filter, follow)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&account, "account", "", "only events of this `account`")
	flags.StringVar(&source, "source", "", "only events from this address or network, as in 203.0.113.0/24")
	flags.StringVar(&since, "since", "", "only events of the last `while`, as in 1h or 7d")
	flags.IntVar(&limit, "limit", 100, "at most so many, the newest")
	flags.BoolVar(&follow, "follow", false, "go on with new events as they come")
	cmd.AddCommand(auditVerifyCommand(o))
	return cmd
}

// choose fills the filter with what the flags say.
func (r *records) choose(f *audit.Filter, account, source, since string) (err error) {
	if f.Limit < 1 {
		return fmt.Errorf("--limit %d: give a number of at least 1", f.Limit)
	}
	if account != "" {
		if f.Account, err = r.names.Canonical(account); err != nil {
			return fmt.Errorf("--account: %w", err)
		}
	}
	if source != "" {
		if f.Source, err = network(source); err != nil {
			return fmt.Errorf("--source %q is neither an address nor a network, as in 203.0.113.0/24", source)
		}
	}
	if since != "" {
		d, err := configs.ParseDuration(since)
		if err != nil {
			return fmt.Errorf("--since %q: write how long ago, like \"90s\", \"12h\" or \"1d12h\"", since)
		}
		f.Since = time.Now().Add(-d.D())
	}
	return nil
}

// network reads a network, or an address as the network of it alone.
func network(s string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(s); err == nil {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	return prefix.Masked(), err
}

// printEvents prints the events chosen, and where follow is set those that come
// later, until ctx is done.
func (o *options) printEvents(ctx context.Context, r *records, f audit.Filter, follow bool) error {
	if !o.json {
		fmt.Fprintf(o.stdout, row, "TIME", "KIND", "OUTCOME", "ACCOUNT", "SOURCE", "WHY")
	}
	waiting := false
	for begun := false; ; begun = true {
		events, err := r.events.Events(ctx, f)
		switch {
		case follow && ctx.Err() != nil:
			return nil
		case err != nil && !(follow && begun):
			return err
		case err != nil && !waiting: // a server that is started anew, most likely
			fmt.Fprintf(o.stderr, "imapwarden: waiting for the server: %v\n", err)
		}
		waiting = err != nil
		for _, e := range events {
			if err := o.printEvent(e); err != nil {
				return err
			}
			f.After = e.ID
		}
		if !follow {
			return nil
		}
		// What comes within a second must not fall to the first page's limit.
		f.Limit = 100_000
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// row has fixed widths, so that lines which come later stand under the first ones.
const row = "%-25s  %-19s  %-8s  %-30s  %-15s  %s\n"

func (o *options) printEvent(e audit.Event) error {
	if o.json {
		return o.print(e)
	}
	factor := e.Factor
	if factor == "none" {
		factor = ""
		if e.Outcome == audit.Accepted {
			factor = "password alone"
		}
	}
	var why []string
	for _, s := range []string{factor, e.Reason, e.Rule, e.Detail, e.Program} {
		if s != "" {
			why = append(why, s)
		}
	}
	_, err := fmt.Fprintf(o.stdout, row, clock(e.Time), e.Kind, e.Outcome,
		printable(e.Account), printable(e.Source), printable(strings.Join(why, ", ")))
	return err
}
