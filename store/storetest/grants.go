package storetest

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"imapwarden/auth"
)

func grantRoundTrip(t *testing.T, s Store) {
	// No account has a record here: a grant doesn't ask for one.
	v6 := grant("v6", "alice", day.Add(-time.Hour))
	v6.Network = netip.MustParsePrefix("2001:db8:0:1::/64")
	bare := auth.Grant{ID: "bare", Account: "alice", Created: day.Add(time.Hour)}
	v6.Client, v6.KeyID = []byte{4, 0, 2}, "k2"
	putGrants(t, s, bare, grant("b", "alice", day), grant("a", "alice", day), grant("c", "bob", day), v6)

	same(t, "alice's grants", grants(t, s, "alice"),
		[]auth.Grant{v6, grant("a", "alice", day), grant("b", "alice", day), bare})
	same(t, "bob's grants", grants(t, s, "bob"), []auth.Grant{grant("c", "bob", day)})
	same(t, "nobody's grants", grants(t, s, "nobody"), nil)
}

func putGrantReplaces(t *testing.T, s Store) {
	putGrants(t, s, grant("g", "alice", day))
	g := auth.Grant{
		ID: "g", Account: "bob", Network: netip.MustParsePrefix("::/0"), Client: []byte{2}, KeyID: "k2", PasswordTag: []byte{1},
		Created: day.Add(1 * time.Hour), Expires: day.Add(2 * time.Hour), LastUsed: day.Add(3 * time.Hour),
	}
	putGrants(t, s, g)
	same(t, "alice's grants", grants(t, s, "alice"), nil)
	same(t, "bob's grants", grants(t, s, "bob"), []auth.Grant{g})
}

func touchGrants(t *testing.T, s Store) {
	later, earlier, other := grant("later", "alice", day), grant("earlier", "alice", day), grant("other", "alice", day)
	putGrants(t, s, later, earlier, other)
	must(t, s.TouchGrants(t.Context(), nil))
	must(t, s.TouchGrants(t.Context(), map[string]time.Time{
		"later":   later.LastUsed.Add(time.Microsecond),
		"earlier": earlier.LastUsed.Add(-time.Microsecond),
		"unknown": day.Add(time.Hour),
	}))
	later.LastUsed = later.LastUsed.Add(time.Microsecond)
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{earlier, later, other})
}

func removeGrants(t *testing.T, s Store) {
	a, b, c := grant("a", "alice", day), grant("b", "alice", day), grant("c", "alice", day)
	foreign := grant("d", "bob", day)
	putGrants(t, s, a, b, c, foreign)

	remove(t, s, "alice", []string{"c", "a", "unknown", "d", "a"}, "a", "c") // d is not alice's
	same(t, "alice's grants", grants(t, s, "alice"), []auth.Grant{b})
	same(t, "bob's grants", grants(t, s, "bob"), []auth.Grant{foreign})
	remove(t, s, "alice", []string{"a"})

	putGrants(t, s, a)
	remove(t, s, "alice", nil, "a", "b")
	remove(t, s, "alice", nil)
	remove(t, s, "nobody", nil)
	same(t, "alice's grants", grants(t, s, "alice"), nil)
	same(t, "bob's grants", grants(t, s, "bob"), []auth.Grant{foreign})
}

func remove(t *testing.T, s Store, account string, ids []string, want ...string) {
	t.Helper()
	removed, err := s.RemoveGrants(t.Context(), account, ids...)
	must(t, err)
	slices.Sort(removed)
	same(t, "the removed grants", removed, want)
}

func purgeGrants(t *testing.T, s Store) {
	gone, stays, mine := grant("gone", "bob", day), grant("stays", "alice", day), grant("mine", "alice", day)
	gone.Expires, mine.Expires = day.Add(-time.Microsecond), day.Add(time.Hour)
	stays.Expires = day // at, not before
	putGrants(t, s, gone, stays, mine)

	same(t, "bob's grants before", grants(t, s, "bob"), []auth.Grant{gone}) // ended, but not purged
	must(t, s.PurgeGrants(t.Context(), day))
	same(t, "bob's grants", grants(t, s, "bob"), nil)
	same(t, "alice's grants", grants(t, s, "alice"), []auth.Grant{mine, stays})
}

func marks(t *testing.T, s Store) {
	for _, test := range []struct{ set, name, want string }{
		{"", "key", ""},
		{"1", "key", "1"},
		{"2", "key", "2"},
		{"", "other", ""},
	} {
		if test.set != "" {
			must(t, s.SetMark(t.Context(), test.name, test.set))
		}
		value, err := s.Mark(t.Context(), test.name)
		must(t, err)
		same(t, "the mark "+test.name, value, test.want)
	}
}

func tagKeys(t *testing.T, s Store) {
	keys := func(want ...string) {
		t.Helper()
		keys, err := s.TagKeys(t.Context())
		must(t, err)
		slices.Sort(keys)
		same(t, "the keys in use", keys, want)
	}
	keys()
	a, b, c := grant("a", "alice", day), grant("b", "alice", day), grant("c", "bob", day)
	b.KeyID, c.KeyID = "k1", "k1"
	putGrants(t, s, a, b, c)
	keys("", "k1")
	p, q, r := issued("p", "alice"), issued("q", "alice"), issued("r", "bob")
	p.KeyID, q.KeyID, r.KeyID = "k1", "k2", "k3"
	add(t, s, p, q, r)
	keys("", "k1", "k2", "k3")
	revoke(t, s, "bob", "r", true)
	must(t, s.RetagAppPassword(t.Context(), "q", q.Tag, nil, "k4"))
	remove(t, s, "alice", []string{"a"}, "a")
	keys("k1", "k4")
}
