package storetest

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapwarden/auth"
)

// recovery returns the codes ordered by their tags.
func recovery(t *testing.T, s Store, totp string) []auth.RecoveryCode {
	t.Helper()
	codes, err := s.RecoveryCodes(t.Context(), totp)
	must(t, err)
	slices.SortFunc(codes, func(a, b auth.RecoveryCode) int { return bytes.Compare(a.Tag, b.Tag) })
	return codes
}

func spendCode(t *testing.T, s Store, totp, tag string, wantLeft int, want bool, grants ...auth.Grant) {
	t.Helper()
	left, won, err := s.SpendRecovery(t.Context(), totp, []byte(tag), day, grants...)
	must(t, err)
	if won != want || left != wantLeft {
		t.Errorf("code %s of %s: won is %v, %d left; want %v, %d", tag, totp, won, left, want, wantLeft)
	}
}

// codes are unused.
func codes(tags ...string) []auth.RecoveryCode {
	var list []auth.RecoveryCode
	for _, tag := range tags {
		list = append(list, auth.RecoveryCode{Tag: []byte(tag)})
	}
	return list
}

func putRecovery(t *testing.T, s Store) {
	put(t, s, enrolled("alice"))
	same(t, "the codes of an authenticator without", recovery(t, s, "totp-alice"), nil)
	same(t, "the codes of none", recovery(t, s, "unknown"), nil)
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("a\x00'"), []byte("b"), []byte("b")))
	must(t, s.PutAccount(t.Context(), enrolled("bob"), []byte("b")))
	same(t, "alice's codes", recovery(t, s, "totp-alice"), codes("a\x00'", "b"))
	if c := recovery(t, s, "totp-alice")[0]; !c.Used.IsZero() {
		t.Errorf("an unused code was used at %v", c.Used)
	}

	replace := func(totp string, want bool, tags ...[]byte) {
		t.Helper()
		known, err := s.PutRecovery(t.Context(), totp, tags)
		must(t, err)
		same(t, "known", known, want)
	}
	spendCode(t, s, "totp-alice", "b", 1, true)
	replace("totp-alice", true, []byte("b"), []byte("c")) // one that was used, under a new key perhaps
	same(t, "alice's codes", recovery(t, s, "totp-alice"), codes("b", "c"))
	replace("totp-alice", true)
	same(t, "alice's codes", recovery(t, s, "totp-alice"), nil)
	replace("unknown", false, []byte("d"))
	same(t, "the codes of none", recovery(t, s, "unknown"), nil)

	// The same authenticator, put again, has exactly those put with it; so has another.
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("d")))
	spendCode(t, s, "totp-alice", "d", 0, true)
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("d"), []byte("e")))
	same(t, "alice's codes", recovery(t, s, "totp-alice"), codes("d", "e"))
	put(t, s, enrolled("alice"))
	same(t, "alice's codes", recovery(t, s, "totp-alice"), nil)
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("f")))
	reset := enrolled("alice")
	reset.TOTP.ID = "new"
	must(t, s.PutAccount(t.Context(), reset, []byte("g")))
	same(t, "the old authenticator's codes", recovery(t, s, "totp-alice"), nil)
	spendCode(t, s, "totp-alice", "f", 0, false)
	same(t, "the new one's codes", recovery(t, s, "new"), codes("g"))
	same(t, "bob's codes", recovery(t, s, "totp-bob"), codes("b"))

	bare := auth.Account{Name: "alice", Created: day}
	if err := s.PutAccount(t.Context(), bare, []byte("h")); err == nil {
		t.Error("an account without authenticator has recovery codes")
	}
	same(t, "alice", account(t, s, "alice"), reset)
	put(t, s, bare)
	same(t, "the codes of an authenticator that is gone", recovery(t, s, "new"), nil)
}

func spendRecovery(t *testing.T, s Store) {
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("a"), []byte("b"), []byte("c")))
	must(t, s.PutAccount(t.Context(), enrolled("bob"), []byte("a")))
	g, late := grant("g", "alice", day), grant("late", "alice", day)
	other := grant("other", "alice", day)
	other.Client = []byte{1}
	spendCode(t, s, "totp-alice", "d", 3, false, late)
	spendCode(t, s, "totp-alice", "", 3, false, late)
	spendCode(t, s, "unknown", "a", 0, false, late)
	spendCode(t, s, "totp-alice", "a", 2, true, g, other)
	spendCode(t, s, "totp-alice", "a", 2, false, late)
	spendCode(t, s, "totp-alice", "c", 1, true)
	same(t, "the grants", grants(t, s, "alice"), []auth.Grant{g, other})
	same(t, "alice's codes", recovery(t, s, "totp-alice"), []auth.RecoveryCode{
		{Tag: []byte("a"), Used: day}, {Tag: []byte("b")}, {Tag: []byte("c"), Used: day},
	})
	same(t, "bob's codes", recovery(t, s, "totp-bob"), codes("a"))
	same(t, "alice", account(t, s, "alice"), enrolled("alice")) // LastStep too

	// Spending says when, cut to microseconds.
	_, won, err := s.SpendRecovery(t.Context(), "totp-bob", []byte("a"), day.Add(999).In(time.FixedZone("", 3600)))
	must(t, err)
	same(t, "won", won, true)
	same(t, "bob's codes", recovery(t, s, "totp-bob"), []auth.RecoveryCode{{Tag: []byte("a"), Used: day}})
}

func spendRecoveryRace(t *testing.T, s Store) {
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("a"), []byte("b")))
	for i, tag := range []string{"a", "b"} {
		var wins atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 64 {
			wg.Go(func() {
				<-start
				_, won, err := s.SpendRecovery(t.Context(), "totp-alice", []byte(tag), day, grant(tag+strconv.Itoa(i), "alice", day))
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
		same(t, "the number of grants", len(grants(t, s, "alice")), i+1)
	}
}

func reseal(t *testing.T, s Store) {
	must(t, s.PutAccount(t.Context(), enrolled("alice"), []byte("a")))
	put(t, s, enrolled("bob"))
	old := enrolled("alice").TOTP.Sealed
	for _, test := range []struct {
		totp        string
		old, sealed []byte
		won         bool
	}{
		{"unknown", old, []byte{1}, false},
		{"totp-alice", old[1:], []byte{1}, false},
		{"totp-alice", nil, []byte{1}, false},
		{"totp-alice", old, []byte{2}, true},
		{"totp-alice", old, []byte{3}, false},
	} {
		won, err := s.Reseal(t.Context(), test.totp, test.old, test.sealed)
		must(t, err)
		same(t, "won", won, test.won)
	}
	want := enrolled("alice")
	want.TOTP.Sealed = []byte{2}
	same(t, "alice", account(t, s, "alice"), want)
	same(t, "bob", account(t, s, "bob"), enrolled("bob"))
	same(t, "alice's codes", recovery(t, s, "totp-alice"), codes("a"))
}
