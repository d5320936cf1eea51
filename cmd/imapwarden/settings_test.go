package main

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imapwarden/configs"
	"imapwarden/policy"
)

// The configuration names the signals that policy has, all of them and no others.
func TestSignalsThatMayBeObserved(t *testing.T) {
	_, problems := configs.Parse(filepath.Join(t.TempDir(), "w.toml"), []byte(`limits.observe = ["no"]`))
	i := slices.IndexFunc(problems, func(p configs.Problem) bool { return p.Key == "limits.observe[0]" })
	if i < 0 {
		t.Fatalf("an unknown signal isn't refused: %v", problems)
	}
	_, list, _ := strings.Cut(problems[i].Message, "must be ")
	var got []string
	for _, m := range regexp.MustCompile(`"([a-z-]+)"`).FindAllStringSubmatch(list, -1) {
		got = append(got, m[1])
	}
	want := policy.Signals()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the configuration knows %q, policy %q", got, want)
	}
}

// Every setting of policy comes from the file: none is left at its zero value.
func TestLimits(t *testing.T) {
	c := configs.Default().Limits
	c.Mode, c.Observe, c.Decoys, c.StrangersPerHour = "observe", []string{policy.Unproved}, []string{"trap"}, 7
	c.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	c.Webmail = c.Trusted
	got := reflect.ValueOf(limits(c))
	for field, value := range got.Fields() {
		if value.IsZero() {
			t.Errorf("%s isn't set", field.Name)
		}
	}
}

// What the file turns off isn't policy's default.
func TestLimitsTurnedOff(t *testing.T) {
	c := configs.Default().Limits
	c.NATShare, c.UnprovedPerHour = 0, 0
	if got := limits(c); got.NATShare >= 0 || got.UnprovedPerHour >= 0 {
		t.Errorf("nat_share %d, unproved_per_hour %d: to policy 0 is the default", got.NATShare, got.UnprovedPerHour)
	}
}
