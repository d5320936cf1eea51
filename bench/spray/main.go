// The simulator says what the limits are good for: a day of virtual time of 20,000 honest
// accounts and of those who attack them, answered by the product's own decision code and, with the
// same input, by what people have today.
//
//	go run ./bench/spray                       # a quiet day, and one with all attacks
//	go run ./bench/spray -attack one-password -why   # who was refused, and what for
//	go run ./bench/spray -set mistyped=0.2 -set stale-phones=0.05
//	go run ./bench/spray -parameters           # habits with their sources
//
// All input comes from a seed. See docs/spraying-simulation.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// settings are what a run is made of.
type settings struct {
	habits    Habits
	attackers Attackers
	seed      uint64
	attack    string // its name, "alone", "together", "none" or "day"
	mode      string // of the product: "required", "optional" or "both"
	parallel  int
	list      bool // of common passwords
	why       bool
	json      bool
}

func main() {
	s := settings{habits: defaultHabits(), attackers: defaultAttackers()}
	flag.Uint64Var(&s.seed, "seed", 1, "what everything comes from")
	flag.IntVar(&s.habits.People, "accounts", s.habits.People, "honest accounts")
	flag.StringVar(&s.attack, "attack", "day", "one of "+strings.Join(attackNames(), ", ")+"; alone (each of them), together, none; day (none, and together)")
	flag.StringVar(&s.mode, "mode", "both", "the product's mfa.mode: required, optional, both")
	flag.IntVar(&s.parallel, "parallel", runtime.GOMAXPROCS(0), "replays at a time")
	flag.BoolVar(&s.list, "list", false, "give the product the list of common passwords that attackers have")
	flag.BoolVar(&s.why, "why", false, "list which honest logins were refused, by signal and circumstance")
	flag.BoolVar(&s.json, "json", false, "print one JSON object")
	parameters := flag.Bool("parameters", false, "list all parameters and where their values come from, and do nothing else")
	flag.Func("set", "`name=value` of a parameter; may be given more than once", func(text string) error {
		name, value, _ := strings.Cut(text, "=")
		return set(s.parameters(), name, value)
	})
	flag.Parse()
	if *parameters {
		printParameters(os.Stdout, s.parameters())
		return
	}
	if err := run(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench/spray:", err)
		os.Exit(1)
	}
}

func (s *settings) parameters() []parameter {
	return append(s.habits.parameters(), s.attackers.parameters()...)
}

func run(s settings, out io.Writer) error {
	days, err := chosenDays(s.attack)
	if err != nil {
		return err
	}
	if s.mode != "required" && s.mode != "optional" && s.mode != "both" {
		return fmt.Errorf("there is no mode %q; there are required, optional and both", s.mode)
	}
	r := simulate(s, days)
	if s.json {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	return r.print(out, s.why)
}

func attackNames() (names []string) {
	for _, a := range attacks {
		names = append(names, a.Name)
	}
	return names
}

// chosenDays says which attacks belong to each of the days that are to be replayed.
func chosenDays(attack string) (days [][]int, err error) {
	var alone [][]int
	var together []int
	for i := range attacks {
		alone, together = append(alone, []int{i}), append(together, i)
	}
	switch attack {
	case "none":
		return [][]int{{}}, nil
	case "alone":
		return alone, nil
	case "together":
		return [][]int{together}, nil
	case "day":
		return [][]int{{}, together}, nil
	}
	i := slices.Index(attackNames(), attack)
	if i < 0 {
		return nil, fmt.Errorf("there is no attack %q; there are none, %s, alone, together and day", attack, strings.Join(attackNames(), ", "))
	}
	return [][]int{{i}}, nil
}

// simulate makes the world, and replays each day before each defence.
func simulate(s settings, days [][]int) *Report {
	began := time.Now()
	w := NewWorld(s.habits, s.seed)
	hostile := make([][]Login, len(attacks))
	for i := range attacks {
		hostile[i] = w.Attack(s.attackers, i)
	}
	r := &Report{
		Seed: s.seed, Accounts: s.habits.People, Parameters: s.parameters(),
		Logins: len(w.Logins), made: time.Since(began),
	}
	var work []func()
	for _, attacking := range days {
		day := &Day{}
		streams := [][]Login{w.Logins}
		for _, i := range attacking {
			day.Attacks = append(day.Attacks, attacks[i].Name)
			streams = append(streams, hostile[i])
		}
		r.Days = append(r.Days, day)
		defences := s.defences(w)
		day.Tallies = make([]*Tally, len(defences))
		for i, make := range defences {
			work = append(work, func() { day.Tallies[i] = Replay(w, &s.attackers, make(), slices.Clone(streams)...) })
		}
	}
	inParallel(s.parallel, work)
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	r.Memory, r.Seconds = memory.Sys, time.Since(began).Seconds()
	return r
}

// defences are the product's, and then what people have today.
func (s *settings) defences(w *World) (all []func() Defence) {
	for _, optional := range []bool{false, true} {
		if s.mode == "both" || optional == (s.mode == "optional") {
			all = append(all, func() Defence { return newProduct(w, optional, s.list) })
		}
	}
	return append(all,
		func() Defence { return newFail2ban(w) },
		func() Defence { return newPenalty(w) },
		func() Defence { return newAddressLimits(w) })
}

func inParallel(most int, work []func()) {
	next := make(chan func())
	var all sync.WaitGroup
	for range max(1, most) {
		all.Go(func() {
			for do := range next {
				do()
			}
		})
	}
	for _, do := range work {
		next <- do
	}
	close(next)
	all.Wait()
}
