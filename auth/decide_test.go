package auth

import (
	"reflect"
	"slices"
	"testing"
)

func TestPlan(t *testing.T) {
	live := func(m match) knownGrant { return knownGrant{id: "g", match: m, live: true} }
	ended := func(m match) knownGrant { return knownGrant{id: "e", match: m} }
	justGiven := knownGrant{id: "g", match: matchFront, live: true, recent: true}
	code := decision{strip: true, factor: FactorCode}
	recovery := decision{strip: true, factor: FactorRecovery}
	grantWhole := decision{factor: FactorGrant, grants: []string{"g"}}
	grantFront := decision{strip: true, factor: FactorGrant, grants: []string{"g"}}
	sameLogin := decision{strip: true, factor: FactorGrant, grants: []string{"g"}, same: true}
	whole := func(r Reason) decision { return decision{factor: FactorNone, lacks: r} }
	front := func(r Reason) decision { return decision{strip: true, factor: FactorNone, lacks: r} }
	with := func(g ...knownGrant) []knownGrant { return g }

	tests := []struct {
		name string
		f    facts
		want decision
	}{
		// Not enrolled: what looks like a code is part of the password.
		{"not enrolled, required", facts{mode: Required}, whole(NotEnrolled)},
		{"not enrolled, no mode", facts{}, whole(NotEnrolled)},
		{"not enrolled, unknown mode", facts{mode: "off"}, whole(NotEnrolled)},
		{"not enrolled, optional", facts{mode: Optional}, whole("")},
		{"not enrolled, observe", facts{mode: Observe}, whole(NotEnrolled)},

		// A fresh code.
		{"fresh", facts{enrolled: true, code: codeFresh}, code},
		{"fresh, optional", facts{mode: Optional, enrolled: true, code: codeFresh}, code},
		{"fresh, observe", facts{mode: Observe, enrolled: true, code: codeFresh}, code},
		{"fresh, asked for", facts{enrolled: true, code: codeFresh, freshCode: true}, code},
		{"fresh, and a grant lives", facts{enrolled: true, code: codeFresh, grants: with(live(matchFront))}, code},
		{"fresh by chance: the password is known whole", facts{enrolled: true, code: codeFresh, grants: with(live(matchWhole))}, grantWhole},

		// A recovery code.
		{"recovery", facts{enrolled: true, code: codeFresh, recovery: true}, recovery},
		{"recovery, asked for a fresh code", facts{enrolled: true, code: codeFresh, recovery: true, freshCode: true}, recovery},
		{"recovery, used a minute ago", facts{enrolled: true, code: codeSpent, recovery: true}, front(ReplayedCode)},
		{"recovery, used a minute ago on another connection", facts{enrolled: true, code: codeSpent, recovery: true, grants: with(justGiven)}, grantFront},
		{"recovery, used long ago", facts{enrolled: true, code: codeStale, recovery: true}, front(Expired)},
		{"recovery, used long ago, observe", facts{mode: Observe, enrolled: true, code: codeStale, recovery: true}, front(Expired)},
		{"recovery, used long ago, grant", facts{enrolled: true, code: codeStale, recovery: true, grants: with(live(matchFront))}, grantFront},
		{"recovery, used long ago, grant ended", facts{enrolled: true, code: codeStale, recovery: true, grants: with(ended(matchFront))}, front(Expired)},

		// Grants of the network and of the TLS client: the session lives under both.
		{
			"two grants",
			facts{enrolled: true, grants: with(live(matchWhole), knownGrant{id: "h", match: matchWhole, live: true})},
			decision{factor: FactorGrant, grants: []string{"g", "h"}},
		},
		{"two grants, one for what stands before the digits", facts{enrolled: true, code: codeWrong, grants: with(live(matchWhole), knownGrant{id: "h", match: matchFront, live: true})}, grantWhole},

		// A live grant.
		{"grant", facts{enrolled: true, grants: with(live(matchWhole))}, grantWhole},
		{"grant, observe", facts{mode: Observe, enrolled: true, grants: with(live(matchWhole))}, grantWhole},
		{"grant, stale code", facts{enrolled: true, code: codeWrong, grants: with(live(matchFront))}, grantFront},
		{"grant, spent code", facts{enrolled: true, code: codeSpent, grants: with(live(matchFront))}, grantFront},
		{"grant, password ends in digits", facts{enrolled: true, code: codeWrong, grants: with(live(matchWhole))}, grantWhole},
		{"grant for the login", facts{enrolled: true, code: codeSpent, grants: with(live(matchSame))}, sameLogin},
		{"grant behind others", facts{enrolled: true, grants: with(live(matchNone), ended(matchWhole), live(matchWhole))}, grantWhole},
		{"grant of another password", facts{enrolled: true, grants: with(live(matchNone))}, whole(NoCode)},

		// A live grant where a fresh code is asked for.
		{"fresh asked, grant", facts{enrolled: true, freshCode: true, grants: with(live(matchWhole))}, whole(NoCode)},
		{"fresh asked, grant, stale code", facts{enrolled: true, freshCode: true, code: codeWrong, grants: with(justGiven)}, front(WrongCode)},
		{"fresh asked, old grant, spent code", facts{enrolled: true, freshCode: true, code: codeSpent, grants: with(live(matchFront))}, front(ReplayedCode)},
		{"fresh asked, the same login", facts{enrolled: true, freshCode: true, code: codeSpent, grants: with(justGiven)}, grantFront},
		{"fresh asked, the same login, grants off", facts{enrolled: true, freshCode: true, code: codeSpent, grants: with(live(matchSame))}, sameLogin},

		// Neither.
		{"password alone", facts{enrolled: true}, whole(NoCode)},
		{"password alone, optional", facts{mode: Optional, enrolled: true}, whole(NoCode)},
		{"password alone, observe", facts{mode: Observe, enrolled: true}, whole(NoCode)},
		{"password alone, grant ended", facts{enrolled: true, grants: with(ended(matchWhole))}, whole(NoCode)},
		{"password ends in digits, grant ended", facts{enrolled: true, code: codeWrong, grants: with(ended(matchWhole))}, whole(NoCode)},
		{"wrong code", facts{enrolled: true, code: codeWrong}, front(WrongCode)},
		{"wrong code, optional", facts{mode: Optional, enrolled: true, code: codeWrong}, front(WrongCode)},
		{"wrong code, observe", facts{mode: Observe, enrolled: true, code: codeWrong}, whole(NoCode)},
		{"wrong code, observe, grant ended", facts{mode: Observe, enrolled: true, code: codeWrong, grants: with(ended(matchFront))}, front(WrongCode)},
		{"wrong code, observe, login ended", facts{mode: Observe, enrolled: true, code: codeWrong, grants: with(ended(matchSame))}, front(WrongCode)},
		{"replay", facts{enrolled: true, code: codeSpent}, front(ReplayedCode)},
		{"replay from elsewhere", facts{enrolled: true, code: codeSpent, grants: with(ended(matchFront))}, front(ReplayedCode)},
		{"replay, observe", facts{mode: Observe, enrolled: true, code: codeSpent}, front(ReplayedCode)},
	}
	for _, test := range tests {
		if got := plan(test.f); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// TestPlanLetsNobodyInForNothing goes through all combinations of facts with up to two grants.
func TestPlanLetsNobodyInForNothing(t *testing.T) {
	var grants [][]knownGrant
	var one []knownGrant
	for m := matchNone; m <= matchSame; m++ {
		for bits := range 4 {
			g := knownGrant{id: string(rune('a' + len(one))), match: m, live: bits&1 != 0, recent: bits&2 != 0}
			one = append(one, g)
		}
	}
	grants = append(grants, nil)
	for _, g := range one {
		grants = append(grants, []knownGrant{g})
		for _, h := range one {
			grants = append(grants, []knownGrant{g, h})
		}
	}
	for _, mode := range []Mode{"", "unknown", Required, Optional, Observe} {
		for code := codeAbsent; code <= codeFresh; code++ {
			for _, known := range grants {
				front := func(g knownGrant) bool { return g.match == matchFront || g.match == matchSame }
				if code == codeAbsent && slices.ContainsFunc(known, front) {
					continue // without a code there is nothing before it
				}
				for bits := range 8 {
					check(t, facts{mode: mode, enrolled: bits&1 != 0, freshCode: bits&2 != 0, recovery: bits&4 != 0, code: code, grants: known})
				}
			}
		}
	}
}

func check(t *testing.T, f facts) {
	t.Helper()
	d := plan(f)
	fail := func(what string) { t.Helper(); t.Errorf("%s: %+v for %+v", what, d, f) }
	if d.strip && f.code == codeAbsent {
		fail("stripped what isn't there")
	}
	switch d.factor {
	case FactorNone:
		if d.lacks == "" && (f.enrolled || f.mode != Optional) {
			fail("lets in without a factor")
		}
	case FactorCode, FactorRecovery:
		if !f.enrolled || f.code != codeFresh || !d.strip || f.recovery != (d.factor == FactorRecovery) {
			fail("takes a code that isn't fresh")
		}
	case FactorGrant:
		if len(d.grants) == 0 {
			fail("takes no grant")
		}
		theSame := func(g knownGrant) bool { return g.match == matchSame && slices.Contains(d.grants, g.id) }
		if d.same != slices.ContainsFunc(f.grants, theSame) {
			fail("takes another login for the same, or this one for another")
		}
		for _, g := range f.grants {
			if !slices.Contains(d.grants, g.id) {
				continue
			}
			if !f.enrolled || !g.live || g.match == matchNone || d.strip == (g.match == matchWhole) {
				fail("takes a grant that doesn't fit")
			}
			if f.freshCode && g.match != matchSame && (!g.recent || f.code != codeSpent) {
				fail("takes a grant for a fresh code")
			}
		}
	default:
		fail("no factor")
	}
	if f.mode == "" || f.mode == "unknown" {
		strict := f
		strict.mode = Required
		if !reflect.DeepEqual(plan(strict), d) {
			fail("an unknown mode isn't Required")
		}
	}
}
