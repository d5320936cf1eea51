package policy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shrunk returns a Gate with tables of the real size, or where the race detector makes
// everything slow of a part of it.
func shrunk() *Gate {
	g := calm(Limits{UnprovedPerHour: -1})
	g.start()
	g.sites = newTable[siteEntry](maxSites/shrink, maxSites/shrink/2)
	for i := range g.ranges {
		g.ranges[i] = newTable[rangeEntry](maxRanges/shrink, maxRanges/shrink/2)
	}
	g.networks = newTable[networkEntry](maxNetworks/shrink, maxNetworks/shrink/2)
	g.accounts = newTable[accountEntry](maxAccounts/shrink, maxAccounts/shrink/2)
	g.passwords = newTable[passwordEntry](maxPasswords/shrink, maxPasswords/shrink/2)
	return g
}

// anywhere is the n-th of many addresses all over IPv6, of which no two share a /32 but by chance.
func anywhere(n int) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], 0x2000_0000_0000_0000|uint64(n)*0x9e37_79b9_7f4a_7c15>>3)
	return netip.AddrFrom16(b)
}

// flood fails once from each of many addresses, each on an account and with a password of its own.
func flood(g *Gate, from, to int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for first := range runtime.GOMAXPROCS(0) {
		wg.Go(func() { flow(g, from+first, to, runtime.GOMAXPROCS(0)) })
	}
}

func flow(g *Gate, from, to, step int) {
	for n := from; n < to; n += step {
		account := fmt.Sprint("user", n)
		_, trial := g.Begin(password(anywhere(n), account).with(account))
		if trial == nil {
			continue
		}
		trial.Weigh(context.Background(), Nothing)
		trial.failWith(account)
	}
}

// megabytes is what the heap holds.
func megabytes() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 20)
}

// A million sources and a million accounts are tracked in 512 MiB. Four million more are forgotten in part,
// and nobody who is penalised gets free by them.
func TestFlood(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	before := megabytes()
	g := shrunk()
	g.Now = func() time.Time { return now }
	g.Limits.Decoys = nil
	g.limits.Decoys = []string{"backup"}

	sprayer := netip.MustParseAddr("192.0.2.9")
	for i := range 11 {
		fail(g, sprayer, fmt.Sprint("victim", i), fmt.Sprint(i))
		sprayer = sprayer.Next()
	}
	g.Begin(password(netip.MustParseAddr("198.51.100.66"), "backup"))
	failures(t, g, hotel, "bob", 10)
	for i := range 10 {
		failures(t, g, address(i), "alice", 1)
		failAs(g, password(address(100+i), fmt.Sprint("user", i)).with("Winter2026!"), Failure{})
	}
	_, trial := g.Begin(password(address(77), "carol"))
	signIn(t, g, atHome, "dave")

	const million = 1_000_000 / shrink
	flood(g, 0, million)
	used := megabytes() - before
	t.Logf("%d sites, %d and %d ranges, %d networks, %d accounts, %d passwords: %d MiB", g.sites.len(), g.ranges[0].len(),
		g.ranges[1].len(), g.networks.len(), g.accounts.len(), g.passwords.len(), used)
	if shrink == 1 && used >= 512 {
		t.Errorf("%d MiB", used)
	}
	if n := g.sites.len(); n < million*9/10 {
		t.Errorf("%d sites of a million", n)
	}
	if n := g.accounts.len(); n < million*9/10 {
		t.Errorf("%d accounts of a million", n)
	}

	flood(g, million, 5*million)
	for signal, d := range map[string]Decision{
		Banned:       ask(g, sprayer, "erin"),
		AddressLimit: ask(g, hotel, "erin"),
		AccountLimit: ask(g, address(300), "alice"),
	} {
		if d.Signal != signal {
			t.Errorf("after the flood %+v, want %s", d, signal)
		}
	}
	if d := ask(g, netip.MustParseAddr("198.51.100.66"), "erin"); d.Signal != Banned {
		t.Errorf("whoever tried a decoy: %+v", d)
	}
	if d, last := g.Begin(password(address(301), "erin").with("Winter2026!")); d.Demand != DemandFreshCode {
		t.Errorf("a sprayed password: %+v", d)
	} else {
		last.Release()
	}
	if e := g.Explain(password(atHome, "dave")); !e.Familiar {
		t.Error("a home is forgotten")
	}
	g.sites.look(g.prefixKey(SourceOf(address(77)).Site()), func(_ *siteEntry, f *flying) {
		if f.count != 1 {
			t.Errorf("%d attempts in flight, want 1", f.count)
		}
	})
	trial.Release()
	if used = megabytes() - before; shrink == 1 && used >= 512 {
		t.Errorf("%d MiB after the flood", used)
	}
	t.Logf("after five million: %d MiB, %d sites", used, g.sites.len())
	runtime.KeepAlive(g)
}

// BenchmarkDecision is a whole decision with all signals: about a failing stranger, where so many keys are
// known, and about an owner at home.
func BenchmarkDecision(b *testing.B) {
	for _, keys := range []int{1_000, 1_000_000} {
		g := calm(Limits{
			AddressPerMinute: 1 << 20, AddressPerDay: 1 << 20, AccountFailures: 1 << 30, NetworkAccounts: 1 << 20, UnprovedPerHour: 1 << 20,
			Decoys: []string{"backup", "test*", "*-old@example.org"}, Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		})
		g.Common = nobodys{}
		flood(g, 0, keys)
		at := make([]Attempt, 100_000)
		for i := range at {
			n := i * (keys / min(keys, len(at))) % keys
			name := fmt.Sprint("user", n)
			at[i] = password(anywhere(n), name).with(name + "2")
		}
		b.Run(fmt.Sprintf("stranger/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			began := cpuTime()
			for n := 0; b.Loop(); n++ {
				a := at[n%len(at)]
				_, trial := g.Begin(a)
				if trial == nil {
					b.Fatal("refused")
				}
				trial.Weigh(context.Background(), Nothing)
				trial.Failed(Failure{Password: a.Secret})
				trial.Release()
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
		signedIn := make([]Attempt, 10_000)
		for i := range signedIn {
			signedIn[i] = password(anywhere(i), fmt.Sprint("owner", i)).with("right")
			g.Acquaint(signedIn[i])
		}
		b.Run(fmt.Sprintf("owner/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			began := cpuTime()
			for n := 0; b.Loop(); n++ {
				_, trial := g.Begin(signedIn[n%len(signedIn)])
				if trial == nil {
					b.Fatal("refused")
				}
				trial.Weigh(context.Background(), Granted)
				trial.Succeeded(signedIn[n%len(signedIn)].Secret)
				trial.Release()
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// nobodys is a list of common passwords on which there is none.
type nobodys struct{}

func (nobodys) Has([]byte) bool { return false }

// cpuTime is what this process has used, user and system: on a busy machine, wall time says little.
func cpuTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
