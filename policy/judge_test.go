package policy

import (
	"net/netip"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	yes := Decision{Allowed: true}
	free := addressFacts{minute: 10, day: 50}
	stranger := func(change func(*facts)) facts {
		f := facts{limits: new(Limits), site: free, narrow: free, far: free}
		change(&f)
		return f
	}
	owner := func(change func(*facts)) facts {
		f := facts{limits: new(Limits), familiar: true, home: homeFacts{left: 50}}
		change(&f)
		return f
	}
	observed := &Limits{Observe: true}
	tests := []struct {
		name string
		in   facts
		want Decision
	}{
		{"nothing known", facts{limits: new(Limits)}, Decision{Signal: AddressLimit, Wait: time.Second}},
		{"fresh", stranger(func(*facts) {}), yes},
		{"last failure of the minute", stranger(func(f *facts) { f.site.minute = 1 }), yes},
		{
			"minute used up",
			stranger(func(f *facts) { f.site = addressFacts{minute: 0.5, day: 50, refill: 2500 * time.Millisecond} }),
			Decision{Signal: AddressLimit, Wait: 3 * time.Second},
		},
		{
			"day used up",
			stranger(func(f *facts) { f.site = addressFacts{minute: 10, refill: 1728 * time.Second} }),
			Decision{Signal: AddressLimit, Wait: 1728 * time.Second},
		},
		{"nine left, eight in flight", stranger(func(f *facts) { f.site.minute, f.site.flying = 9, 8 }), yes},
		{"nine left, nine in flight", stranger(func(f *facts) { f.site.minute, f.site.flying = 9, 9 }), Decision{Signal: AddressLimit, busy: true}},
		{"neighbours used up what they share", stranger(func(f *facts) { f.narrow = addressFacts{day: 9, refill: time.Minute} }), Decision{Signal: RangeLimit, Wait: time.Minute}},
		{"those farther away, too", stranger(func(f *facts) { f.far = addressFacts{minute: 9, refill: time.Hour} }), Decision{Signal: RangeLimit, Wait: time.Hour}},
		{"banned", stranger(func(f *facts) { f.ban.wait = time.Hour }), Decision{Signal: Banned, Wait: time.Hour}},
		{"banned comes first", facts{limits: new(Limits), ban: banFacts{wait: time.Hour}}, Decision{Signal: Banned, Wait: time.Hour}},
		{"one failure, one in flight", stranger(func(f *facts) { f.tarpit = tarpitFacts{row: 1, busy: true} }), yes},
		{"two failures, one in flight", stranger(func(f *facts) { f.tarpit = tarpitFacts{row: 2, busy: true} }), Decision{Signal: TarpitBusy, busy: true}},
		{"two failures, none in flight", stranger(func(f *facts) { f.tarpit = tarpitFacts{row: 2} }), yes},
		{"trusted", facts{limits: new(Limits), trusted: true, ban: banFacts{wait: time.Hour, byHand: true}}, yes},

		{"a home has a budget of its own", owner(func(f *facts) { f.home.left = 1 }), yes},
		{"and it ends", owner(func(f *facts) { f.home = homeFacts{refill: time.Hour} }), Decision{Signal: FamiliarLimit, Wait: time.Hour}},
		{"nor can parallel attempts pass it", owner(func(f *facts) { f.home = homeFacts{left: 2, flying: 2} }), Decision{Signal: FamiliarLimit, busy: true}},
		{"a home in a banned network", owner(func(f *facts) { f.ban.wait = time.Hour }), yes},
		{"but for one by hand", owner(func(f *facts) { f.ban = banFacts{wait: time.Hour, byHand: true} }), Decision{Signal: Banned, Wait: time.Hour}},

		{"observed", facts{limits: observed, narrow: free, far: free}, Decision{Allowed: true, Observed: AddressLimit}},
		{"observed ban", stranger(func(f *facts) { f.limits, f.ban.wait = observed, time.Hour }), Decision{Allowed: true, Observed: Banned}},
		{"observed: a wait is no refusal", stranger(func(f *facts) { f.limits, f.site.flying = observed, 10 }), yes},
		{
			"one signal observed, another enforced",
			stranger(func(f *facts) {
				f.limits, f.site, f.far = &Limits{Observed: []string{AddressLimit}}, addressFacts{}, addressFacts{}
			}),
			Decision{Signal: RangeLimit, Wait: time.Second},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(tt.in); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestJudgeStranger(t *testing.T) {
	free := strangerFacts{
		limits:  new(Limits),
		account: accountFacts{left: 10, codes: 100},
		machine: machineFacts{strangers: 60, unproved: 5},
	}
	at := func(e Evidence, change func(*strangerFacts)) strangerFacts {
		f := free
		f.evidence = e
		change(&f)
		return f
	}
	quiet := func(*strangerFacts) {}
	penalty := func(f *strangerFacts) { f.account.penalty = time.Minute }
	tired := func(f *strangerFacts) { f.machine = machineFacts{refill: time.Minute} }
	waits := func(signal string) Decision { return Decision{Signal: signal, Wait: time.Minute} }
	yes := Decision{Allowed: true}
	tests := []struct {
		name string
		in   strangerFacts
		want Decision
	}{
		{"nothing", at(Nothing, quiet), yes},
		{"alone", at(PasswordAlone, quiet), yes},
		{"code", at(RightCode, quiet), yes},
		{"grant", at(Granted, quiet), yes},

		{"nothing, trickle used up", at(Nothing, func(f *strangerFacts) { f.machine.unproved = 0.9 }), Decision{Signal: Unproved}},
		{"nothing, penalty", at(Nothing, penalty), waits(AccountLimit)},
		{"nothing, all strangers' budget used up", at(Nothing, tired), Decision{Signal: Unproved, Looks: StrangersLimit}},
		{"alone, penalty", at(PasswordAlone, penalty), waits(AccountLimit)},
		{"alone, in flight", at(PasswordAlone, func(f *strangerFacts) { f.account.left, f.account.flying = 3, 3 }), Decision{Signal: AccountLimit, busy: true}},
		{"alone, all strangers' budget used up", at(PasswordAlone, tired), waits(StrangersLimit)},
		{"alone, repeated", at(PasswordAlone, func(f *strangerFacts) { f.repeated = true }), Decision{Signal: Repeated}},
		{"code, penalty: it looks like others", at(RightCode, penalty), Decision{Allowed: true, Looks: AccountLimit}},
		{"code, all strangers' budget used up", at(RightCode, tired), Decision{Allowed: true, Looks: StrangersLimit}},
		{"code, too many wrong ones", at(RightCode, func(f *strangerFacts) { f.account.codes, f.account.refill = 0, time.Minute }), waits(AccountCodes)},
		{"code, and as many in flight", at(RightCode, func(f *strangerFacts) { f.account.codes, f.account.flying, f.account.refill = 2, 2, time.Minute }), waits(AccountCodes)},
		{"grant, penalty", at(Granted, func(f *strangerFacts) { penalty(f); tired(f); f.account.codes = 0 }), yes},
		{"observed", at(PasswordAlone, func(f *strangerFacts) { penalty(f); f.limits = &Limits{Observe: true} }), Decision{Allowed: true, Observed: AccountLimit}},
		{"the trickle observed", at(Nothing, func(f *strangerFacts) { f.machine.unproved, f.limits = 0, &Limits{Observed: []string{Unproved}} }), Decision{Allowed: true, Observed: Unproved}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judgeStranger(tt.in); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestJudgeDemand(t *testing.T) {
	enforce := new(Limits)
	allowed := func(d Demand, why string) Decision { return Decision{Allowed: true, Demand: d, Why: why} }
	tests := []struct {
		name string
		in   demandFacts
		want Decision
	}{
		{"nothing", demandFacts{limits: enforce}, allowed(DemandNothing, "")},
		{"sprayed", demandFacts{limits: enforce, sprayed: true}, allowed(DemandFreshCode, PasswordSprayed)},
		{"sprayed, at home", demandFacts{limits: enforce, sprayed: true, familiar: true}, allowed(DemandFreshCode, PasswordSprayed)},
		{"common", demandFacts{limits: enforce, common: true}, allowed(DemandFreshCode, PasswordCommon)},
		{"common, at home", demandFacts{limits: enforce, common: true, familiar: true, action: CommonRefuse}, allowed(DemandNothing, "")},
		{"common, refused", demandFacts{limits: enforce, common: true, action: CommonRefuse}, Decision{Signal: PasswordCommon}},
		{"common, reported", demandFacts{limits: enforce, common: true, action: CommonReport}, allowed(DemandNothing, "")},
		{"siege", demandFacts{limits: enforce, siege: true}, allowed(DemandFactor, AccountNetworks)},
		{"siege, at home", demandFacts{limits: enforce, siege: true, familiar: true}, allowed(DemandNothing, "")},
		{"siege and sprayed", demandFacts{limits: enforce, siege: true, sprayed: true}, allowed(DemandFreshCode, PasswordSprayed)},
		{"observed", demandFacts{limits: &Limits{Observe: true}, sprayed: true, siege: true}, Decision{Allowed: true, Observed: PasswordSprayed}},
		{"observed, refused", demandFacts{limits: &Limits{Observe: true}, common: true, action: CommonRefuse}, Decision{Allowed: true, Observed: PasswordCommon}},
		{"one observed", demandFacts{limits: &Limits{Observed: []string{PasswordSprayed}}, sprayed: true, siege: true}, Decision{Allowed: true, Demand: DemandFactor, Why: AccountNetworks, Observed: PasswordSprayed}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judgeDemand(tt.in); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestJudgeNetwork(t *testing.T) {
	l := Limits{}.withDefaults()
	for _, tt := range []struct {
		in   networkFacts
		want string
	}{
		{networkFacts{failing: 10}, ""},
		{networkFacts{failing: 11}, NetworkAccounts},
		{networkFacts{failing: 4, unknown: 4}, ""},
		{networkFacts{failing: 5, unknown: 5}, NetworkUnknown},
		{networkFacts{failing: 30, signed: 100}, ""}, // an office: 25 more
		{networkFacts{failing: 36, signed: 100}, NetworkAccounts},
		{networkFacts{failing: 127, signed: 1000}, ""},
		{networkFacts{failing: 128, signed: 1000}, NetworkAccounts}, // more aren't remembered
	} {
		if got := judgeNetwork(tt.in, &l); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestJudgePasswordAndSiege(t *testing.T) {
	l := Limits{}.withDefaults()
	for in, want := range map[passwordFacts]bool{{4, 7}: false, {5, 5}: true, {0, 8}: true, {}: false} {
		if got := judgePassword(in, &l); got != want {
			t.Errorf("%+v: %v", in, got)
		}
	}
	for in, want := range map[siegeFacts]bool{{11, 6}: false, {12, 0}: true, {2, 7}: true, {1, 100}: false} {
		if got := judgeSiege(in, &l); got != want {
			t.Errorf("%+v: %v", in, got)
		}
	}
}

func TestJudgeAlarm(t *testing.T) {
	for _, tt := range []struct {
		in   tally
		norm float64
		was  bool
		want bool
	}{
		{tally{49, 49}, 0.1, false, false}, // too few to say anything
		{tally{50, 24}, 0.1, false, false},
		{tally{50, 25}, 0.1, false, true},
		{tally{100, 39}, 0.1, false, false},
		{tally{100, 40}, 0.1, false, true},
		{tally{100, 40}, 0.3, false, false}, // as usual at this hour
		{tally{100, 26}, 0.1, true, true},   // it ends later than it begins
		{tally{100, 24}, 0.1, true, false},
		{tally{}, 0.1, true, false},
	} {
		if got := judgeAlarm(tt.in, tt.norm, 0.3, tt.was); got != tt.want {
			t.Errorf("%+v above %v, alarmed %v: %v", tt.in, tt.norm, tt.was, got)
		}
	}
}

func TestZeroDecisionIsRefused(t *testing.T) {
	if (Decision{}).Allowed {
		t.Error("the zero Decision allows")
	}
}

func TestSource(t *testing.T) {
	tests := []struct{ addr, network, site, narrow, far string }{
		{"203.0.113.77", "203.0.113.0/24", "203.0.113.77/32", "203.0.113.64/26", "203.0.112.0/21"},
		{"::ffff:203.0.113.77", "203.0.113.0/24", "203.0.113.77/32", "203.0.113.64/26", "203.0.112.0/21"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1::/48", "2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8::/32"},
		{"fe80::1%eth0", "fe80::/48", "fe80::/64", "fe80::/48", "fe80::/32"},
	}
	for _, tt := range tests {
		s := SourceOf(netip.MustParseAddr(tt.addr))
		if got := [4]string{s.Network().String(), s.Site().String(), s.ranges()[0].prefix.String(), s.ranges()[1].prefix.String()}; got != [4]string{tt.network, tt.site, tt.narrow, tt.far} {
			t.Errorf("%s: %v", tt.addr, got)
		}
	}
	if s := SourceOf(netip.Addr{}); s.Network().IsValid() || s.Site().IsValid() {
		t.Error("an invalid address has a prefix")
	}
}
