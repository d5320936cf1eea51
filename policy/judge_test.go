package policy

import (
	"net/netip"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	fresh := addressFacts{minute: 10, day: 50}
	stranger := accountFacts{left: 10}
	tests := []struct {
		name string
		in   facts
		want Decision
	}{
		{"nothing known", facts{}, Decision{Signal: AddressLimit, Wait: time.Second}},
		{"fresh", facts{address: fresh, account: stranger}, Decision{Allowed: true}},
		{"last failure of the minute", facts{address: addressFacts{minute: 1, day: 50}, account: stranger}, Decision{Allowed: true}},
		{
			"minute used up",
			facts{address: addressFacts{minute: 0.5, day: 50, refill: 2500 * time.Millisecond}, account: stranger},
			Decision{Signal: AddressLimit, Wait: 3 * time.Second},
		},
		{
			"day used up",
			facts{address: addressFacts{minute: 10, day: 0, refill: 1728 * time.Second}, account: stranger},
			Decision{Signal: AddressLimit, Wait: 1728 * time.Second},
		},
		{
			"a home has a budget of its own",
			facts{familiar: true, home: homeFacts{left: 1}},
			Decision{Allowed: true},
		},
		{
			"and it ends",
			facts{familiar: true, home: homeFacts{refill: time.Hour}, address: fresh, account: stranger},
			Decision{Signal: AddressLimit, Wait: time.Hour},
		},
		{
			"nor can parallel attempts pass it",
			facts{familiar: true, home: homeFacts{left: 2, flying: 2}},
			Decision{Signal: AddressLimit, busy: true},
		},
		{"nine left, eight in flight", facts{address: addressFacts{minute: 9, day: 50, flying: 8}, account: stranger}, Decision{Allowed: true}},
		{
			"nine left, nine in flight",
			facts{address: addressFacts{minute: 9, day: 50, flying: 9}, account: stranger},
			Decision{Signal: AddressLimit, busy: true},
		},
		{
			"account penalised",
			facts{address: fresh, account: accountFacts{left: 10, penalty: time.Minute}},
			Decision{Signal: AccountLimit, Wait: time.Minute},
		},
		{"account penalised, familiar", facts{familiar: true, home: homeFacts{left: 50}, address: fresh, account: accountFacts{penalty: time.Minute}}, Decision{Allowed: true}},
		{"account in flight", facts{address: fresh, account: accountFacts{left: 3, flying: 3}}, Decision{Signal: AccountLimit, busy: true}},
		{"both: the address is named", facts{account: accountFacts{penalty: time.Minute}}, Decision{Signal: AddressLimit, Wait: time.Second}},
		{"observed", facts{observe: true, account: stranger}, Decision{Allowed: true, Observed: AddressLimit}},
		{
			"observed account",
			facts{observe: true, address: fresh, account: accountFacts{penalty: time.Minute}},
			Decision{Allowed: true, Observed: AccountLimit},
		},
		{
			"app password, account penalised and in flight",
			facts{appPassword: true, address: fresh, account: accountFacts{flying: 3, penalty: time.Minute}},
			Decision{Allowed: true},
		},
		{
			"app password, day used up",
			facts{appPassword: true, address: addressFacts{minute: 10, refill: time.Hour}},
			Decision{Signal: AddressLimit, Wait: time.Hour},
		},
		{
			"app password at one of its homes",
			facts{appPassword: true, familiar: true, home: homeFacts{refill: time.Hour}, address: fresh},
			Decision{Signal: AddressLimit, Wait: time.Hour},
		},
		{
			"observed: a wait is no refusal",
			facts{observe: true, address: addressFacts{minute: 2, day: 50, flying: 2}, account: stranger},
			Decision{Allowed: true},
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

func TestZeroDecisionIsRefused(t *testing.T) {
	if (Decision{}).Allowed {
		t.Error("the zero Decision allows")
	}
}

func TestSource(t *testing.T) {
	tests := []struct{ addr, network, site string }{
		{"203.0.113.77", "203.0.113.0/24", "203.0.113.77/32"},
		{"::ffff:203.0.113.77", "203.0.113.0/24", "203.0.113.77/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1::/48", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/48", "fe80::/64"},
	}
	for _, tt := range tests {
		s := SourceOf(netip.MustParseAddr(tt.addr))
		if got := s.Network().String(); got != tt.network {
			t.Errorf("%s: network %s, want %s", tt.addr, got, tt.network)
		}
		if got := s.Site().String(); got != tt.site {
			t.Errorf("%s: site %s, want %s", tt.addr, got, tt.site)
		}
	}
	if s := SourceOf(netip.Addr{}); s.Network().IsValid() || s.Site().IsValid() {
		t.Error("an invalid address has a prefix")
	}
}
