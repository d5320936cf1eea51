package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/admin"
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
	flags.IntVar(&limit, "limit", 100, fmt.Sprintf("at most so many, the newest; no more than %d", mostEvents))
	flags.BoolVar(&follow, "follow", false, "go on with new events as they come")
	cmd.AddCommand(auditVerifyCommand(o))
	return cmd
}

// mostEvents is how many are listed at once: they are held in memory, to be printed oldest first.
const mostEvents = 100_000

// choose fills the filter with what the flags say.
func (r *records) choose(f *audit.Filter, account, source, since string) (err error) {
	switch {
	case f.Limit < 1:
		return fmt.Errorf("--limit %d: give a number of at least 1", f.Limit)
	case f.Limit > mostEvents:
		return fmt.Errorf("--limit %d: give a number of at most %d; audit.file in the configuration makes a file of all events", f.Limit, mostEvents)
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
	events, err := newest(ctx, r.events, f)
	if err != nil {
		if follow && ctx.Err() != nil {
			return nil
		}
		return err
	}
	if f.After, err = o.printAll(events, f.After); err != nil || !follow {
		return err
	}
	return o.follow(ctx, r.events, f)
}

// newest returns as many events as the filter's limit says, oldest first. It asks for them
// backwards, no more at once than a server gives.
func newest(ctx context.Context, from admin.Events, f audit.Filter) ([]audit.Event, error) {
	var pages [][]audit.Event
	for left := f.Limit; left > 0; {
		f.Limit = min(left, admin.MaxEvents)
		events, err := from.Events(ctx, f)
		if err != nil {
			return nil, err
		}
		pages = append(pages, events)
		if len(events) < f.Limit {
			break
		}
		left -= len(events)
		f.Before = events[0].ID
	}
	slices.Reverse(pages)
	return slices.Concat(pages...), nil
}

// follow prints all events that come after those of the filter, until ctx is done.
func (o *options) follow(ctx context.Context, from admin.Events, f audit.Filter) error {
	f.Oldest, f.Limit = true, admin.MaxEvents
	waiting := false
	for {
		events, err := from.Events(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !waiting { // a server that is started anew, most likely
			fmt.Fprintf(o.stderr, "imapwarden: waiting for the server: %v\n", err)
		}
		waiting = err != nil
		if f.After, err = o.printAll(events, f.After); err != nil {
			return err
		}
		if len(events) == f.Limit { // there may be more by now
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// printAll prints events and returns the last one's ID, or else the one given.
func (o *options) printAll(events []audit.Event, last int64) (int64, error) {
	for _, e := range events {
		if err := o.printEvent(e); err != nil {
			return last, err
		}
		last = e.ID
	}
	return last, nil
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
	rule := e.Rule
	if rule == e.Reason { // of a limit's refusal both are its signal
		rule = ""
	}
	for _, s := range []string{factor, e.Reason, rule, e.Detail, e.Program} {
		if s != "" {
			why = append(why, s)
		}
	}
	_, err := fmt.Fprintf(o.stdout, row, clock(e.Time), e.Kind, e.Outcome,
		printable(e.Account), printable(e.Source), printable(strings.Join(why, ", ")))
	return err
}
