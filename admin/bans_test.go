package admin_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

// details are those of a store's events of one kind and outcome, without who did it.
func details(t *testing.T, records *memory.Store, kind string, outcome audit.Outcome) (list []string) {
	t.Helper()
	events, err := records.Events(t.Context(), audit.Filter{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	by := "uid " + strconv.Itoa(os.Getuid()) + " by admin socket: "
	for _, e := range events {
		what, signed := strings.CutPrefix(e.Detail, by)
		if !signed {
			t.Errorf("%s: %q doesn't say who did it", e.Kind, e.Detail)
		}
		if e.Outcome == outcome {
			list = append(list, what)
		}
	}
	return list
}

func TestBans(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, records), Audit: records, Events: records, Bans: policy.Book{Memory: records}, Log: zap.NewNop(),
	}))
	ctx := t.Context()

	if list, err := client.Bans(ctx); err != nil || len(list) != 0 {
		t.Errorf("at first: %v, %v", list, err)
	}
	before := time.Now()
	office, err := client.Ban(ctx, netip.MustParsePrefix("203.0.113.7/24"), 36*time.Hour, "tries \"Winter2026\" on everybody")
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	if office.Since.Before(before.Truncate(time.Microsecond)) || office.Since.After(after) || office.Until.Sub(office.Since) != 36*time.Hour {
		t.Errorf("made between %v and %v, it goes from %v to %v", before, after, office.Since, office.Until)
	}
	want := admin.Ban{
		Network: netip.MustParsePrefix("203.0.113.0/24"), Signal: policy.ByHand, Since: office.Since, Until: office.Until, Times: 1,
		Detail: "uid " + strconv.Itoa(os.Getuid()) + " by admin socket: tries \"Winter2026\" on everybody",
	}
	if diff := cmp.Diff(want, office, addresses); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	host, err := client.Ban(ctx, netip.MustParsePrefix("2001:db8::7/128"), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	// What the gate has made is shown as well, with what it says of it.
	made := admin.Ban{
		Network: netip.MustParsePrefix("198.51.100.0/24"), Signal: policy.NetworkAccounts,
		Since: office.Since, Until: office.Until, Times: 3, Detail: "11 accounts",
	}
	if err := records.PutBans(ctx, policy.Ban(made)); err != nil {
		t.Fatal(err)
	}
	list, err := client.Bans(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]admin.Ban{made, office, host}, list, addresses); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}

	if err := client.Unban(ctx, netip.MustParsePrefix("::ffff:203.0.113.9/120")); err != nil {
		t.Errorf("unbanning what is written in another way: %v", err)
	}
	if list, err := client.Bans(ctx); err != nil || len(list) != 2 {
		t.Errorf("in the end: %v, %v", list, err)
	}
	wantDetails := []string{
		"203.0.113.0/24 until " + office.Until.Format(time.RFC3339) + ": tries \"Winter2026\" on everybody",
		"2001:db8::7/128 until " + host.Until.Format(time.RFC3339),
	}
	if diff := cmp.Diff(wantDetails, details(t, records, "ban.add", audit.Accepted)); diff != "" {
		t.Errorf("audit of bans made (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"203.0.113.0/24"}, details(t, records, "ban.remove", audit.Accepted)); diff != "" {
		t.Errorf("audit of bans ended (-want +got):\n%s", diff)
	}
}

func TestBansRefused(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, records), Audit: records, Events: records, Bans: policy.Book{Memory: records}, Log: zap.NewNop(),
	}))
	ctx := t.Context()
	for _, text := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "2001:db8::/32"} {
		if _, err := client.Ban(ctx, netip.MustParsePrefix(text), time.Hour, ""); err != nil {
			t.Fatal(err)
		}
	}
	ban := func(network string, length time.Duration, reason string) error {
		_, err := client.Ban(ctx, netip.MustParsePrefix(network), length, reason)
		return err
	}
	unban := func(network string) error { return client.Unban(ctx, netip.MustParsePrefix(network)) }
	for name, test := range map[string]struct {
		err    error
		reason auth.Reason
		says   string
	}{
		"too wide":       {ban("0.0.0.0/1", time.Hour, ""), auth.BadValue, "too wide"},
		"too long":       {ban("203.0.113.0/24", 91*24*time.Hour, ""), auth.BadValue, "90 days"},
		"two lines":      {ban("203.0.113.0/24", time.Hour, "a\nb"), auth.BadValue, "printable"},
		"a novel":        {ban("203.0.113.0/24", time.Hour, strings.Repeat("ä", 201)), auth.BadValue, "200"},
		"not banned":     {unban("203.0.113.0/24"), auth.NotFound, "is not banned; to see what is, run: imapwarden ban list"},
		"around it":      {unban("10.0.0.0/7"), auth.NotFound, "is not banned"},
		"inside of one":  {unban("2001:db8::7/128"), auth.NotFound, "to let in all of that, run: imapwarden ban remove 2001:db8::/32"},
		"inside of two":  {unban("10.1.2.3/32"), auth.NotFound, "run: imapwarden ban remove 10.0.0.0/8; imapwarden ban remove 10.1.0.0/16"},
		"no network":     {client.Unban(ctx, netip.Prefix{}), auth.BadValue, "no such network"},
		"of no network":  {func() error { _, err := client.Ban(ctx, netip.Prefix{}, time.Hour, ""); return err }(), auth.BadValue, "no such network"},
		"just long":      {ban("198.51.100.0/24", time.Hour, strings.Repeat("ä", 200)), "", ""},
		"just a network": {unban("10.2.0.0/16"), "", ""},
	} {
		if test.reason == "" {
			if test.err != nil {
				t.Errorf("%s: %v", name, test.err)
			}
			continue
		}
		wantRefusal(t, test.err, test.reason)
		if test.err == nil || !strings.Contains(test.err.Error(), test.says) {
			t.Errorf("%s: %v doesn't say %q", name, test.err, test.says)
		}
	}
	if list, err := client.Bans(ctx); err != nil || len(list) != 4 {
		t.Errorf("%d bans, %v: the refused ones must change nothing", len(list), err)
	}
	if got := details(t, records, "ban.add", audit.Refused); len(got) != 5 || got[0] != "0.0.0.0/1" {
		t.Errorf("the audit has %q refused", got)
	}
	if got := details(t, records, "ban.remove", audit.Refused); len(got) != 5 || got[0] != "203.0.113.0/24" {
		t.Errorf("the audit has %q refused", got)
	}
}

// brokenBans can't be read or changed.
type brokenBans struct{}

var errBans = errors.New("the disk is gone")

func (brokenBans) Bans(context.Context) ([]policy.Ban, error)                { return nil, errBans }
func (brokenBans) Ban(context.Context, policy.Ban) error                     { return errBans }
func (brokenBans) Unban(context.Context, netip.Prefix) (known bool, _ error) { return true, errBans }

// Neither failing nor having none passes for an answer.
func TestBansFail(t *testing.T) {
	for name, test := range map[string]struct {
		bans admin.Bans
		says string
	}{
		"failing": {brokenBans{}, "the disk is gone"},
		"none":    {nil, "keeps no bans"},
	} {
		t.Run(name, func(t *testing.T) {
			records := memory.New()
			client := dial(t, serve(t, &admin.Server{
				Directory: directory(t, records), Audit: records, Events: records, Bans: test.bans, Log: zap.NewNop(),
			}))
			network := netip.MustParsePrefix("203.0.113.0/24")
			_, listing := client.Bans(t.Context())
			_, banning := client.Ban(t.Context(), network, time.Hour, "")
			for what, err := range map[string]error{"listing": listing, "banning": banning, "unbanning": client.Unban(t.Context(), network)} {
				if _, refused := errors.AsType[*auth.Refusal](err); refused || err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%s: got %v, want a failure", what, err)
				}
			}
			for _, kind := range []string{"ban.add", "ban.remove"} {
				if got := details(t, records, kind, audit.Failed); len(got) != 1 || got[0] != network.String() {
					t.Errorf("the audit has %q of %s as failed", got, kind)
				}
			}
		})
	}
}

// A ban that nobody can see in the audit doesn't pass for a success, though it is in force.
func TestBansUnrecorded(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, records), Audit: broken{}, Events: broken{}, Bans: policy.Book{Memory: records}, Log: zap.NewNop(),
	}))
	_, err := client.Ban(t.Context(), netip.MustParsePrefix("203.0.113.0/24"), time.Hour, "")
	if err == nil || !strings.Contains(err.Error(), "ban.add was accepted") {
		t.Errorf("got %v, want that it was made and couldn't be recorded", err)
	}
}
