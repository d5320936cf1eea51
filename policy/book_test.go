package policy

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var sameNetworks = cmpopts.EquateComparable(netip.Prefix{})

func TestNewBan(t *testing.T) {
	now := time.Date(2026, 11, 23, 4, 30, 0, 123_456_789, time.FixedZone("CET", 3600))
	began := time.Date(2026, 11, 23, 3, 30, 0, 123_456_000, time.UTC)
	for text, test := range map[string]struct {
		length time.Duration
		want   string // the network
	}{
		"203.0.113.7/32":          {time.Second, "203.0.113.7/32"},
		"203.0.113.7/24":          {24 * time.Hour, "203.0.113.0/24"},
		"10.1.2.3/8":              {90 * 24 * time.Hour, "10.0.0.0/8"},
		"::ffff:203.0.113.7/120":  {time.Hour, "203.0.113.0/24"},
		"2001:db8:1:2:3:4:5:6/64": {time.Hour, "2001:db8:1:2::/64"},
		"2001:db8::/16":           {time.Hour, "2001::/16"},
	} {
		ban, err := NewBan(netip.MustParsePrefix(text), test.length, "uid 0", now)
		if err != nil {
			t.Errorf("%s for %s: %v", text, test.length, err)
			continue
		}
		want := Ban{
			Network: netip.MustParsePrefix(test.want), Signal: ByHand, Since: began, Until: began.Add(test.length), Times: 1, Detail: "uid 0",
		}
		if diff := cmp.Diff(want, ban, sameNetworks); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestNewBanRefuses(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		network netip.Prefix
		length  time.Duration
		says    []string
	}{
		"everybody":         {netip.MustParsePrefix("0.0.0.0/0"), day, []string{"0.0.0.0/0 is too wide", "a /8 at most", `networks = ["0.0.0.0/0"] and action = "deny"`}},
		"two big networks":  {netip.MustParsePrefix("10.0.0.0/7"), day, []string{"10.0.0.0/7 is too wide"}},
		"as IPv6":           {netip.MustParsePrefix("::ffff:10.0.0.0/103"), day, []string{"10.0.0.0/7 is too wide"}},
		"half the registry": {netip.MustParsePrefix("2001:db8::/15"), day, []string{"2000::/15 is too wide", "a /16 at most"}},
		"more than IPv4":    {netip.MustParsePrefix("::ffff:203.0.113.0/90"), day, []string{"stands for IPv4 addresses"}},
		"no network":        {netip.Prefix{}, day, []string{"no such network", "203.0.113.0/24"}},
		"no bits":           {netip.PrefixFrom(netip.MustParseAddr("203.0.113.7"), 33), day, []string{"no such network"}},
		"too short":         {netip.MustParsePrefix("203.0.113.0/24"), time.Second - 1, []string{"a second at least"}},
		"none":              {netip.MustParsePrefix("203.0.113.0/24"), 0, []string{"a second at least"}},
		"backwards":         {netip.MustParsePrefix("203.0.113.0/24"), -day, []string{"a second at least"}},
		"too long":          {netip.MustParsePrefix("203.0.113.9/24"), 90*day + 1, []string{"90 days at most", `networks = ["203.0.113.0/24"] and action = "deny"`}},
	} {
		t.Run(name, func(t *testing.T) {
			ban, err := NewBan(test.network, test.length, "uid 0", time.Now())
			if bad, ok := errors.AsType[*BadBan](err); !ok || ban != (Ban{}) {
				t.Fatalf("got %v and %v, want a BadBan and no ban", ban, bad)
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q doesn't say %q", err, part)
				}
			}
		})
	}
}

// A keeper is what a Gate and a Book both do with bans.
type keeper interface {
	Bans(ctx context.Context) ([]Ban, error)
	Ban(ctx context.Context, ban Ban) error
	Unban(ctx context.Context, network netip.Prefix) (known bool, err error)
}

// Whether a server runs or not, an administrator's bans are the same.
func TestBansByHand(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, m Memory, now func() time.Time) keeper{
		"book": func(_ *testing.T, m Memory, now func() time.Time) keeper { return Book{Memory: m, Now: now} },
		"gate": func(t *testing.T, m Memory, now func() time.Time) keeper {
			g := &Gate{Now: now}
			if err := g.Load(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			return g
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
			clock := func() time.Time { return now }
			m := &sorted{newFakeMemory()}
			testBansByHand(t, func() keeper { return open(t, m, clock) }, &now)
		})
	}
}

func testBansByHand(t *testing.T, open func() keeper, now *time.Time) {
	made := func(network string, length time.Duration) Ban {
		ban, err := NewBan(netip.MustParsePrefix(network), length, "uid 0", *now)
		if err != nil {
			t.Fatal(err)
		}
		return ban
	}
	k := open()
	short, wide, six := made("203.0.113.0/24", time.Hour), made("10.0.0.0/8", 3*time.Hour), made("2001:db8::/32", 2*time.Hour)
	for _, ban := range []Ban{six, short, wide} {
		if err := k.Ban(t.Context(), ban); err != nil {
			t.Fatal(err)
		}
	}
	compareBans(t, k, wide, short, six)
	compareBans(t, open(), wide, short, six) // durable

	*now = now.Add(time.Hour) // short ends
	compareBans(t, k, wide, six)
	if known, err := k.Unban(t.Context(), short.Network); known || err != nil {
		t.Errorf("unbanning what is over: %v, %v", known, err)
	}
	if known, err := k.Unban(t.Context(), netip.MustParsePrefix("10.0.0.0/9")); known || err != nil {
		t.Errorf("unbanning a part: %v, %v", known, err)
	}
	if known, err := k.Unban(t.Context(), six.Network); !known || err != nil {
		t.Errorf("unbanning: %v, %v", known, err)
	}
	again := made("10.0.0.0/8", time.Minute)
	if err := k.Ban(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	compareBans(t, k, again)
	compareBans(t, open(), again)
}

func compareBans(t *testing.T, k keeper, want ...Ban) {
	t.Helper()
	got, err := k.Bans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sameNetworks); diff != "" {
		t.Errorf("bans (-want +got):\n%s", diff)
	}
}

// sorted is a fakeMemory that keeps the promise of an order.
type sorted struct{ *fakeMemory }

func (m *sorted) Bans(ctx context.Context) ([]Ban, error) {
	list, err := m.fakeMemory.Bans(ctx)
	sortBans(list)
	return list, err
}

// A ban that no Gate could load must not pass for one.
func TestBookIsBounded(t *testing.T) {
	now := time.Now()
	full := newFakeMemory()
	first := netip.MustParseAddr("2001:db8::").As16()
	networks := make([]netip.Prefix, maxBans)
	for i := range networks {
		first[4], first[5], first[6] = byte(i>>16), byte(i>>8), byte(i)
		networks[i] = netip.PrefixFrom(netip.AddrFrom16(first), 56)
		full.bans[networks[i]] = Ban{Network: networks[i], Until: now.Add(time.Hour)}
	}
	book := Book{Memory: full}
	more, err := NewBan(netip.MustParsePrefix("203.0.113.0/24"), time.Hour, "uid 0", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := book.Ban(t.Context(), more); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("one more than there is room for: %v", err)
	}
	if err := book.Ban(t.Context(), Ban{Network: networks[7], Until: now.Add(2 * time.Hour)}); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	full.bans[networks[8]] = Ban{Network: networks[8], Until: now.Add(-time.Hour)}
	if err := book.Ban(t.Context(), more); err != nil {
		t.Errorf("in place of one that is over: %v", err)
	}
}

func TestBookFails(t *testing.T) {
	broken := newFakeMemory()
	broken.err = errors.New("the disk is gone")
	book := Book{Memory: broken}
	network := netip.MustParsePrefix("203.0.113.0/24")
	_, listing := book.Bans(t.Context())
	banning := book.Ban(t.Context(), Ban{Network: network})
	known, unbanning := book.Unban(t.Context(), network)
	for what, err := range map[string]error{"listing": listing, "banning": banning, "unbanning": unbanning} {
		if _, bad := errors.AsType[*BadBan](err); bad || !errors.Is(err, broken.err) {
			t.Errorf("%s: got %v, want a failure", what, err)
		}
	}
	if known {
		t.Error("a ban was known of that couldn't be read")
	}
}
