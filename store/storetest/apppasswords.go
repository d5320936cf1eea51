package storetest

import (
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapwarden/auth"
)

// issued is an app password with something in every field that a new one has.
func issued(id, account string) auth.AppPassword {
	return auth.AppPassword{
		ID: id, Account: account, Label: "o'phone \"ü\"", Tag: []byte("tag\x00" + id), KeyID: "k1",
		Public: []byte{0, 1, 0xff}, PublicTag: []byte{3, 0}, Sealed: []byte{2, 0, '\''},
		Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		ReadOnly: true, Created: day, Expires: day.AddDate(1, 0, 0),
	}
}

func add(t *testing.T, s Store, list ...auth.AppPassword) {
	t.Helper()
	for _, p := range list {
		addTo(t, s, p, 1000, true)
	}
}

func addTo(t *testing.T, s Store, p auth.AppPassword, most int, want bool) {
	t.Helper()
	added, err := s.AddAppPassword(t.Context(), p, most)
	must(t, err)
	if added != want {
		t.Errorf("%s beside at most %d: added is %v, want %v", p.ID, most, added, want)
	}
}

func appPasswords(t *testing.T, s Store, account string) []auth.AppPassword {
	t.Helper()
	list, err := s.AppPasswords(t.Context(), account)
	must(t, err)
	return list
}

func appPassword(t *testing.T, s Store, tag []byte) auth.AppPassword {
	t.Helper()
	p, err := s.AppPassword(t.Context(), tag)
	must(t, err)
	return p
}

func noAppPassword(t *testing.T, s Store, tag []byte) {
	t.Helper()
	if p, err := s.AppPassword(t.Context(), tag); !errors.Is(err, auth.ErrNoAppPassword) {
		t.Errorf("the app password of tag %q: got %s, %v, want ErrNoAppPassword", tag, p.ID, err)
	}
}

func revoke(t *testing.T, s Store, account, id string, want bool) {
	t.Helper()
	known, err := s.RevokeAppPassword(t.Context(), account, id, day)
	must(t, err)
	if known != want {
		t.Errorf("revoking %s of %s: known is %v, want %v", id, account, known, want)
	}
}

func appPasswordRoundTrip(t *testing.T, s Store) {
	noAppPassword(t, s, nil)
	noAppPassword(t, s, []byte("tag"))
	full := issued("full", "alice")
	full.Created = day.Add(-time.Hour)
	full.Stale, full.Revoked = true, day.Add(time.Minute)
	full.LastUse = auth.Use{Time: day.Add(time.Second), Source: netip.MustParseAddr("2001:db8::1"), Program: "it's mail"}
	bare := auth.AppPassword{ID: "bare", Account: "alice", Tag: []byte{1}, Created: day.Add(time.Hour)}
	everywhere := issued("everywhere", "bob")
	everywhere.Networks = []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::ffff:192.0.2.0/120")}
	finer := issued("finer", "carol")
	finer.Created, finer.Expires = day.Add(999).In(time.FixedZone("", 3600)), day.Add(1999)
	add(t, s, bare, issued("b", "alice"), issued("a", "alice"), everywhere, full, finer)

	same(t, "alice's app passwords", appPasswords(t, s, "alice"),
		[]auth.AppPassword{full, issued("a", "alice"), issued("b", "alice"), bare})
	same(t, "bob's app passwords", appPasswords(t, s, "bob"), []auth.AppPassword{everywhere})
	same(t, "nobody's app passwords", appPasswords(t, s, "nobody"), nil)
	same(t, "the one of a tag", appPassword(t, s, full.Tag), full)
	same(t, "the one of another tag", appPassword(t, s, []byte{1}), bare)
	finer.Created, finer.Expires = day, day.Add(time.Microsecond)
	same(t, "times cut to microseconds", appPassword(t, s, finer.Tag), finer)
	for _, tag := range [][]byte{nil, full.Tag[:4], append(full.Tag, 0)} {
		noAppPassword(t, s, tag)
	}
	for what, at := range map[string]time.Time{
		"Expires": bare.Expires, "Revoked": bare.Revoked, "LastUse": bare.LastUse.Time,
	} {
		if !at.IsZero() {
			t.Errorf("the zero time of %s came back as %v", what, at)
		}
	}
	for _, p := range []auth.AppPassword{full, bare} {
		if got := appPassword(t, s, p.Tag); got.LastUse.Source != p.LastUse.Source {
			t.Errorf("the source %v came back as %v", p.LastUse.Source, got.LastUse.Source)
		}
	}
}

func appPasswordRefused(t *testing.T, s Store) {
	add(t, s, issued("p", "alice"))
	sameID, sameTag, nowhere := issued("p", "bob"), issued("q", "bob"), issued("r", "bob")
	sameID.Tag, sameTag.Tag = []byte{1}, issued("p", "alice").Tag
	nowhere.Networks = []netip.Prefix{{}} // must not come back as everywhere
	for _, p := range []auth.AppPassword{sameID, sameTag, nowhere} {
		if added, err := s.AddAppPassword(t.Context(), p, 10); err == nil || added {
			t.Errorf("%s: added is %v, %v; want an error", p.ID, added, err)
		}
	}
	same(t, "alice's app passwords", appPasswords(t, s, "alice"), []auth.AppPassword{issued("p", "alice")})
	same(t, "bob's app passwords", appPasswords(t, s, "bob"), nil)
	if _, err := s.Account(t.Context(), "bob"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("bob was made for an app password that wasn't: %v", err)
	}
}

func addMakesAccount(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	p, q := issued("p", "bob"), issued("q", "bob")
	p.Created, q.Created = day.Add(time.Hour), day.Add(2*time.Hour)
	add(t, s, issued("o", "alice"), p, q)
	same(t, "an account that was there", account(t, s, "alice"), enrolled("alice"))
	same(t, "an account that wasn't", account(t, s, "bob"), auth.Account{Name: "bob", Created: p.Created})
	addTo(t, s, issued("r", "carol"), 0, false)
	if _, err := s.Account(t.Context(), "carol"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("carol was made for an app password that wasn't: %v", err)
	}
	put(t, s, enrolled("bob")) // replaces the record, not what was issued
	same(t, "bob's app passwords", appPasswords(t, s, "bob"), []auth.AppPassword{p, q})
}

func addAtMost(t *testing.T, s Store) {
	ending := issued("ending", "alice")
	ending.Expires = day.Add(time.Hour)
	forever := issued("forever", "alice")
	forever.Expires = time.Time{}
	addTo(t, s, issued("other", "bob"), 1, true)
	addTo(t, s, ending, 2, true)
	addTo(t, s, forever, 2, true)
	addTo(t, s, issued("third", "alice"), 2, false)
	noAppPassword(t, s, issued("third", "alice").Tag)
	addTo(t, s, issued("third", "alice"), 3, true)
	revoke(t, s, "alice", "third", true)
	addTo(t, s, issued("fourth", "alice"), 2, false)
	fifth := issued("fifth", "alice")
	fifth.Created = ending.Expires.Add(-time.Microsecond)
	addTo(t, s, fifth, 2, false)
	fifth.Created = ending.Expires // from then on it has expired
	addTo(t, s, fifth, 2, true)
	addTo(t, s, issued("sixth", "alice"), -1, false)
	same(t, "the number of app passwords", len(appPasswords(t, s, "alice")), 4)
}

func addRace(t *testing.T, s Store) {
	const most = 5
	var wins atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 64 {
		wg.Go(func() {
			<-start
			added, err := s.AddAppPassword(t.Context(), issued(strconv.Itoa(i), "alice"), most)
			if err != nil {
				t.Error(err)
			}
			if added {
				wins.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	same(t, "the winners", wins.Load(), most)
	same(t, "the number of app passwords", len(appPasswords(t, s, "alice")), most)
}

func revokeAppPassword(t *testing.T, s Store) {
	p, other := issued("p", "alice"), issued("other", "alice")
	add(t, s, p, other)
	revoke(t, s, "alice", "unknown", false)
	revoke(t, s, "bob", "p", false)
	revoke(t, s, "", "p", false)
	same(t, "what another tried to revoke", appPassword(t, s, p.Tag), p)

	revoke(t, s, "alice", "p", true)
	p.Revoked, p.Public, p.Sealed = day, nil, nil
	same(t, "the revoked one", appPassword(t, s, p.Tag), p)
	if known, err := s.RevokeAppPassword(t.Context(), "alice", "p", day.Add(time.Hour)); known || err != nil {
		t.Errorf("revoked twice: %v, %v", known, err)
	}
	must(t, s.SealAppPasswords(t.Context(), "alice", map[string][]byte{"p": {1}}))
	same(t, "all of them", appPasswords(t, s, "alice"), []auth.AppPassword{other, p})
}

func sealAppPasswords(t *testing.T, s Store) {
	p, q, foreign := issued("p", "alice"), issued("q", "alice"), issued("foreign", "bob")
	add(t, s, p, q, foreign)
	for id, tried := range map[string][]byte{
		"p":       p.Sealed,
		"q":       q.Sealed[1:], // sealed anew meanwhile
		"foreign": nil,
		"unknown": p.Sealed,
	} {
		must(t, s.StaleAppPassword(t.Context(), id, tried))
	}
	p.Stale = true
	same(t, "alice's app passwords", appPasswords(t, s, "alice"), []auth.AppPassword{p, q})
	same(t, "bob's app passwords", appPasswords(t, s, "bob"), []auth.AppPassword{foreign})

	must(t, s.SealAppPasswords(t.Context(), "alice", nil))
	must(t, s.SealAppPasswords(t.Context(), "alice", map[string][]byte{"p": {3}, "q": {4}, "foreign": {5}, "unknown": {6}}))
	old := p.Sealed
	p.Sealed, q.Sealed, p.Stale = []byte{3}, []byte{4}, false
	same(t, "alice's app passwords", appPasswords(t, s, "alice"), []auth.AppPassword{p, q})
	same(t, "bob's app passwords", appPasswords(t, s, "bob"), []auth.AppPassword{foreign})
	must(t, s.StaleAppPassword(t.Context(), "p", old)) // too late
	same(t, "the one sealed anew", appPassword(t, s, p.Tag), p)
}

func retagAppPassword(t *testing.T, s Store) {
	p, q := issued("p", "alice"), issued("q", "alice")
	add(t, s, p, q)
	old := p.Tag
	p.Tag, p.PublicTag, p.KeyID = []byte("new"), []byte("vouched"), "k2"
	must(t, s.RetagAppPassword(t.Context(), "p", p.Tag, p.PublicTag, "k2"))
	must(t, s.RetagAppPassword(t.Context(), "unknown", []byte("newer"), nil, "k2"))
	noAppPassword(t, s, old)
	noAppPassword(t, s, []byte("newer"))
	same(t, "the one with a new tag", appPassword(t, s, p.Tag), p)
	if err := s.RetagAppPassword(t.Context(), "p", q.Tag, nil, "k3"); err == nil {
		t.Error("two app passwords share a tag")
	}
	same(t, "alice's app passwords", appPasswords(t, s, "alice"), []auth.AppPassword{p, q})
}

func useAppPasswords(t *testing.T, s Store) {
	p, q := issued("p", "alice"), issued("q", "alice")
	add(t, s, p, q)
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")
	use := func(uses map[string]auth.Use) {
		t.Helper()
		must(t, s.UseAppPasswords(t.Context(), uses))
	}
	use(nil)
	use(map[string]auth.Use{"p": {Time: day, Source: here, Program: "Mail"}, "unknown": {Time: day}})
	p.LastUse = auth.Use{Time: day, Source: here, Program: "Mail"}
	same(t, "the first use", appPasswords(t, s, "alice"), []auth.AppPassword{p, q})
	use(map[string]auth.Use{
		"p": {Time: day.Add(-time.Microsecond), Source: there, Program: "Late"},
		"q": {Time: day.Add(999).In(time.FixedZone("", 3600)), Source: there},
	})
	q.LastUse = auth.Use{Time: day, Source: there}
	same(t, "an earlier use", appPasswords(t, s, "alice"), []auth.AppPassword{p, q})
	use(map[string]auth.Use{"p": {Time: day.Add(time.Microsecond), Source: there}, "q": {Time: day.Add(time.Hour)}})
	p.LastUse, q.LastUse = auth.Use{Time: day.Add(time.Microsecond), Source: there}, auth.Use{Time: day.Add(time.Hour)}
	same(t, "a later use", appPasswords(t, s, "alice"), []auth.AppPassword{p, q})
}

func purgeAppPasswords(t *testing.T, s Store) {
	for i, test := range []struct {
		expires, revoked time.Time
		gone             bool
	}{
		{},
		{expires: day}, // at, not before
		{revoked: day},
		{expires: day.Add(time.Hour), revoked: day.Add(time.Hour)},
		{expires: day.Add(-time.Microsecond), gone: true},
		{revoked: day.Add(-time.Microsecond), gone: true},
		{expires: day.Add(time.Hour), revoked: day.Add(-time.Hour), gone: true},
		{expires: day.Add(-time.Hour), revoked: day.Add(time.Hour), gone: true},
	} {
		p := issued(strconv.Itoa(i), "alice")
		p.Created, p.Expires, p.Revoked = day.Add(time.Duration(i)), test.expires, test.revoked
		add(t, s, p)
		must(t, s.PurgeAppPasswords(t.Context(), day.Add(-2*time.Hour)))
		appPassword(t, s, p.Tag)
		must(t, s.PurgeAppPasswords(t.Context(), day))
		if test.gone {
			noAppPassword(t, s, p.Tag)
		} else {
			appPassword(t, s, p.Tag)
		}
	}
	same(t, "the number of app passwords", len(appPasswords(t, s, "alice")), 4)
}
