package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is what a run has found.
type Report struct {
	Seed       uint64      `json:"seed"`
	Accounts   int         `json:"accounts"`
	Logins     int         `json:"honest_logins"` // the history included
	Days       []*Day      `json:"days"`
	Parameters []parameter `json:"parameters"`
	Memory     uint64      `json:"memory"` // octets that the system gave us, for all of it
	Seconds    float64     `json:"seconds"`

	made time.Duration
}

// A Day is one day with its attacks before all defences.
type Day struct {
	Attacks []string `json:"attacks"`
	Tallies []*Tally `json:"defences"`
}

// What a defence of ours should keep.
const (
	aimReached = 0.01   // of the attempts that the best baseline lets reach the upstream
	aimRefused = 0.0001 // of honest logins from elsewhere
)

// IsOurs says whether the tally is the product's.
func (t *Tally) isOurs() bool { return strings.HasPrefix(t.Defence, "imapwarden") }

// best is how many attempts reached the upstream with the best of the others.
func (d *Day) best() int {
	best := -1
	for _, t := range d.Tallies {
		if !t.isOurs() && (best < 0 || t.Reached < best) {
			best = t.Reached
		}
	}
	return best
}

func (r *Report) print(out io.Writer, why bool) error {
	fmt.Fprintf(out, "%d accounts, seed %d; %d honest logins with the history, made in %.1f s\n",
		r.Accounts, r.Seed, r.Logins, r.made.Seconds())
	for _, d := range r.Days {
		if err := d.print(out); err != nil {
			return err
		}
		if len(d.Attacks) > 1 {
			d.printEach(out)
		}
		if why {
			d.printWhy(out)
		}
	}
	_, err := fmt.Fprintf(out, "\n%.1f s in all, %d MiB\n", r.Seconds, r.Memory>>20)
	return err
}

func (d *Day) title() string {
	switch len(d.Attacks) {
	case 0:
		return "nobody attacks"
	case 1:
		return d.Attacks[0] + ": " + attacks[slices.Index(attackNames(), d.Attacks[0])].Text
	}
	return "all at once"
}

func (d *Day) print(out io.Writer) error {
	fmt.Fprintf(out, "\n== %s ==\n", d.title())
	fmt.Fprintf(out, "besides the honest logins below, %d that nobody would let in: mistyped, without a second factor, with an old secret\n", d.Tallies[0].Failures)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	hostile := len(d.Attacks) > 0
	if hostile {
		fmt.Fprint(table, "defence\tattempts\treached upstream\tof the best other\tright ones seen\ttaken over\tnoticed after\t")
	} else {
		fmt.Fprint(table, "defence\t")
	}
	fmt.Fprintln(table, "honest logins\trefused at home\trefused elsewhere\tasked for more\tslowed\t")
	for _, t := range d.Tallies {
		fmt.Fprintf(table, "%s\t", t.Defence)
		if hostile {
			fmt.Fprintf(table, "%d\t%d\t%s\t%d of %d\t%d\t%s\t", t.Attempts, t.Reached, d.share(t), t.RightReached, t.Right, t.TakenOver, t.noticed())
		}
		fmt.Fprintf(table, "%d\t%d of %d\t%s\t%d\t%d\t\n", t.Logins, t.RefusedFamiliar, t.LoginsFamiliar, t.elsewhere(), t.AskedMore, t.Slowed)
	}
	return table.Flush()
}

// share says how much reached the upstream, measured by the best of the others.
func (d *Day) share(t *Tally) string {
	if !t.isOurs() || d.best() == 0 {
		return ""
	}
	share := float64(t.Reached) / float64(d.best())
	if share >= aimReached {
		return fmt.Sprintf("%.2f %%, aim %g %%", 100*share, 100*aimReached)
	}
	return fmt.Sprintf("%.2f %%", 100*share)
}

func (t *Tally) elsewhere() string {
	all := t.Logins - t.LoginsFamiliar
	text := fmt.Sprintf("%d of %d", t.RefusedElse, all)
	if t.isOurs() && float64(t.RefusedElse) >= aimRefused*float64(all) && t.RefusedElse > 0 {
		text += fmt.Sprintf(", aim 1 in %.0f", 1/aimRefused)
	}
	return text
}

func (h *Hostile) noticed() string {
	if h.Noticed == "" {
		return "never"
	}
	return fmt.Sprintf("%s (%s)", time.Duration(h.NoticedAfter*float64(time.Second)).Round(time.Second), h.Noticed)
}

// printEach is what became of each attack of a day with several.
func (d *Day) printEach(out io.Writer) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "attack\tdefence\tattempts\treached upstream\tright ones seen\ttaken over\tnoticed after\t")
	for _, name := range d.Attacks {
		for _, t := range d.Tallies {
			if h := t.Attacks[name]; h != nil {
				fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d of %d\t%d\t%s\t\n", name, t.Defence, h.Attempts, h.Reached, h.RightReached, h.Right, h.TakenOver, h.noticed())
			}
		}
	}
	table.Flush()
}

// printWhy lists what refused honest logins.
func (d *Day) printWhy(out io.Writer) {
	for _, t := range d.Tallies {
		if len(t.Refusals) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s refused honest logins\n", t.Defence)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, r := range t.Refusals {
			kind, at := "refused", "elsewhere"
			if r.AskedMore {
				kind = "asked for more"
			}
			if r.Familiar {
				at = "at home"
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t\n", r.Count, kind, r.Signal, r.Why, r.Place, at)
		}
		table.Flush()
	}
}

func printParameters(out io.Writer, parameters []parameter) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range parameters {
		fmt.Fprintf(table, "%s\t%s\t%s\t\n", p.name, p.text(), p.source)
	}
	table.Flush()
}
