package auth

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatIsIssued(t *testing.T) {
	d := &Directory{Records: newFake(), Keys: testKeys(t), Names: Names{DefaultDomain: "example.org"}}
	issued, err := d.CreateAppPassword(t.Context(), NewAppPassword{Account: "ALICE", Label: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(issued)
	want := `^\{"id":"[0-9a-f]{16}","account":"alice@example.org","label":"phone","password":"([a-z2-9]{5}-){5}[a-z2-9]{5}","ready":false\}$`
	if !regexp.MustCompile(want).Match(got) {
		t.Errorf("issued %v, not of the promised shape", issued)
	}
	other, err := d.CreateAppPassword(t.Context(), NewAppPassword{Account: "alice", Label: "phone"})
	if err != nil || other.ID == issued.ID || other.Password == issued.Password {
		t.Errorf("issued %v after %v: %v", other, issued, err)
	}
}

func TestWhatCannotBeIssued(t *testing.T) {
	now := time.Now()
	many := make([]netip.Prefix, maxAppNetworks+1)
	for i := range many {
		many[i] = netip.MustParsePrefix("192.0.2.0/24")
	}
	for name, test := range map[string]struct {
		wanted NewAppPassword
		want   Reason
	}{
		"no account":          {NewAppPassword{Label: "x"}, BadName},
		"no label":            {NewAppPassword{Account: "alice"}, BadValue},
		"a blank label":       {NewAppPassword{Account: "alice", Label: "  "}, BadValue},
		"the longest label":   {NewAppPassword{Account: "alice", Label: strings.Repeat("ü", 64)}, ""},
		"a longer label":      {NewAppPassword{Account: "alice", Label: strings.Repeat("ü", 65)}, BadValue},
		"a label of lines":    {NewAppPassword{Account: "alice", Label: "a\nb"}, BadValue},
		"a label of a screen": {NewAppPassword{Account: "alice", Label: "a\x1b[2J"}, BadValue},
		"no UTF-8":            {NewAppPassword{Account: "alice", Label: "a\xff"}, BadValue},
		"expired":             {NewAppPassword{Account: "alice", Label: "x", Expires: now}, BadValue},
		"about to expire":     {NewAppPassword{Account: "alice", Label: "x", Expires: now.Add(1)}, ""},
		"no network":          {NewAppPassword{Account: "alice", Label: "x", Networks: make([]netip.Prefix, 1)}, BadValue},
		"half of IPv4's":      {NewAppPassword{Account: "alice", Label: "x", Networks: []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/90")}}, BadValue},
		"many networks":       {NewAppPassword{Account: "alice", Label: "x", Networks: many[1:]}, ""},
		"too many networks":   {NewAppPassword{Account: "alice", Label: "x", Networks: many}, BadValue},
	} {
		records := newFake()
		d := &Directory{Records: records, Keys: testKeys(t), Now: func() time.Time { return now }}
		issued, err := d.CreateAppPassword(t.Context(), test.wanted)
		if reasonOf(err) != test.want || (issued.Password == "") != (err != nil) || (len(records.issued) == 0) != (err != nil) {
			t.Errorf("%s: got %v, %v, want %q", name, issued, err, test.want)
		}
	}
}

func TestAppPasswordsAreLimited(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.issue(NewAppPassword{Expires: time.Now().Add(time.Hour)})
		var last IssuedAppPassword
		for range maxAppPasswords - 1 {
			last = w.issue(NewAppPassword{})
		}
		full := func() {
			t.Helper()
			_, err := w.directory().CreateAppPassword(t.Context(), NewAppPassword{Account: "alice", Label: "one more"})
			if reasonOf(err) != TooMany || !strings.Contains(err.Error(), "app-password revoke alice ID") {
				t.Errorf("got %v", err)
			}
		}
		full()
		w.issue(NewAppPassword{Account: "bob"})
		w.revoke(last.ID)
		w.issue(NewAppPassword{})
		full()
		time.Sleep(time.Hour)
		w.issue(NewAppPassword{}) // the first one has expired
		full()
		w.revoke(first.ID)
		full()
	})
}

func TestAppPasswordsAdministration(t *testing.T) {
	records := newFake()
	now := time.Unix(1e9, 0).UTC()
	var changes []string
	var ended []Revocation
	d := &Directory{
		Records: records, Keys: testKeys(t), Now: func() time.Time { return now },
		Audit: func(_ context.Context, c Change) {
			changes = append(changes, strings.TrimSpace(c.Kind+" "+c.Account+" "+string(reasonOf(c.Err))))
		},
		Ended: func(r Revocation) { ended = append(ended, r) },
	}
	ctx := t.Context()
	phone, err := d.CreateAppPassword(ctx, NewAppPassword{
		Account: "alice", Label: "phone", Expires: now.Add(time.Hour), ReadOnly: true, Password: Secret(password),
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("::ffff:203.0.113.5/128")},
	})
	if err != nil {
		t.Fatal(err)
	}
	use := Use{now, home, "Mail"}
	if err := records.UseAppPasswords(ctx, map[string]Use{phone.ID: use}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	tablet, err := d.CreateAppPassword(ctx, NewAppPassword{Account: "alice", Label: "tablet"})
	if err != nil {
		t.Fatal(err)
	}
	list := func() string {
		t.Helper()
		all, err := d.AppPasswords(ctx, "ALICE")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(all)
		return strings.NewReplacer(phone.ID, "PHONE", tablet.ID, "TABLET").Replace(string(text))
	}
	want := `[{"id":"PHONE","account":"alice","label":"phone","created":"2001-09-09T01:46:40Z","expires":"2001-09-09T02:46:40Z",` +
		`"networks":["192.0.2.0/24","203.0.113.5/32"],"read_only":true,"ready":true,"stale":false,` +
		`"last_use":{"time":"2001-09-09T01:46:40Z","source":"192.0.2.10","program":"Mail"}},` +
		`{"id":"TABLET","account":"alice","label":"tablet","created":"2001-09-09T01:47:40Z",` +
		`"networks":[],"read_only":false,"ready":false,"stale":false}]`
	if got := list(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if none, err := d.AppPasswords(ctx, "bob"); err != nil || none == nil || len(none) > 0 {
		t.Errorf("bob's: %v, %v", none, err)
	}
	if _, err := d.AppPasswords(ctx, ""); reasonOf(err) != BadName {
		t.Errorf("of nobody: %v", err)
	}

	for _, test := range []struct {
		name, id string
		want     Reason
	}{{"bob", phone.ID, NotFound}, {"alice", "none", NotFound}, {"", phone.ID, BadName}, {"Alice", phone.ID, ""}, {"alice", phone.ID, NotFound}} {
		if err := d.RevokeAppPassword(ctx, test.name, test.id); reasonOf(err) != test.want {
			t.Errorf("revoking %s of %q: %v, want %q", test.id, test.name, err, test.want)
		}
	}
	if !strings.Contains(list(), `"revoked":"2001-09-09T01:47:40Z"`) {
		t.Error("the list doesn't say what is revoked")
	}
	for _, want := range []int{1, 0} {
		if n, err := d.RevokeAppPasswords(ctx, "alice"); n != want || err != nil {
			t.Errorf("revoked all %d: %v", n, err)
		}
	}
	records.setDown(true)
	_, created := d.CreateAppPassword(ctx, NewAppPassword{Account: "alice", Label: "x"})
	_, all := d.RevokeAppPasswords(ctx, "alice")
	_, listed := d.AppPasswords(ctx, "alice")
	for _, err := range []error{created, all, listed, d.RevokeAppPassword(ctx, "alice", tablet.ID)} {
		if !errors.Is(err, errDown) || reasonOf(err) != "failed" {
			t.Errorf("%v is not a failure", err)
		}
	}
	if text := strings.Join(changes, "\n"); text != `app-password.create alice
app-password.create alice
app-password.revoke bob not-found
app-password.revoke alice not-found
app-password.revoke  bad-name
app-password.revoke alice
app-password.revoke alice not-found
app-password.revoke alice
app-password.revoke alice
app-password.create alice failed
app-password.revoke alice failed
app-password.revoke alice failed` {
		t.Errorf("told of\n%s", text)
	}
	over := func(r Revocation, id string) bool {
		return r.Ends("alice", Verdict{Outcome: Accepted, AppPassword: id})
	}
	if len(ended) != 2 || !over(ended[0], phone.ID) || !over(ended[1], tablet.ID) || over(ended[0], tablet.ID) {
		t.Errorf("ended %v", slices.Clone(ended))
	}
}
