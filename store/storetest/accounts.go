package storetest

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapwarden/auth"
)

func accountRoundTrip(t *testing.T, s Store) {
	confirmed := enrolled("bob@example.org")
	confirmed.TOTP.Confirmed = day.Add(time.Hour)
	finer := auth.Account{Name: "o'brien%_\"ü", Created: day.Add(999).In(time.FixedZone("", 3600))}
	put(t, s, enrolled("alice"), confirmed, finer, auth.Account{Name: "never"})

	same(t, "an unconfirmed account", account(t, s, "alice"), enrolled("alice"))
	same(t, "a confirmed account", account(t, s, confirmed.Name), confirmed)
	same(t, "an account without authenticator, its time cut to microseconds",
		account(t, s, finer.Name), auth.Account{Name: finer.Name, Created: day})
	if a := account(t, s, "alice"); a.Enrolled() || !a.TOTP.Confirmed.IsZero() {
		t.Error("the zero time of Confirmed didn't come back as zero")
	}
	if !account(t, s, "never").Created.IsZero() {
		t.Error("the zero time of Created didn't come back as zero")
	}
}

func unknownAccount(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	for _, name := range []string{"", "Alice", "alic", "alice@example.org"} {
		if _, err := s.Account(t.Context(), name); !errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("Account(%q): got %v, want ErrNoAccount", name, err)
		}
		if err := s.RemoveAccount(t.Context(), name); !errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("RemoveAccount(%q): got %v, want ErrNoAccount", name, err)
		}
	}
	account(t, s, "alice")
}

func accountPages(t *testing.T, s Store) {
	for _, name := range []string{"b", "a", "Z", "ü", "a.b", "a@b", "c"} {
		put(t, s, enrolled(name))
	}
	for _, test := range []struct {
		after string
		limit int
		want  []string
	}{
		{"", 100, []string{"Z", "a", "a.b", "a@b", "b", "c", "ü"}}, // by octets, in no country's order
		{"", 3, []string{"Z", "a", "a.b"}},
		{"a.b", 3, []string{"a@b", "b", "c"}},
		{"aa", 1, []string{"b"}}, // a name that isn't there
		{"c", 3, []string{"ü"}},
		{"ü", 3, nil},
		{"", 0, nil},
		{"", -1, nil},
	} {
		page, err := s.Accounts(t.Context(), test.after, test.limit)
		must(t, err)
		var names []string
		for _, a := range page {
			names = append(names, a.Name)
			same(t, "a listed account", a, enrolled(a.Name))
		}
		if !slices.Equal(names, test.want) {
			t.Errorf("%d after %q: got %q, want %q", test.limit, test.after, names, test.want)
		}
	}
}

func putReplaces(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	putGrants(t, s, grant("g", "alice", day))

	again := enrolled("alice")
	again.Created, again.TOTP.ID, again.TOTP.Sealed, again.TOTP.LastStep = day.Add(time.Hour), "other", []byte{1}, 0
	put(t, s, again)
	same(t, "the replaced account", account(t, s, "alice"), again)

	again.TOTP.Confirmed = day // the same authenticator, changed
	put(t, s, again)
	same(t, "the replaced authenticator", account(t, s, "alice"), again)

	again.TOTP = nil
	put(t, s, again)
	same(t, "the account without authenticator", account(t, s, "alice"), again)
	same(t, "the number of grants", len(grants(t, s, "alice")), 1)
}

func sharedAuthenticator(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	bob := enrolled("bob")
	bob.TOTP.ID = "totp-alice"
	if err := s.PutAccount(t.Context(), bob); err == nil {
		t.Error("two accounts share an authenticator")
	}
	if _, err := s.Account(t.Context(), "bob"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("bob was half written: %v", err)
	}
	same(t, "alice", account(t, s, "alice"), enrolled("alice"))
}

func removeAccount(t *testing.T, s Store) {
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("r")))
	must(t, s.PutAccount(t.Context(), enrolled("bob"), []byte("r")))
	putGrants(t, s, grant("a", "alice", day), grant("b", "bob", day))
	add(t, s, issued("pa", "alice"), issued("pb", "bob"))
	must(t, s.RemoveAccount(t.Context(), "alice"))

	if _, err := s.Account(t.Context(), "alice"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("got %v, want ErrNoAccount", err)
	}
	same(t, "alice's grants", grants(t, s, "alice"), nil)
	same(t, "bob", account(t, s, "bob"), enrolled("bob"))
	same(t, "bob's grants", grants(t, s, "bob"), []auth.Grant{grant("b", "bob", day)})
	same(t, "alice's app passwords", appPasswords(t, s, "alice"), nil)
	same(t, "bob's app passwords", appPasswords(t, s, "bob"), []auth.AppPassword{issued("pb", "bob")})
	same(t, "alice's recovery codes", recovery(t, s, "totp-alice"), nil)
	same(t, "bob's recovery codes", recovery(t, s, "totp-bob"), []auth.RecoveryCode{{Tag: []byte("r")}})
	spend(t, s, "totp-alice", 101, false)
	spendCode(t, s, "totp-alice", "r", 0, false)

	put(t, s, enrolled("alice")) // the name and its authenticator's ID are free again
	spend(t, s, "totp-alice", 101, true)
}

func spend(t *testing.T, s Store, totp string, step int64, want bool) {
	t.Helper()
	won, err := s.SpendStep(t.Context(), totp, step)
	must(t, err)
	if won != want {
		t.Errorf("step %d: won is %v, want %v", step, won, want)
	}
}

func spendOnce(t *testing.T, s Store) {
	put(t, s, enrolled("alice"), enrolled("bob")) // LastStep is 100
	spend(t, s, "totp-alice", 100, false)
	spend(t, s, "totp-alice", 99, false)
	spend(t, s, "totp-alice", 101, true)
	spend(t, s, "totp-alice", 101, false)
	spend(t, s, "totp-alice", 103, true)
	spend(t, s, "totp-alice", 102, false) // never used, but older than one that was

	want := enrolled("alice")
	want.TOTP.LastStep = 103
	same(t, "alice", account(t, s, "alice"), want)
	same(t, "bob", account(t, s, "bob"), enrolled("bob"))
}

func spendRace(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	for step := int64(101); step <= 103; step++ {
		var wins atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 64 {
			wg.Go(func() {
				<-start
				g := grant("g"+strconv.Itoa(i), "alice", day)
				won, err := s.SpendStep(t.Context(), "totp-alice", step, g)
				if err != nil {
					t.Error(err)
				}
				if won {
					wins.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()
		same(t, "the winners", wins.Load(), 1)
		same(t, "the number of grants", len(grants(t, s, "alice")), 1)
		_, err := s.RemoveGrants(t.Context(), "alice")
		must(t, err)
	}
}

func spendWithGrant(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	first, late := grant("first", "alice", day), grant("late", "alice", day)
	for _, test := range []struct {
		totp string
		step int64
		g    auth.Grant
		won  bool
	}{
		{"totp-alice", 100, late, false},
		{"unknown", 101, late, false},
		{"totp-alice", 101, first, true},
		{"totp-alice", 101, late, false},
	} {
		won, err := s.SpendStep(t.Context(), test.totp, test.step, test.g)
		must(t, err)
		same(t, "won", won, test.won)
	}
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{first})

	// A grant with a known ID is replaced, as PutGrant would.
	first.Expires = first.Expires.Add(time.Hour)
	won, err := s.SpendStep(t.Context(), "totp-alice", 102, first)
	must(t, err)
	same(t, "won", won, true)
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{first})

	// Any number of them: one for the network, one for the client.
	client := grant("client", "alice", day)
	client.Client, client.KeyID = []byte{4, 0, 2}, "k2"
	first.LastUsed = day.Add(time.Hour)
	won, err = s.SpendStep(t.Context(), "totp-alice", 103, client, first)
	must(t, err)
	same(t, "won", won, true)
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{client, first})
}

func confirm(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	for _, test := range []struct {
		step int64
		at   time.Time
		won  bool
	}{
		{100, day, false},
		{101, day.Add(time.Minute), true},
		{101, day.Add(time.Hour), false},
	} {
		won, err := s.Confirm(t.Context(), "totp-alice", test.step, test.at)
		must(t, err)
		same(t, "won", won, test.won)
	}
	want := enrolled("alice")
	want.TOTP.LastStep, want.TOTP.Confirmed = 101, day.Add(time.Minute)
	same(t, "the account", account(t, s, "alice"), want)
	if !want.Enrolled() {
		t.Error("not enrolled after Confirm")
	}
	spend(t, s, "totp-alice", 101, false) // the code of the enrolment is no login
}

func unknownAuthenticator(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	reset := enrolled("alice")
	reset.TOTP.ID = "new"
	put(t, s, reset)
	for _, id := range []string{"", "alice", "unknown", "totp-alice"} {
		spend(t, s, id, 101, false)
		won, err := s.Confirm(t.Context(), id, 101, day)
		must(t, err)
		same(t, "won", won, false)
	}
	same(t, "the account", account(t, s, "alice"), reset)
	spend(t, s, "new", 101, true)
}

// signIn: what a login reads in one step is what the single questions say.
func signIn(t *testing.T, s Store) {
	nobody, err := s.SignIn(t.Context(), "alice")
	must(t, err)
	same(t, "what is known of nobody", nobody, auth.SignIn{})

	must(t, s.PutGrant(t.Context(), grant("g2", "alice", day.Add(time.Hour)))) // before there is a record
	must(t, s.PutGrant(t.Context(), grant("g1", "alice", day)))
	must(t, s.PutGrant(t.Context(), grant("g3", "bob", day)))
	both := []auth.Grant{grant("g1", "alice", day), grant("g2", "alice", day.Add(time.Hour))}
	in, err := s.SignIn(t.Context(), "alice")
	must(t, err)
	same(t, "without a record", in, auth.SignIn{Grants: both})

	must(t, s.PutAccount(t.Context(), enrolled("alice")))
	ready, waiting := issued("p", "alice"), issued("q", "alice")
	ready.Stale, waiting.Stale = false, false
	add(t, s, ready)
	in, err = s.SignIn(t.Context(), "alice")
	must(t, err)
	same(t, "with a record", in, auth.SignIn{Account: enrolled("alice"), Grants: both})

	waiting.Sealed = nil
	add(t, s, waiting)
	for _, step := range []struct {
		what     string
		do       func() error
		unsealed bool
	}{
		{"nothing sealed", func() error { return nil }, true},
		{"sealed", func() error {
			return s.SealAppPasswords(t.Context(), "alice", map[string][]byte{"q": {1}})
		}, false},
		{"stale", func() error { return s.StaleAppPassword(t.Context(), "q", []byte{1}) }, true},
		{"revoked", func() error { _, err := s.RevokeAppPassword(t.Context(), "alice", "q", day); return err }, false},
	} {
		must(t, step.do())
		in, err := s.SignIn(t.Context(), "alice")
		must(t, err)
		if in.Unsealed != step.unsealed || len(in.Grants) != 2 {
			t.Errorf("%s: %v, %d grants", step.what, in.Unsealed, len(in.Grants))
		}
	}
}
