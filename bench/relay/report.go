package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are figures by column: a peer's name, or a number of sessions. Each run adds one.
type results map[string][]figures

// compare runs all peers and prints a column for each.
func (t *stand) compare(ctx context.Context, out io.Writer) error {
	if err := t.introduce(out); err != nil {
		return err
	}
	all := make(results)
	names := make([]string, len(t.peers))
	for i, p := range t.peers {
		names[i] = p.name
	}
	for run := range t.runs {
		this := make(map[string]figures)
		for _, name := range names {
			this[name] = make(figures)
			all[name] = append(all[name], this[name])
		}
		fmt.Fprintf(os.Stderr, "%s run %d of %d\n", time.Now().Format(time.TimeOnly), run+1, t.runs)
		if err := t.run(ctx, this); err != nil {
			return err
		}
	}
	base := ""
	if slices.Contains(names, haproxy.name) && len(names) > 1 {
		base = haproxy.name
	}
	all.print(out, names, base)
	fmt.Fprintf(out, "\nPercent of logins, in this order: %s %s; %s %s.\n",
		shareHybrid, all.shares(names, shareHybrid), shareResumed, all.shares(names, shareResumed))
	return nil
}

// run measures everything of every peer once.
func (t *stand) run(ctx context.Context, into map[string]figures) error {
	for _, stage := range []func(context.Context, []*turn) error{measureLogins, measureOctets} {
		if err := t.with(ctx, t.peers, into, func(turns []*turn) error { return stage(ctx, turns) }); err != nil {
			return err
		}
	}
	for _, i := range rand.Perm(len(t.peers)) {
		if err := t.idleWith(ctx, t.peers[i], into); err != nil {
			return err
		}
	}
	return nil
}

// idleWith measures sessions of one peer while no other runs.
func (t *stand) idleWith(ctx context.Context, p peer, into map[string]figures) error {
	return t.with(ctx, []peer{p}, into, func(turns []*turn) error {
		if err := measureSessions(ctx, turns[0]); err != nil {
			return turns[0].failed(err)
		}
		return nil
	})
}

// crowds are how many sessions idle at a time. Nearly 20,000 descriptors are needed for the
// last.
var crowds = []int{1000, 4000, 9000}

// grow runs imapwarden alone and prints a column for each number of sessions.
func (t *stand) grow(ctx context.Context, out io.Writer) error {
	if err := t.introduce(out); err != nil {
		return err
	}
	all := make(results)
	var names []string
	for _, n := range crowds {
		names = append(names, fmt.Sprintf("%d sessions", n))
	}
	for range t.runs {
		for _, i := range rand.Perm(len(crowds)) {
			t.sessions = crowds[i]
			this := make(figures)
			if err := t.idleWith(ctx, imapwarden, map[string]figures{imapwarden.name: this}); err != nil {
				return err
			}
			all[names[i]] = append(all[names[i]], this)
		}
	}
	all.print(out, names, names[0])
	return nil
}

// introduce says when, where, how much and of what.
func (t *stand) introduce(out io.Writer) error {
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %d × %s, Linux %s, %s\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), processor(),
		unix.ByteSliceToString(kernel.Release[:]), runtime.Version())
	for _, p := range t.peers {
		release, err := p.release()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s; ", release)
	}
	tls := ""
	if t.upstreamTLS {
		tls = ", TLS to the upstream"
	}
	fmt.Fprintf(out, "median of %d runs%s.\n\nA run: %d logins of each kind, %d at a time; %d MiB each way; %d NOOPs. Idle sessions, ",
		t.runs, tls, t.logins, parallel, t.octets>>20, t.noops)
	if !t.growth {
		fmt.Fprintf(out, "%d of them, ", t.sessions)
	}
	fmt.Fprintf(out, "have read 30 KiB and 200 KiB; memory %s after the last went idle", t.settle)
	if t.quiet > 0 {
		fmt.Fprintf(out, ", and at the end after %s of quiet", t.quiet)
	}
	fmt.Fprint(out, ".\n\n")
	return nil
}

// processor is its name as the kernel tells it.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close()
	for in := bufio.NewScanner(file); in.Scan(); {
		if name, value, _ := strings.Cut(in.Text(), ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// print writes a table in Markdown: medians, and in brackets their ratios to the base column.
func (r results) print(out io.Writer, columns []string, base string) {
	fmt.Fprintf(out, "| | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, name := range order {
		if _, measured := r[columns[0]][0][name]; !measured {
			continue
		}
		fmt.Fprintf(out, "| %s |", name)
		for _, column := range columns {
			fmt.Fprintf(out, " %s", short(median(r.values(column, name))))
			if base != "" && !slices.Contains(r.values(base, name), 0) {
				fmt.Fprintf(out, " (%.2f)", r.ratio(column, base, name))
			}
			fmt.Fprint(out, " |")
		}
		fmt.Fprintln(out)
	}
}

// ratio is the median of the ratios within each run: what slows the machine down for a
// whole run is in both.
func (r results) ratio(column, base, name string) float64 {
	ratios := r.values(column, name)
	for i, b := range r.values(base, name) {
		ratios[i] /= b
	}
	return median(ratios)
}

func (r results) values(column, name string) []float64 {
	var v []float64
	for _, f := range r[column] {
		v = append(v, f[name])
	}
	return v
}

func (r results) shares(columns []string, name string) string {
	var s []string
	for _, column := range columns {
		s = append(s, fmt.Sprintf("%.0f", median(r.values(column, name))))
	}
	return strings.Join(s, ", ")
}

// median is the mean of the two in the middle where there are two.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// short has three digits that count, and at most two behind the point.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
