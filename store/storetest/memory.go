package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"imapwarden/policy"
)

// ban is one with something in every field.
func ban(network string) policy.Ban {
	return policy.Ban{
		Network: netip.MustParsePrefix(network), Signal: "network-accounts",
		Since: day, Until: day.Add(10 * time.Minute), Times: 1, Detail: "o'hare \"ü\"",
	}
}

func home(account, site string, last time.Time) policy.Home {
	return policy.Home{Account: account, Site: netip.MustParsePrefix(site), Last: last}
}

func putBans(t *testing.T, s Store, list ...policy.Ban) {
	t.Helper()
	must(t, s.PutBans(t.Context(), list...))
}

func putHomes(t *testing.T, s Store, list ...policy.Home) {
	t.Helper()
	must(t, s.PutHomes(t.Context(), list...))
}

func bans(t *testing.T, s Store) []policy.Ban {
	t.Helper()
	list, err := s.Bans(t.Context())
	must(t, err)
	return list
}

func homes(t *testing.T, s Store, limit int) []policy.Home {
	t.Helper()
	list, err := s.Homes(t.Context(), limit)
	must(t, err)
	return list
}

func banRoundTrip(t *testing.T, s Store) {
	same(t, "the bans of an empty store", bans(t, s), nil)
	putBans(t, s)
	byHand := ban("2001:db8::/32")
	byHand.Signal, byHand.Times, byHand.Until = policy.ByHand, 7, day.AddDate(1, 0, 0)
	bare := policy.Ban{Network: netip.MustParsePrefix("198.51.100.7/32")}
	finer := ban("2001:db8:0:1::/64")
	finer.Since, finer.Until = day.Add(999).In(time.FixedZone("", 3600)), day.Add(1999)
	given := []policy.Ban{
		finer, byHand, ban("::/0"), ban("10.0.0.0/8"), bare, ban("9.0.0.0/8"), ban("2001:db8::/48"), ban("10.0.0.0/24"), ban("0.0.0.0/0"), ban("a::1/128"),
	}
	before := slices.Clone(given)
	putBans(t, s, given...)
	if !slices.Equal(given, before) {
		t.Error("the caller's bans were changed")
	}
	finer.Since, finer.Until = day, day.Add(time.Microsecond)
	want := []policy.Ban{
		ban("0.0.0.0/0"), ban("9.0.0.0/8"), ban("10.0.0.0/8"), ban("10.0.0.0/24"), bare, // as numbers, IPv4 first
		ban("::/0"), ban("a::1/128"), byHand, ban("2001:db8::/48"), finer,
	}
	same(t, "the bans", bans(t, s), want)
	if b := bans(t, s)[4]; !b.Since.IsZero() || !b.Until.IsZero() {
		t.Errorf("the zero times came back as %v and %v", b.Since, b.Until)
	}
}

func putBansReplaces(t *testing.T, s Store) {
	putBans(t, s, ban("192.0.2.0/24"), ban("192.0.2.0/25"), ban("2001:db8::/48"))
	again := policy.Ban{
		Network: netip.MustParsePrefix("192.0.2.0/24"), Signal: policy.ByHand,
		Since: day.Add(-time.Hour), Until: day.Add(-time.Minute), Times: 2, Detail: "other", // it may end sooner
	}
	third := ban("2001:db8::/48")
	third.Times = 3
	second := third
	second.Times = 2
	putBans(t, s, again, second, third)
	same(t, "the bans", bans(t, s), []policy.Ban{again, ban("192.0.2.0/25"), third}) // of two in one call the last
}

func removeBans(t *testing.T, s Store) {
	removed := func(networks ...string) {
		t.Helper()
		var list []netip.Prefix
		for _, n := range networks {
			list = append(list, netip.MustParsePrefix(n))
		}
		must(t, s.RemoveBans(t.Context(), list...))
	}
	putBans(t, s, ban("192.0.2.0/24"), ban("192.0.2.0/25"), ban("198.51.100.7/32"), ban("2001:db8::/32"), ban("2001:db8::/48"))
	removed()
	removed("203.0.113.0/24", "192.0.2.0/26", "::ffff:192.0.2.0/120", "192.0.2.1/24") // none of them is there
	must(t, s.RemoveBans(t.Context(), netip.Prefix{}))
	same(t, "the number of bans", len(bans(t, s)), 5)
	removed("2001:db8::/48", "192.0.2.0/24", "203.0.113.0/24", "192.0.2.0/24")
	same(t, "the bans", bans(t, s), []policy.Ban{ban("192.0.2.0/25"), ban("198.51.100.7/32"), ban("2001:db8::/32")})
	putBans(t, s, ban("192.0.2.0/24"))
	same(t, "the number of bans", len(bans(t, s)), 4)
}

// places are homes that differ in one part each, the latest first.
func places() []policy.Home {
	list := []policy.Home{
		home("alice", "192.0.2.1/32", day.Add(time.Hour)),
		home("alice", "192.0.2.1/32", day.Add(time.Second)),
		home("alice", "2001:db8:0:1::/64", day.Add(time.Microsecond)),
		home("Alice", "192.0.2.1/32", day),
		home("o'brien%_\"ü", "192.0.2.1/32", day.Add(-time.Microsecond)),
		home("alice", "2001:db8::/64", day.Add(-time.Hour)),
		home("alice", "192.0.2.2/32", time.Time{}),
	}
	list[1].AppPassword = true
	return list
}

func homeRoundTrip(t *testing.T, s Store) {
	same(t, "the homes of an empty store", homes(t, s, 10), nil)
	putHomes(t, s)
	given := places()
	given[3].Last = day.Add(999).In(time.FixedZone("", 3600))
	slices.Reverse(given)
	given[0], given[2] = given[2], given[0]
	before := slices.Clone(given)
	putHomes(t, s, given...)
	if !slices.Equal(given, before) {
		t.Error("the caller's homes were changed")
	}
	same(t, "the homes, times cut to microseconds", homes(t, s, 10), places())
	if last := homes(t, s, 10)[6].Last; !last.IsZero() {
		t.Errorf("the zero time came back as %v", last)
	}
}

func homeLimit(t *testing.T, s Store) {
	for _, h := range places() {
		putHomes(t, s, h)
	}
	for limit, want := range map[int]int{-1: 0, 0: 0, 1: 1, 3: 3, 7: 7, 8: 7, 1_000_000: 7} {
		same(t, fmt.Sprintf("at most %d homes", limit), homes(t, s, limit), places()[:want])
	}
}

func putHomesLater(t *testing.T, s Store) {
	later, earlier, other := home("later", "192.0.2.1/32", day.Add(time.Hour)), home("earlier", "192.0.2.1/32", day), home("other", "2001:db8::/64", day.Add(-time.Hour))
	putHomes(t, s, later, earlier, other)
	step := func(h policy.Home, by time.Duration) policy.Home { h.Last = h.Last.Add(by); return h }
	putHomes(t, s, step(later, time.Microsecond), step(earlier, -time.Microsecond), other)
	later = step(later, time.Microsecond)
	same(t, "the homes", homes(t, s, 10), []policy.Home{later, earlier, other})

	// Also within one call, and not by less than is kept.
	putHomes(t, s, step(other, 2*time.Hour+999), step(other, time.Minute), step(later, 999))
	same(t, "the homes", homes(t, s, 10), []policy.Home{later, step(other, 2*time.Hour), earlier})
}

// putManyHomes is what a Gate has to remember of a busy morning.
func putManyHomes(t *testing.T, s Store) {
	const many = 5000
	want := make([]policy.Home, many)
	for i := range want {
		site := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
		want[i] = policy.Home{Account: fmt.Sprint("user", i%1000), AppPassword: i%2 == 0, Site: site, Last: day.Add(-time.Duration(i) * time.Second)}
	}
	given := slices.Clone(want)
	rand.Shuffle(many, func(i, j int) { given[i], given[j] = given[j], given[i] })
	putHomes(t, s, given...)
	same(t, "the homes", homes(t, s, 2*many), want)
	must(t, s.PurgeMemory(t.Context(), day, want[many/2-1].Last))
	same(t, "the homes that are left", homes(t, s, 2*many), want[:many/2])
}

// putMemoryWhole: what isn't masked, or IPv4 as IPv6, would be there twice.
func putMemoryWhole(t *testing.T, s Store) {
	kept := home("alice", "192.0.2.1/32", day)
	putBans(t, s, ban("192.0.2.0/24"))
	putHomes(t, s, kept)
	for _, wrong := range []netip.Prefix{
		{},
		netip.PrefixFrom(netip.MustParseAddr("192.0.2.0"), 33),
		netip.MustParsePrefix("192.0.2.1/24"),
		netip.MustParsePrefix("2001:db8::1/64"),
		netip.MustParsePrefix("::ffff:192.0.2.0/120"),
	} {
		changed, broken := ban("192.0.2.0/24"), ban("198.51.100.0/24")
		changed.Times, broken.Network = 2, wrong
		for _, list := range [][]policy.Ban{{changed, ban("203.0.113.0/24"), broken}, {broken, changed, ban("203.0.113.0/24")}} {
			if err := s.PutBans(t.Context(), list...); err == nil {
				t.Errorf("a ban of %v was written", wrong)
			}
		}
		later, nowhere := home("alice", "192.0.2.1/32", day.Add(time.Hour)), home("bob", "192.0.2.1/32", day)
		nowhere.Site = wrong
		for _, list := range [][]policy.Home{{later, home("carol", "192.0.2.1/32", day), nowhere}, {nowhere, later, home("carol", "192.0.2.1/32", day)}} {
			if err := s.PutHomes(t.Context(), list...); err == nil {
				t.Errorf("a home at %v was written", wrong)
			}
		}
	}
	same(t, "the bans", bans(t, s), []policy.Ban{ban("192.0.2.0/24")})
	same(t, "the homes", homes(t, s, 10), []policy.Home{kept})
}

func removeHomes(t *testing.T, s Store) {
	app := home("alice", "192.0.2.2/32", day)
	app.AppPassword = true
	bob, stranger := home("bob", "192.0.2.1/32", day.Add(time.Second)), home("carol", "192.0.2.1/32", day)
	put(t, s, enrolled("alice"), enrolled("bob"))
	putHomes(t, s, home("alice", "192.0.2.1/32", day), app, home("alice", "2001:db8::/64", day), bob, stranger)
	must(t, s.RemoveAccount(t.Context(), "alice"))
	same(t, "the homes", homes(t, s, 10), []policy.Home{bob, stranger})
	if err := s.RemoveAccount(t.Context(), "carol"); err == nil { // at home, but without a record
		t.Error("an account without a record was removed")
	}
	same(t, "the homes", homes(t, s, 10), []policy.Home{bob, stranger})
}

func purgeMemory(t *testing.T, s Store) {
	over, ending, lasting := ban("192.0.2.0/24"), ban("198.51.100.0/24"), ban("2001:db8::/48")
	over.Until, ending.Until, lasting.Until = day.Add(-time.Microsecond), day, day.Add(time.Hour)
	old, known, now := home("old", "192.0.2.1/32", day.Add(-time.Hour-time.Microsecond)), home("known", "192.0.2.1/32", day.Add(-time.Hour)), home("new", "192.0.2.1/32", day)
	putBans(t, s, over, ending, lasting)
	putHomes(t, s, old, known, now)

	must(t, s.PurgeMemory(t.Context(), day.Add(-time.Hour), day.Add(-2*time.Hour)))
	same(t, "all bans", bans(t, s), []policy.Ban{over, ending, lasting}) // one is over, but not purged
	same(t, "all homes", homes(t, s, 10), []policy.Home{now, known, old})
	must(t, s.PurgeMemory(t.Context(), day.Add(999), day.Add(-time.Hour+999))) // at, not before
	same(t, "the bans that are left", bans(t, s), []policy.Ban{ending, lasting})
	same(t, "the homes that are left", homes(t, s, 10), []policy.Home{now, known})
}

func cancelledMemory(t *testing.T, s Store) {
	b, h := ban("192.0.2.0/24"), home("alice", "192.0.2.1/32", day)
	putBans(t, s, b)
	putHomes(t, s, h)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	later := h
	later.Last = day.Add(time.Hour)
	for method, call := range map[string]func() error{
		"Bans":          func() error { _, err := s.Bans(ctx); return err },
		"PutBans":       func() error { return s.PutBans(ctx, ban("2001:db8::/48")) },
		"PutBans, 0":    func() error { return s.PutBans(ctx) },
		"RemoveBans":    func() error { return s.RemoveBans(ctx, b.Network) },
		"RemoveBans, 0": func() error { return s.RemoveBans(ctx) },
		"Homes":         func() error { _, err := s.Homes(ctx, 10); return err },
		"PutHomes":      func() error { return s.PutHomes(ctx, later) },
		"PutHomes, 0":   func() error { return s.PutHomes(ctx) },
		"PurgeMemory":   func() error { return s.PurgeMemory(ctx, day.AddDate(1, 0, 0), day.AddDate(1, 0, 0)) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", method, err)
		}
	}
	same(t, "the bans", bans(t, s), []policy.Ban{b})
	same(t, "the homes", homes(t, s, 10), []policy.Home{h})
}

// memoryRace: whoever comes last, the latest Last stays, and a ban is never half of one and half
// of another.
func memoryRace(t *testing.T, s Store) {
	const racers = 16
	shared := make([]policy.Home, racers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		shared[i] = home("alice", "192.0.2.1/32", day.Add(time.Duration(i)*time.Second))
		own := home(fmt.Sprint("user", i), "2001:db8::/64", day.Add(-time.Hour))
		first, second := ban("192.0.2.0/24"), ban("2001:db8::/48")
		first.Times, second.Times, first.Detail = i, i, fmt.Sprint(i)
		passing := ban(fmt.Sprintf("198.51.100.%d/32", i))
		wg.Go(func() {
			<-start
			ctx := t.Context()
			for _, call := range []func() error{
				func() error { return s.PutBans(ctx, passing, first, second) },
				func() error { return s.PutHomes(ctx, own, shared[i]) },
				func() error { _, err := s.Homes(ctx, racers); return err },
				func() error { return s.RemoveBans(ctx, passing.Network) },
				func() error { return s.PurgeMemory(ctx, day, day.Add(-time.Hour)) },
			} {
				if err := call(); err != nil {
					t.Error(err)
				}
				list, err := s.Bans(ctx)
				if err != nil {
					t.Error(err)
				}
				if n := len(list); n < 2 || list[0].Times != list[n-1].Times || list[0].Detail != fmt.Sprint(list[0].Times) {
					t.Errorf("the bans of two calls are mixed: %+v", list)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	same(t, "the number of bans", len(bans(t, s)), 2)
	same(t, "the number of homes", len(homes(t, s, 100)), racers+1)
	same(t, "the latest home", homes(t, s, 1), shared[racers-1:])
}
