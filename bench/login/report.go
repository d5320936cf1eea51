package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"text/tabwriter"
	"time"

	"imapwarden/audit"
	"imapwarden/store"
)

// aim is the ratio that no kind of login should reach.
const aim = 1.15

// report writes the table.
func (m *measurement) report(out io.Writer) error {
	later := time.Duration(0)
	if m.written > 0 {
		later = m.deferred / time.Duration(m.written)
	}
	fmt.Fprintf(out, "%d logins of each kind, %d at a time, %.1f ms each by the clock; written later of each by a second factor: %d µs\n\n",
		m.rounds*m.logins, m.parallel, m.wall.Seconds()*1e3*float64(m.parallel)/float64(m.rounds*m.logins*len(kinds)), later.Microseconds())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "login\tCPU µs\tratio\tstandard error\twith what is written later\t\n")
	base := perLogin(m.blocks[observed], m.logins)
	for _, k := range kinds {
		own := perLogin(m.blocks[k], m.logins)
		if k == observed {
			fmt.Fprintf(table, "%s\t%.0f\t1\t\t\t\n", k.name, mean(own))
			continue
		}
		r, deviation := ratio(own, base)
		whole := r + float64(later.Nanoseconds())/1e3/mean(base)
		verdict := ""
		if whole >= aim {
			verdict = fmt.Sprintf("over %.2f", aim)
		}
		fmt.Fprintf(table, "%s\t%.0f\t%.3f\t%.3f\t%.3f\t%s\n", k.name, mean(own), r, deviation, whole, verdict)
	}
	return table.Flush()
}

// perLogin is in microseconds, for each round.
func perLogin(blocks []time.Duration, logins int) []float64 {
	per := make([]float64, len(blocks))
	for i, b := range blocks {
		per[i] = float64(b.Nanoseconds()) / 1e3 / float64(logins)
	}
	return per
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// ratio returns that of the means, and its standard error. What slows the machine down for a
// whole round is in both and cancels out: hence the residuals of each round.
func ratio(own, base []float64) (r, deviation float64) {
	r = mean(own) / mean(base)
	squares := 0.0
	for i := range own {
		residual := own[i] - r*base[i]
		squares += residual * residual
	}
	n := float64(len(own))
	return r, math.Sqrt(squares/(n*(n-1))) / mean(base)
}

// verify reads the audit that the proxy has written: every login that was made, and no other,
// was let in by the factor that was meant.
func verify(ctx context.Context, folder string, done map[login]int) error {
	records, err := store.Open(ctx, "sqlite:"+filepath.Join(folder, storeName))
	if err != nil {
		return err
	}
	defer records.Close()
	var events []audit.Event
	filter := audit.Filter{Oldest: true, Limit: 10_000}
	for {
		part, err := records.Events(ctx, filter)
		if err != nil {
			return err
		}
		if len(part) == 0 {
			return compare(events, done)
		}
		filter.After = part[len(part)-1].ID
		for _, e := range part {
			if e.Detail != past {
				events = append(events, e)
			}
		}
	}
}

// compare holds the audit's events against the logins that were made.
func compare(events []audit.Event, done map[login]int) error {
	told := make(map[login]int)
	for _, e := range events {
		if e.Kind != "login" {
			continue
		}
		if e.Outcome != audit.Accepted {
			return fmt.Errorf("the audit: login of %s was %s, %s", e.Account, e.Outcome, e.Reason)
		}
		told[login{e.Account, e.Factor}]++
	}
	for l, n := range done {
		if told[l] != n {
			return fmt.Errorf("the audit: %s came in by %q %d times, not %d times", l.account, l.factor, told[l], n)
		}
	}
	if len(told) != len(done) {
		return fmt.Errorf("the audit: %d accounts and factors, not %d", len(told), len(done))
	}
	return nil
}
