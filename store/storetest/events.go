package storetest

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"imapwarden/audit"
)

func events(t *testing.T, s Store, f audit.Filter) []audit.Event {
	t.Helper()
	e, err := s.Events(t.Context(), f)
	must(t, err)
	return e
}

func eventRoundTrip(t *testing.T, s Store) {
	full := audit.Event{
		ID: 4711, Time: day.Add(999).In(time.FixedZone("", -7200)), Kind: "login", Outcome: audit.Refused,
		Session: "s1", Account: "alice", Source: "192.0.2.1", Program: "it's \"mail\"\t%s ü", Factor: "code",
		Reason: "wrong-code", Rule: "address_per_minute", Detail: "two\nlines",
	}
	must(t, s.Append(t.Context(), nil))
	must(t, s.Append(t.Context(), []audit.Event{full, {Kind: "account.reset"}}))
	must(t, s.Append(t.Context(), []audit.Event{{Kind: "grant.revoke", Time: day.Add(-time.Hour)}}))

	got := events(t, s, audit.Filter{})
	if len(got) != 3 {
		t.Fatalf("got %d events, want 3", len(got))
	}
	if !(0 < got[0].ID && got[0].ID < got[1].ID && got[1].ID < got[2].ID) {
		t.Errorf("IDs don't ascend: %d, %d, %d", got[0].ID, got[1].ID, got[2].ID)
	}
	full.Time = day
	want := []audit.Event{full, {Kind: "account.reset", Time: time.Time{}}, {Kind: "grant.revoke", Time: day.Add(-time.Hour)}}
	for i := range want {
		want[i].ID, want[i].Hash = got[i].ID, got[i].Hash // see chain
	}
	same(t, "the events", got, want)
}

func eventFilters(t *testing.T, s Store) {
	must(t, s.Append(t.Context(), []audit.Event{
		{Detail: "0", Time: day, Account: "alice", Source: "192.0.2.1"},
		{Detail: "1", Time: day.Add(time.Hour), Account: "bob", Source: "192.0.2.1"},
		{Detail: "2", Time: day.Add(2 * time.Hour), Account: "alice", Source: "192.0.2.2", Kind: "login"},
		{Detail: "3", Time: day.Add(time.Hour), Account: "alice", Source: "2001:db8::1", Kind: "alert"}, // written late
		{Detail: "4", Time: day.Add(3 * time.Hour)},
	}))
	first := events(t, s, audit.Filter{})[0].ID
	for _, test := range []struct {
		name string
		f    audit.Filter
		want string
	}{
		{"all", audit.Filter{}, "01234"},
		{"after", audit.Filter{After: first + 1}, "234"},
		{"after all", audit.Filter{After: first + 4}, ""},
		{"before", audit.Filter{Before: first + 3}, "012"},
		{"before, the newest", audit.Filter{Before: first + 3, Limit: 2}, "12"},
		{"before, the oldest", audit.Filter{Before: first + 3, Limit: 2, Oldest: true}, "01"},
		{"before the first", audit.Filter{Before: first}, ""},
		{"kind", audit.Filter{Kind: "alert"}, "3"},
		{"kind of an account", audit.Filter{Kind: "alert", Account: "bob"}, ""},
		{"part of a kind", audit.Filter{Kind: "log"}, ""},
		{"between", audit.Filter{After: first, Before: first + 3}, "12"},
		{"account", audit.Filter{Account: "alice"}, "023"},
		{"part of a name", audit.Filter{Account: "ali"}, ""},
		{"since", audit.Filter{Since: day.Add(time.Hour)}, "1234"},
		{"source", audit.Filter{Source: netip.MustParsePrefix("192.0.2.1/32")}, "01"},
		{"limit", audit.Filter{Limit: 2}, "34"},
		{"limit of an account", audit.Filter{Account: "alice", Limit: 2}, "23"},
		{"all together", audit.Filter{
			After: first, Kind: "login", Account: "alice", Source: netip.MustParsePrefix("192.0.2.0/24"),
			Since: day.Add(time.Hour), Limit: 5,
		}, "2"},
	} {
		same(t, test.name, details(events(t, s, test.f)), test.want)
	}
}

func eventSources(t *testing.T, s Store) {
	sources := []string{
		0: "192.0.2.1", 1: "::ffff:192.0.2.130", 2: "192.0.3.1", 3: "2001:db8::1",
		4: "2001:DB8:0:1:0:0:0:1", 5: "fe80::1%eth0", 6: "", 7: "unix", 8: "::1", 9: "255.255.255.255",
	}
	var all []audit.Event
	for i, source := range sources {
		all = append(all, audit.Event{Detail: strconv.Itoa(i), Time: day, Source: source})
	}
	must(t, s.Append(t.Context(), all))
	for prefix, want := range map[string]string{
		"0.0.0.0/0":             "0129",
		"192.0.2.0/24":          "01",
		"192.0.2.77/24":         "01", // host bits don't count
		"192.0.2.128/25":        "1",
		"192.0.2.130/32":        "1",
		"192.0.2.0/23":          "012",
		"::ffff:192.0.2.0/120":  "01", // IPv4 in IPv6 is IPv4
		"255.255.255.255/32":    "9",
		"::/0":                  "3458", // IPv4 isn't in IPv6, though its keys are
		"::/64":                 "8",
		"2001:db8::/32":         "34",
		"2001:db8::/64":         "3",
		"2001:db8:0:1::/64":     "4",
		"2001:db8::1/128":       "3",
		"fe80::/10":             "5",
		"c000:200::/24":         "", // the octets of 192.0.2.0
		"::c000:200/120":        "",
		"ffff::/16":             "",
		"2001:db8:ffff::/48":    "",
		"198.51.100.0/24":       "",
		"::ffff:198.51.100.0/8": "8", // cut to ::/8: IPv6 again
	} {
		same(t, prefix, details(events(t, s, audit.Filter{Source: netip.MustParsePrefix(prefix)})), want)
	}
	var written []string
	for _, e := range events(t, s, audit.Filter{}) {
		written = append(written, e.Source)
	}
	same(t, "the sources", written, []string{
		"192.0.2.1", "192.0.2.130", "192.0.3.1", "2001:db8::1", "2001:db8:0:1::1",
		"fe80::1%eth0", "", "unix", "::1", "255.255.255.255",
	})
}

func eventLimit(t *testing.T, s Store) {
	many := slices.Repeat([]audit.Event{{Time: day}}, 1005)
	must(t, s.Append(t.Context(), many))
	first := events(t, s, audit.Filter{Limit: 2000})[0].ID
	for _, test := range []struct{ limit, want int }{{0, 1000}, {-1, 1000}, {3, 3}, {1004, 1004}, {2000, 1005}} {
		got := events(t, s, audit.Filter{Limit: test.limit})
		same(t, "the number of events", len(got), test.want)
		same(t, "the newest", got[len(got)-1].ID, first+1004)
	}
}

func oldestEvents(t *testing.T, s Store) {
	must(t, s.Append(t.Context(), []audit.Event{
		{Detail: "0", Time: day, Account: "alice"},
		{Detail: "1", Time: day.Add(time.Hour), Account: "bob"},
		{Detail: "2", Time: day.Add(2 * time.Hour), Account: "alice"},
		{Detail: "3", Time: day.Add(time.Hour), Account: "alice"},
		{Detail: "4", Time: day.Add(3 * time.Hour)},
	}))
	first := events(t, s, audit.Filter{})[0].ID
	for _, test := range []struct {
		f    audit.Filter
		want string
	}{
		{audit.Filter{}, "01234"},
		{audit.Filter{Limit: 2}, "01"},
		{audit.Filter{Limit: 2, After: first + 1}, "23"},
		{audit.Filter{Limit: 2, After: first + 3}, "4"},
		{audit.Filter{Limit: 2, Account: "alice"}, "02"},
		{audit.Filter{Limit: 2, Since: day.Add(time.Hour)}, "12"},
	} {
		test.f.Oldest = true
		same(t, "the oldest", details(events(t, s, test.f)), test.want)
	}
}

func purge(t *testing.T, s Store, before time.Time, most int, want int64) {
	t.Helper()
	removed, err := s.PurgeEvents(t.Context(), before, most)
	must(t, err)
	same(t, "the number of removed events", removed, want)
}

func purgeOldEvents(t *testing.T, s Store) {
	purge(t, s, day, 10, 0) // an empty store
	must(t, s.Append(t.Context(), []audit.Event{
		{Detail: "0", Time: day.Add(-time.Hour)},
		{Detail: "1"}, // of no time at all
		{Detail: "2", Time: day.Add(-time.Microsecond), Account: "alice", Source: "192.0.2.1"},
		{Detail: "3", Time: day, Account: "alice", Source: "192.0.2.1"},
		{Detail: "4", Time: day.Add(-time.Minute)}, // written late: nothing goes from amidst the chain
		{Detail: "5", Time: day.Add(time.Hour)},
	}))
	purge(t, s, time.Time{}, 10, 0)
	purge(t, s, day.Add(-time.Hour), 10, 0)
	purge(t, s, day, 10, 3)
	same(t, "the events", details(events(t, s, audit.Filter{})), "345")
	same(t, "alice's events", details(events(t, s, audit.Filter{Account: "alice"})), "3")
	same(t, "a source's events", details(events(t, s, audit.Filter{Source: netip.MustParsePrefix("192.0.2.0/24")})), "3")
	purge(t, s, day.Add(time.Nanosecond), 10, 0) // no store keeps nanoseconds
	purge(t, s, day, 2, 1)                       // what is left then begins with an old one, until the next time
	same(t, "the events", details(events(t, s, audit.Filter{})), "45")
	purge(t, s, day, 2, 1)
	purge(t, s, day.AddDate(1, 0, 0), 10, 1) // all of them
	same(t, "the number of events", len(events(t, s, audit.Filter{})), 0)
}

func purgeManyEvents(t *testing.T, s Store) {
	// More than any batch: whoever removes them step by step has to take all steps.
	const many = 2100
	for i := range 3 {
		// The newest are those that came last, whatever their time.
		at := day.Add(-time.Duration(i) * time.Minute)
		must(t, s.Append(t.Context(), slices.Repeat([]audit.Event{{Time: at}}, many/3)))
	}
	first := events(t, s, audit.Filter{Limit: many})[0].ID
	purge(t, s, day.AddDate(-1, 0, 0), many, 0)
	purge(t, s, day.AddDate(-1, 0, 0), many-1, 1)
	purge(t, s, day.AddDate(-1, 0, 0), 10, many-11)
	got := events(t, s, audit.Filter{Limit: many})
	same(t, "the number of events", len(got), 10)
	same(t, "the oldest", got[0].ID, first+many-10)
	must(t, s.Append(t.Context(), slices.Repeat([]audit.Event{{Time: day}}, many-10)))
	purge(t, s, day, 1, many-1) // both at once
}

func purgeAllEvents(t *testing.T, s Store) {
	must(t, s.Append(t.Context(), []audit.Event{{Time: day}}))
	for _, most := range []int{0, -1} {
		if removed, err := s.PurgeEvents(t.Context(), day, most); err == nil || removed != 0 {
			t.Errorf("all but the newest %d: removed %d, %v; want an error", most, removed, err)
		}
	}
	same(t, "the number of events", len(events(t, s, audit.Filter{})), 1)
}

func purgedIDs(t *testing.T, s Store) {
	must(t, s.Append(t.Context(), []audit.Event{{Time: day}, {Time: day}}))
	last := events(t, s, audit.Filter{})[1].ID
	purge(t, s, day.Add(time.Hour), 1, 2)
	must(t, s.Append(t.Context(), []audit.Event{{Time: day}}))
	if id := events(t, s, audit.Filter{})[0].ID; id <= last {
		t.Errorf("the ID %d after %d was there", id, last)
	}
}

// details puts together the digits by which the events are told apart.
func details(events []audit.Event) string {
	s := ""
	for _, e := range events {
		s += e.Detail
	}
	return s
}
