// Package storetest holds what every store must keep: one test for each promise
// that packages auth, audit, certs and policy make. Each test gets an empty store.
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
	"imapwarden/certs"
	"imapwarden/policy"
)

// A Store is what is tested.
type Store interface {
	auth.Records
	audit.Sink
	policy.Memory
	certs.Records
	Events(ctx context.Context, f audit.Filter) ([]audit.Event, error)
	Ways(ctx context.Context, since time.Time, after string, limit int) ([]audit.Way, error)
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
		{"RemoveAccount removes record, grants and app passwords", removeAccount},
		{"a step is spent once, and no older one after it", spendOnce},
		{"of many who spend a step one wins", spendRace},
		{"the grant of a spent step is there if and only if it was won", spendWithGrant},
		{"Confirm spends the step and sets Confirmed", confirm},
		{"an unknown or replaced authenticator wins nothing", unknownAuthenticator},
		{"an authenticator's recovery codes are those last put", putRecovery},
		{"a recovery code counts once", spendRecovery},
		{"of many who spend a recovery code one wins", spendRecoveryRace},
		{"Reseal replaces what still is sealed", reseal},
		{"grants come back as they were put, oldest first", grantRoundTrip},
		{"PutGrant replaces the grant with its ID", putGrantReplaces},
		{"LastUsed only becomes later", touchGrants},
		{"RemoveGrants removes those named, or all", removeGrants},
		{"PurgeGrants removes what expired before", purgeGrants},
		{"an app password comes back as it was added", appPasswordRoundTrip},
		{"an app password has an ID, a tag and networks", appPasswordRefused},
		{"AddAppPassword makes the account's record", addMakesAccount},
		{"an account has so many app passwords at most", addAtMost},
		{"of many who add app passwords no more succeed", addRace},
		{"a revoked app password keeps no secret", revokeAppPassword},
		{"what is sealed anew isn't stale", sealAppPasswords},
		{"RetagAppPassword sets tag and key", retagAppPassword},
		{"SignIn answers in one step", signIn},
		{"LastUse only becomes later", useAppPasswords},
		{"PurgeAppPasswords removes what was over before", purgeAppPasswords},
		{"TagKeys are those in use", tagKeys},
		{"marks are set and replaced", marks},
		{"events come back as appended, in order", eventRoundTrip},
		{"a filter chooses events", eventFilters},
		{"a source filter knows IPv4 from IPv6", eventSources},
		{"of too many events the newest come", eventLimit},
		{"of too many events the oldest come if asked for", oldestEvents},
		{"Append says what it keeps", appendSays},
		{"events are chained", chain},
		{"events are chained by many at once", chainRace},
		{"a chain goes on from what was purged", chainOverPurge},
		{"ways are counted by account, factor and program", ways},
		{"PurgeEvents removes what is old, from the beginning", purgeOldEvents},
		{"PurgeEvents keeps the newest", purgeManyEvents},
		{"PurgeEvents leaves something", purgeAllEvents},
		{"an ID isn't given twice, also after a purge", purgedIDs},
		{"bans come back as they were put, by network", banRoundTrip},
		{"PutBans replaces those of the same networks", putBansReplaces},
		{"RemoveBans removes those named", removeBans},
		{"homes come back as they were put, the latest first", homeRoundTrip},
		{"of too many homes the latest come", homeLimit},
		{"a home's Last only becomes later", putHomesLater},
		{"many homes are put at once", putManyHomes},
		{"bans and homes are put all, or none", putMemoryWhole},
		{"RemoveAccount removes the account's homes", removeHomes},
		{"PurgeMemory removes what was over before", purgeMemory},
		{"bans and homes with a cancelled context: an error, and nothing is written", cancelledMemory},
		{"bans and homes are put by many at once", memoryRace},
		{"a file comes back as it was saved", fileRoundTrip},
		{"SaveFile replaces the file of its name", saveReplaces},
		{"files are listed and deleted with all below them", filesBelow},
		{"ResealFile replaces what still is sealed", resealFile},
		{"a lease is its holder's until it ends", leases},
		{"of many who lease a name one wins", leaseRace},
		{"files and leases with a cancelled context: an error, and nothing is written", cancelledFiles},
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
		cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}),
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
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("r")))
	add(t, s, issued("p", "alice"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := grant("h", "alice", day)
	lost := []audit.Event{{Time: day.Add(1), Kind: "login"}}
	for method, call := range map[string]func() error{
		"Account":       func() error { _, err := s.Account(ctx, "alice"); return err },
		"Accounts":      func() error { _, err := s.Accounts(ctx, "", 10); return err },
		"PutAccount":    func() error { return s.PutAccount(ctx, enrolled("bob")) },
		"RemoveAccount": func() error { return s.RemoveAccount(ctx, "alice") },
		"SpendStep":     func() error { _, err := s.SpendStep(ctx, "totp-alice", 101, other); return err },
		"Confirm":       func() error { _, err := s.Confirm(ctx, "totp-alice", 101, day); return err },
		"Grants":        func() error { _, err := s.Grants(ctx, "alice"); return err },
		"PutGrant":      func() error { return s.PutGrant(ctx, other) },
		"TouchGrants":   func() error { return s.TouchGrants(ctx, map[string]time.Time{"g": day.Add(time.Hour)}) },
		"RemoveGrants":  func() error { _, err := s.RemoveGrants(ctx, "alice"); return err },
		"PurgeGrants":   func() error { return s.PurgeGrants(ctx, day.AddDate(1, 0, 0)) },
		"Ways":          func() error { _, err := s.Ways(ctx, day, "", 10); return err },
		"RecoveryCodes": func() error { _, err := s.RecoveryCodes(ctx, "totp-alice"); return err },
		"SpendRecovery": func() error { _, _, err := s.SpendRecovery(ctx, "totp-alice", []byte("r"), day); return err },
		"PutRecovery":   func() error { _, err := s.PutRecovery(ctx, "totp-alice", nil); return err },
		"Reseal": func() error {
			_, err := s.Reseal(ctx, "totp-alice", enrolled("alice").TOTP.Sealed, []byte{1})
			return err
		},
		"AppPassword":       func() error { _, err := s.AppPassword(ctx, issued("p", "alice").Tag); return err },
		"AppPasswords":      func() error { _, err := s.AppPasswords(ctx, "alice"); return err },
		"AddAppPassword":    func() error { _, err := s.AddAppPassword(ctx, issued("q", "bob"), 10); return err },
		"RevokeAppPassword": func() error { _, err := s.RevokeAppPassword(ctx, "alice", "p", day); return err },
		"SealAppPasswords":  func() error { return s.SealAppPasswords(ctx, "alice", map[string][]byte{"p": {1}}) },
		"StaleAppPassword":  func() error { return s.StaleAppPassword(ctx, "p", issued("p", "alice").Sealed) },
		"SignIn":            func() error { _, err := s.SignIn(ctx, "alice"); return err },
		"RetagAppPassword":  func() error { return s.RetagAppPassword(ctx, "p", []byte{1}, nil, "k9") },
		"UseAppPasswords": func() error {
			return s.UseAppPasswords(ctx, map[string]auth.Use{"p": {Time: day.AddDate(1, 0, 0)}})
		},
		"PurgeAppPasswords": func() error { return s.PurgeAppPasswords(ctx, day.AddDate(9, 0, 0)) },
		"TagKeys":           func() error { _, err := s.TagKeys(ctx); return err },
		"Mark":              func() error { _, err := s.Mark(ctx, "key"); return err },
		"SetMark":           func() error { return s.SetMark(ctx, "key", "2") },
		"Append":            func() error { return s.Append(ctx, lost) },
		"Events":            func() error { _, err := s.Events(ctx, audit.Filter{}); return err },
		"PurgeEvents":       func() error { _, err := s.PurgeEvents(ctx, day.Add(time.Hour), 1); return err },
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
	same(t, "the recovery codes", recovery(t, s, "totp-alice"), []auth.RecoveryCode{{Tag: []byte("r")}})
	same(t, "the app passwords", appPasswords(t, s, "alice"), []auth.AppPassword{issued("p", "alice")})
	same(t, "the events that weren't written", lost, []audit.Event{{Time: day.Add(1), Kind: "login"}})
	same(t, "the number of events", len(events(t, s, audit.Filter{})), 1)
}

func copies(t *testing.T, s Store) {
	a, g, p := enrolled("alice"), grant("g", "alice", day), issued("p", "alice")
	g.Client = []byte{5}
	put(t, s, a)
	putGrants(t, s, g)
	add(t, s, p)
	won, err := s.SpendStep(t.Context(), a.TOTP.ID, 101, g)
	must(t, err)
	same(t, "won", won, true)
	appended := []audit.Event{{Time: day, Kind: "login"}}
	must(t, s.Append(t.Context(), appended))
	resealed, tag, code := []byte{6}, []byte{6}, []byte{6}
	_, err = s.Reseal(t.Context(), a.TOTP.ID, a.TOTP.Sealed, resealed)
	must(t, err)
	_, err = s.PutRecovery(t.Context(), a.TOTP.ID, [][]byte{code})
	must(t, err)
	must(t, s.SealAppPasswords(t.Context(), "alice", map[string][]byte{"p": resealed}))
	must(t, s.RetagAppPassword(t.Context(), "p", tag, tag, "k1"))

	// Change all that was handed in and all that comes out.
	a.TOTP.Sealed[0], a.TOTP.LastStep, g.PasswordTag[0] = 77, 77, 77
	g.Client[0], p.Public[0], p.Networks[0] = 77, 77, netip.Prefix{}
	resealed[0], tag[0], code[0], appended[0].Kind = 77, 77, 77, "changed"
	got := account(t, s, "alice")
	got.TOTP.Sealed[0], got.TOTP.LastStep = 77, 77
	listed, err := s.Accounts(t.Context(), "", 1)
	must(t, err)
	listed[0].TOTP.Sealed[0], listed[0].TOTP.LastStep = 77, 77
	grants(t, s, "alice")[0].PasswordTag[0], grants(t, s, "alice")[0].Client[0] = 77, 77
	for _, p := range appPasswords(t, s, "alice") {
		p.Tag[0], p.Public[0], p.PublicTag[0], p.Sealed[0], p.Networks[0] = 77, 77, 77, 77, netip.Prefix{}
	}
	found, err := s.AppPassword(t.Context(), []byte{6})
	must(t, err)
	found.Tag[0], found.Public[0], found.Sealed[0], found.Networks[0] = 77, 77, 77, netip.Prefix{}
	recovery(t, s, a.TOTP.ID)[0].Tag[0] = 77
	events(t, s, audit.Filter{})[0].Kind = "changed"

	want := enrolled("alice")
	want.TOTP.LastStep, want.TOTP.Sealed = 101, []byte{6}
	same(t, "the account", account(t, s, "alice"), want)
	wantGrant, wantIssued := grant("g", "alice", day), issued("p", "alice")
	wantGrant.Client = []byte{5}
	wantIssued.Tag, wantIssued.PublicTag, wantIssued.KeyID, wantIssued.Sealed = []byte{6}, []byte{6}, "k1", []byte{6}
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{wantGrant})
	same(t, "the app passwords", appPasswords(t, s, "alice"), []auth.AppPassword{wantIssued})
	same(t, "the recovery codes", recovery(t, s, a.TOTP.ID), []auth.RecoveryCode{{Tag: []byte{6}}})
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
					ok, err := s.SpendStep(ctx, "totp-alice", 101, g)
					if ok {
						won.Add(1)
					}
					return err
				},
				"Grants":          func() error { _, err := s.Grants(ctx, "alice"); return err },
				"TouchGrants":     func() error { return s.TouchGrants(ctx, map[string]time.Time{id: day}) },
				"AddAppPassword":  func() error { _, err := s.AddAppPassword(ctx, issued(id, name), 1); return err },
				"UseAppPasswords": func() error { return s.UseAppPasswords(ctx, map[string]auth.Use{id: {Time: day}}) },
				"AppPasswords":    func() error { _, err := s.AppPasswords(ctx, name); return err },
				"Ways":            func() error { _, err := s.Ways(ctx, day, "", 10); return err },
				"SetMark":         func() error { return s.SetMark(ctx, "key", name) },
				"Mark":            func() error { _, err := s.Mark(ctx, "key"); return err },
				"Append":          func() error { return s.Append(ctx, []audit.Event{{Time: day, Account: name}}) },
				"Events":          func() error { _, err := s.Events(ctx, audit.Filter{}); return err },
				"PurgeEvents":     func() error { _, err := s.PurgeEvents(ctx, day, 16); return err },
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
