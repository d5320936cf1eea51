package main

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Attackers is what attackers do, as numbers. Shares are of 1.
type Attackers struct {
	Codes        float64 // attempts with six random digits behind the password
	Unknown      float64 // names on a sprayer's list that nobody has
	NearHomes    float64 // sources in the /24s where our people live: residential proxies
	InCarriers   float64 // sources behind the gateways of our people's operators
	InHosting    float64 // sources in a few /24s of a hosting company; the rest is far from everybody
	HostingRange int     // of these /24s

	OneRate        time.Duration // one source: between its attempts
	OneConnections int
	ManySources    int // many sources, one account: so many
	ManyGuesses    int // of each target
	ManyTargets    int
	SpraySources   int // many sources, one password
	SprayHours     time.Duration
	SlowSources    int // low and slow
	SlowPasswords  int // of the list, in turn
	StuffSources   int // credential stuffing
	StuffPairs     int
	StuffRight     float64
	StuffUnknown   float64
	StuffHours     time.Duration
	LockoutTargets int
	LockoutEvery   time.Duration // between attempts on a target
	LockoutNear    float64       // of these, from the networks of the owner
	KnownAccounts  int           // one right guess each, once
}

func defaultAttackers() Attackers {
	return Attackers{
		Codes: 0.5, Unknown: 0.1, NearHomes: 0.1, InCarriers: 0.05, InHosting: 0.2, HostingRange: 20,
		OneRate: time.Second, OneConnections: 16,
		ManySources: 2000, ManyGuesses: 2000, ManyTargets: 10,
		SpraySources: 10_000, SprayHours: 4 * time.Hour, SlowSources: 5000, SlowPasswords: 100,
		StuffSources: 3000, StuffPairs: 20_000, StuffRight: 0.01, StuffUnknown: 0.5, StuffHours: 6 * time.Hour,
		LockoutTargets: 20, LockoutEvery: time.Minute, LockoutNear: 0.3, KnownAccounts: 200,
	}
}

func (a *Attackers) parameters() []parameter {
	return []parameter{
		{"codes", &a.Codes, assumed},
		{"unknown", &a.Unknown, assumed},
		{"near-homes", &a.NearHomes, "sprayers come through residential proxies: KBI.media (2024); the share is assumed"},
		{"in-carriers", &a.InCarriers, "the same"},
		{"in-hosting", &a.InHosting, "clouds are used as much: spambrats.com's statistics; the share is assumed"},
		{"hosting-range", &a.HostingRange, assumed},
		{"one-rate", &a.OneRate, assumed + ": as fast as refusals allow"},
		{"one-connections", &a.OneConnections, "hydra's default tasks"},
		{"many-sources", &a.ManySources, assumed},
		{"many-guesses", &a.ManyGuesses, assumed},
		{"many-targets", &a.ManyTargets, assumed},
		{"spray-sources", &a.SpraySources, "the issue"},
		{"spray-hours", &a.SprayHours, assumed},
		{"slow-sources", &a.SlowSources, "one or two attempts an address are usual: Microsoft on low and slow sprays (2022)"},
		{"slow-passwords", &a.SlowPasswords, assumed},
		{"stuff-sources", &a.StuffSources, assumed},
		{"stuff-pairs", &a.StuffPairs, assumed},
		{"stuff-right", &a.StuffRight, "the issue; 0.1 to 2 % are reported"},
		{"stuff-unknown", &a.StuffUnknown, assumed},
		{"stuff-hours", &a.StuffHours, assumed},
		{"lockout-targets", &a.LockoutTargets, assumed},
		{"lockout-every", &a.LockoutEvery, assumed},
		{"lockout-near", &a.LockoutNear, assumed + ": a neighbour, or one of the same operator"},
		{"known-accounts", &a.KnownAccounts, assumed},
	}
}

// An Attack is one attacker's day.
type Attack struct {
	Name string
	Text string

	connections int // at a time, of one source
	make        func(x *attacker)
}

// attacks are all that the issue names, and one who needs no second guess.
var attacks = []Attack{
	{"one-source", "one source, many accounts", 0, (*attacker).oneSource},
	{"one-account", "many sources, one account", 1, (*attacker).oneAccount},
	{"one-password", "10,000 sources, one password", 1, (*attacker).onePassword},
	{"low-and-slow", "one attempt per account a day", 1, (*attacker).lowAndSlow},
	{"stuffing", "credential stuffing, 1 % right", 1, (*attacker).stuffing},
	{"lockout", "wants owners locked out", 4, (*attacker).lockout},
	{"right-guess", "one right guess, once", 1, (*attacker).rightGuess},
}

// An attacker is at work while its day is made.
type attacker struct {
	Attackers
	world   *World
	number  int
	random  *rand.Rand
	unique  Secret
	sources []netip.Addr
	logins  []Login
}

// Attack makes the day of the n-th attack, by time.
func (w *World) Attack(a Attackers, n int) []Login {
	x := &attacker{Attackers: a, world: w, number: n, random: w.random(forAttack, n)}
	attacks[n].make(x)
	slices.SortStableFunc(x.logins, func(a, b Login) int { return cmp.Compare(a.At, b.At) })
	return x.logins
}

// Connections is how many attempts a source of the n-th attack has under way at most.
func (a *Attackers) Connections(n int) int {
	if c := attacks[n].connections; c > 0 {
		return c
	}
	return a.OneConnections
}

// try adds an attempt.
func (x *attacker) try(at time.Duration, addr netip.Addr, account int32, secret Secret) {
	l := Login{At: at, Session: time.Minute, Addr: addr, Account: account, Secret: secret, From: int8(x.number + 1)}
	if x.random.Float64() < x.Codes {
		l.Code, l.Digits = WrongCode, 1_000_000+uint32(x.random.IntN(1_000_000))
		if x.random.IntN(1_000_000) < 3 { // RFC 6238: the step of now and those beside it
			l.Code = FreshCode
		}
	}
	x.logins = append(x.logins, l)
}

// guess is a password that is nobody's, and that nobody tries twice.
func (x *attacker) guess() Secret {
	x.unique++
	return guessed + Secret(x.number)<<24 + x.unique
}

// hire gets sources, where residential proxies and rented machines are.
func (x *attacker) hire(n int) {
	w, r := x.world, x.random
	for range n {
		at := r.Float64()
		switch {
		case at < x.NearHomes:
			x.sources = append(x.sources, nth(homes4, r.IntN(max(1, w.People/w.HomesPerBlock))<<8|1+r.IntN(250)))
		case at < x.NearHomes+x.InCarriers:
			x.sources = append(x.sources, w.gatewayNumber(r.IntN(w.Carriers), r.IntN(w.CarrierBlocks*w.CarrierHosts)))
		case at < x.NearHomes+x.InCarriers+x.InHosting:
			x.sources = append(x.sources, nth(hosting4, (x.number<<8|r.IntN(x.HostingRange))<<8|1+r.IntN(250)))
		default:
			x.sources = append(x.sources, nth(others4, r.IntN(1<<24)))
		}
	}
}

// source takes the next one in turn.
func (x *attacker) source(turn int) netip.Addr { return x.sources[turn%len(x.sources)] }

// target is an account, or a name that nobody has.
func (x *attacker) target(account int, unknown float64) int32 {
	if x.random.Float64() < unknown {
		return -1 - int32(account)
	}
	return int32(account)
}

// oneSource tries the commonest password on all accounts, then the next one.
func (x *attacker) oneSource() {
	addr := nth(others4, 0x123456)
	people := x.random.Perm(x.world.People)
	for i, t := 0, time.Duration(0); t < day; i, t = i+1, t+x.OneRate {
		x.try(t, addr, x.target(people[i%len(people)], x.Unknown), Secret(1+i/len(people)))
	}
}

// oneAccount goes through the list of common passwords for some chosen people, and on with others.
// Every fifth of them has one of the list.
func (x *attacker) oneAccount() {
	x.hire(x.ManySources)
	targets := x.weakPeople(x.ManyTargets / 5)
	for len(targets) < x.ManyTargets {
		targets = append(targets, x.random.IntN(x.world.People))
	}
	turn := 0
	for i := range x.ManyGuesses {
		t := time.Duration(int64(day) / int64(x.ManyGuesses) * int64(i))
		for _, target := range targets {
			secret := Secret(1 + i)
			if i >= commonPasswords {
				secret = x.guess()
			}
			x.try(t+time.Duration(x.random.Int64N(int64(time.Minute))), x.source(turn), int32(target), secret)
			turn++
		}
	}
}

func (x *attacker) weakPeople(most int) (weak []int) {
	for _, i := range x.random.Perm(x.world.People) {
		if len(weak) == most {
			break
		}
		if x.world.Accounts[i].passwords[0] <= commonPasswords {
			weak = append(weak, i)
		}
	}
	return weak
}

// onePassword tries the commonest one on all accounts, from everywhere.
func (x *attacker) onePassword() {
	x.hire(x.SpraySources)
	for turn, account := range x.random.Perm(x.world.People) {
		t := 9*time.Hour + time.Duration(int64(x.SprayHours)/int64(x.world.People)*int64(turn))
		x.try(t, x.source(turn), x.target(account, x.Unknown), 1)
	}
}

// lowAndSlow tries each account once, with passwords that take turns.
func (x *attacker) lowAndSlow() {
	x.hire(x.SlowSources)
	for turn, account := range x.random.Perm(x.world.People) {
		t := time.Duration(int64(day) / int64(x.world.People) * int64(turn))
		x.try(t, x.source(turn), x.target(account, x.Unknown), Secret(1+turn%x.SlowPasswords))
	}
}

// stuffing tries pairs that leaked elsewhere, each once.
func (x *attacker) stuffing() {
	x.hire(x.StuffSources)
	for turn := range x.StuffPairs {
		t := 10*time.Hour + time.Duration(int64(x.StuffHours)/int64(x.StuffPairs)*int64(turn))
		account, secret := x.random.IntN(x.world.People), leaked+Secret(turn)
		switch r := x.random.Float64(); {
		case r < x.StuffRight:
			x.try(t, x.source(turn), int32(account), x.world.Accounts[account].password(t))
		case r < x.StuffRight+x.StuffUnknown:
			x.try(t, x.source(turn), -1-int32(turn), secret)
		default:
			x.try(t, x.source(turn), int32(account), secret)
		}
	}
}

// lockout guesses at some accounts all day, also from where their owners are.
func (x *attacker) lockout() {
	x.hire(500)
	for n := range x.LockoutTargets {
		target := x.random.IntN(x.world.People)
		for t := time.Duration(n) * time.Second; t < day; t += x.LockoutEvery {
			addr := x.source(x.random.IntN(len(x.sources)))
			if x.random.Float64() < x.LockoutNear {
				addr = x.near(target, t)
			}
			x.try(t, addr, int32(target), x.guess())
		}
	}
}

// near is an address beside one of the target's own: a neighbour's, or another gateway of the operator's.
func (x *attacker) near(target int, t time.Duration) netip.Addr {
	w := x.world
	a := &w.Accounts[target]
	if home := a.home.at(w, 0); home.Is4() && x.random.IntN(2) == 0 {
		b := home.As4()
		b[3] = byte(1 + x.random.IntN(250))
		return netip.AddrFrom4(b)
	}
	return w.gateway(a.carrier, -int32(x.random.IntN(100)), t)
}

// rightGuess knows some passwords, and uses each once, from an address that nobody has seen.
func (x *attacker) rightGuess() {
	x.hire(x.KnownAccounts)
	for turn := range min(x.KnownAccounts, x.world.People) {
		account := x.random.IntN(x.world.People)
		t := time.Duration(x.random.Int64N(int64(day)))
		x.try(t, x.source(turn), int32(account), x.world.Accounts[account].password(t))
	}
}
