// Package storetest holds what every store must keep: one test for each promise
// that package auth and package audit make. Each test gets an empty store.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"imapwarden/audit"
	"imapwarden/auth"
)

// A Store is what is tested.
type Store interface {
	auth.Records
	audit.Sink
	Events(ctx context.Context, f audit.Filter) ([]audit.Event, error)
	PurgeEvents(ctx context.Context, before time.Time, most int) (removed int64, err error)
}

// Run tests the stores that open returns: each call a new and empty one, whose
// end open leaves to t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		promise string
		run     func(*testing.T, Store)
	}{
		{"an account comes back as it was put", accountRoundTrip},
		{"an unknown account is ErrNoAccount", unknownAccount},
		{"accounts come in pages, by name", accountPages},
		{"PutAccount replaces the record whole", putReplaces},
		{"no two accounts share an authenticator", sharedAuthenticator},
		{"RemoveAccount removes record and grants", removeAccount},
		{"a step is spent once, and no older one after it", spendOnce},
		{"of many who spend a step one wins", spendRace},
		{"the grant of a spent step is there if and only if it was won", spendWithGrant},
		{"Confirm spends the step and sets Confirmed", confirm},
		{"an unknown or replaced authenticator wins nothing", unknownAuthenticator},
		{"grants come back as they were put, oldest first", grantRoundTrip},
		{"PutGrant replaces the grant with its ID", putGrantReplaces},
		{"LastUsed only becomes later", touchGrants},
		{"RemoveGrants removes those named, or all", removeGrants},
		{"PurgeGrants removes what expired before", purgeGrants},
		{"marks are set and replaced", marks},
		{"events come back as appended, in order", eventRoundTrip},
		{"a filter chooses events", eventFilters},
		{"a source filter knows IPv4 from IPv6", eventSources},
		{"of too many events the newest come", eventLimit},
		{"PurgeEvents removes what is old", purgeOldEvents},
		{"PurgeEvents keeps the newest", purgeManyEvents},
		{"PurgeEvents leaves something", purgeAllEvents},
		{"an ID isn't given twice, also after a purge", purgedIDs},
		{"a cancelled context is an error, and nothing is written", cancelled},
		{"what a caller holds is a copy", copies},
		{"all methods may run at once", concurrent},
	} {
		t.Run(test.promise, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// day is a time with all the digits that a store keeps.
var day = time.Date(2026, 11, 22, 19, 26, 30, 123456000, time.UTC)

func enrolled(name string) auth.Account {
	return auth.Account{Name: name, Created: day, TOTP: &auth.TOTP{
		ID:       "totp-" + name,
		Sealed:   []byte{0, 0xff, '\'', 1},
		Created:  day.Add(time.Second),
		LastStep: 100,
	}}
}

func grant(id, account string, created time.Time) auth.Grant {
	return auth.Grant{
		ID:          id,
		Account:     account,
		Network:     netip.MustParsePrefix("192.0.2.0/24"),
		PasswordTag: []byte{9, 0, 8},
		Created:     created,
		Expires:     created.Add(12 * time.Hour),
		LastUsed:    created.Add(time.Minute),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s Store, accounts ...auth.Account) {
	t.Helper()
	for _, a := range accounts {
		must(t, s.PutAccount(t.Context(), a))
	}
}

func putGrants(t *testing.T, s Store, grants ...auth.Grant) {
	t.Helper()
	for _, g := range grants {
		must(t, s.PutGrant(t.Context(), g))
	}
}

func account(t *testing.T, s Store, name string) auth.Account {
	t.Helper()
	a, err := s.Account(t.Context(), name)
	must(t, err)
	return a
}

func grants(t *testing.T, s Store, account string) []auth.Grant {
	t.Helper()
	g, err := s.Grants(t.Context(), account)
	must(t, err)
	return g
}

// same compares times by the clock on the wall, but wants them in UTC.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	opts := cmp.Options{
		cmpopts.EquateEmpty(),
		cmpopts.EquateComparable(netip.Prefix{}),
		cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) && a.Location() == b.Location() }),
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

func cancelled(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	putGrants(t, s, grant("g", "alice", day))
	must(t, s.SetMark(t.Context(), "key", "1"))
	must(t, s.Append(t.Context(), []audit.Event{{Time: day, Kind: "login"}}))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := grant("h", "alice", day)
	for method, call := range map[string]func() error{
		"Account":       func() error { _, err := s.Account(ctx, "alice"); return err },
		"Accounts":      func() error { _, err := s.Accounts(ctx, "", 10); return err },
		"PutAccount":    func() error { return s.PutAccount(ctx, enrolled("bob")) },
		"RemoveAccount": func() error { return s.RemoveAccount(ctx, "alice") },
		"SpendStep":     func() error { _, err := s.SpendStep(ctx, "totp-alice", 101, &other); return err },
		"Confirm":       func() error { _, err := s.Confirm(ctx, "totp-alice", 101, day); return err },
		"Grants":        func() error { _, err := s.Grants(ctx, "alice"); return err },
		"PutGrant":      func() error { return s.PutGrant(ctx, other) },
		"TouchGrants":   func() error { return s.TouchGrants(ctx, map[string]time.Time{"g": day.Add(time.Hour)}) },
		"RemoveGrants":  func() error { return s.RemoveGrants(ctx, "alice") },
		"PurgeGrants":   func() error { return s.PurgeGrants(ctx, day.AddDate(1, 0, 0)) },
		"Mark":          func() error { _, err := s.Mark(ctx, "key"); return err },
		"SetMark":       func() error { return s.SetMark(ctx, "key", "2") },
		"Append":        func() error { return s.Append(ctx, []audit.Event{{Time: day, Kind: "login"}}) },
		"Events":        func() error { _, err := s.Events(ctx, audit.Filter{}); return err },
		"PurgeEvents":   func() error { _, err := s.PurgeEvents(ctx, day.Add(time.Hour), 1); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", method, err)
		}
	}

	same(t, "the account", account(t, s, "alice"), enrolled("alice"))
	if _, err := s.Account(t.Context(), "bob"); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("bob: got %v, want ErrNoAccount", err)
	}
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{grant("g", "alice", day)})
	value, err := s.Mark(t.Context(), "key")
	must(t, err)
	same(t, "the mark", value, "1")
	same(t, "the number of events", len(events(t, s, audit.Filter{})), 1)
}

func copies(t *testing.T, s Store) {
	a, g := enrolled("alice"), grant("g", "alice", day)
	put(t, s, a)
	putGrants(t, s, g)
	won, err := s.SpendStep(t.Context(), a.TOTP.ID, 101, &g)
	must(t, err)
	same(t, "won", won, true)
	must(t, s.Append(t.Context(), []audit.Event{{Time: day, Kind: "login"}}))

	// Change all that was handed in and all that comes out.
	a.TOTP.Sealed[0], a.TOTP.LastStep, g.PasswordTag[0] = 77, 77, 77
	got := account(t, s, "alice")
	got.TOTP.Sealed[0], got.TOTP.LastStep = 77, 77
	listed, err := s.Accounts(t.Context(), "", 1)
	must(t, err)
	listed[0].TOTP.Sealed[0], listed[0].TOTP.LastStep = 77, 77
	grants(t, s, "alice")[0].PasswordTag[0] = 77
	events(t, s, audit.Filter{})[0].Kind = "changed"

	want := enrolled("alice")
	want.TOTP.LastStep = 101
	same(t, "the account", account(t, s, "alice"), want)
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{grant("g", "alice", day)})
	same(t, "the event's kind", events(t, s, audit.Filter{})[0].Kind, "login")
}

// concurrent is for the race detector, and for stores that fail when they're busy.
func concurrent(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	var wg sync.WaitGroup
	var won atomic.Int64
	for i := range 16 {
		wg.Go(func() {
			ctx, name, id := t.Context(), fmt.Sprintf("user%d", i), fmt.Sprint("g", i)
			g := grant(id, "alice", day)
			for method, call := range map[string]func() error{
				"Account":    func() error { _, err := s.Account(ctx, "alice"); return err },
				"Accounts":   func() error { _, err := s.Accounts(ctx, "", 10); return err },
				"PutAccount": func() error { return s.PutAccount(ctx, enrolled(name)) },
				"SpendStep": func() error {
					ok, err := s.SpendStep(ctx, "totp-alice", 101, &g)
					if ok {
						won.Add(1)
					}
					return err
				},
				"Grants":      func() error { _, err := s.Grants(ctx, "alice"); return err },
				"TouchGrants": func() error { return s.TouchGrants(ctx, map[string]time.Time{id: day}) },
				"SetMark":     func() error { return s.SetMark(ctx, "key", name) },
				"Mark":        func() error { _, err := s.Mark(ctx, "key"); return err },
				"Append":      func() error { return s.Append(ctx, []audit.Event{{Time: day, Account: name}}) },
				"Events":      func() error { _, err := s.Events(ctx, audit.Filter{}); return err },
				"PurgeEvents": func() error { _, err := s.PurgeEvents(ctx, day, 16); return err },
			} {
				if err := call(); err != nil {
					t.Errorf("%s: %v", method, err)
				}
			}
		})
	}
	wg.Wait()
	same(t, "the winners", won.Load(), 1)
	same(t, "the number of grants", len(grants(t, s, "alice")), 1)
	same(t, "the number of events", len(events(t, s, audit.Filter{})), 16)
}
