package configs

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Each text is one [[rule]] with a key in line 6, or more rules.
func TestCheckRules(t *testing.T) {
	const (
		account = `must be an account of letters, digits and ._-+@, with * for any text, such as "*@example.org"`
		moment  = `must be a day or a time in quotes, such as "2026-12-01", "2026-12-01 08:00" or "2026-12-01T08:00:00+01:00"`
		hours   = `must be a part of the day in quotes, such as "08:00-18:00", or "22:00-06:00" over midnight`
		zone    = `must be a time zone of the IANA database in quotes, such as "Europe/Berlin", and this machine must know it (the package tzdata)`
		weekday = `must be "mon", "tue", "wed", "thu", "fri", "sat" or "sun"`
		deny    = `has no effect together with action = "deny": remove one of them`
		second  = "\n[[rule]]\naction = 'deny'"
	)
	never := func(line string) string {
		return "w.toml:" + line + ": warning: rule[1]: never used, because rule[0] fits everything and comes first"
	}
	for text, want := range map[string][]string{
		"":                   nil,
		`name = "an office"`: nil,
		`action = "deny"`:    nil,
		`read_only = true`:   nil,
		`max_sessions = 999`: nil, // more than limits.connections_account
		`second_factor = ""`: nil,
		`accounts = ["alice", "*", "*@example.org", "al*.b_c-d+e@*", "Älice@*"]`: {`w.toml:6: warning: rule[0].accounts[4] = "älice@*": never used: account_names = "ascii" lets no such account in`},
		`networks = ["203.0.113.0/24", "2001:db8::/48"]`:                         nil,
		`since = "2026-12-01"`:                nil,
		`since = "2026-12-01 08:00"`:          nil,
		`since = "2026-12-01T08:00:00+01:00"`: nil,
		`since = ""`:                          nil,
		`since = "2026-12-01"` + "\n" + `until = "2026-12-01 00:01"`:                                             nil,
		`since = "2026-12-01 08:00"` + "\n" + `until = "2026-12-01T06:59:00Z"` + "\n" + `zone = "Europe/Berlin"`: {`w.toml:7: warning: rule[0].until = "2026-12-01T06:59:00Z": never used, because it isn't after since (2026-12-01 08:00)`},
		`since = "2026-12-01 08:00"` + "\n" + `until = "2026-12-01T07:01:00Z"` + "\n" + `zone = "Europe/Berlin"`: nil,
		`until = "2026-12-01"` + "\n" + `since = "2026-12-01"`:                                                   {`w.toml:6: warning: rule[0].until = "2026-12-01": never used, because it isn't after since (2026-12-01)`},
		`weekdays = ["mon", "SUN"]`: nil,
		`hours = "22:00-06:00"`:     nil,
		`hours = "00:00-24:00"`:     nil,
		`zone = "UTC"`:              nil,
		`tls = ["1.2"]`:             nil,
		`programs = ["K-9*", ""]`:   nil,
		`zone = ""`:                 nil,

		// Allowed but unwise.
		`second_factor = "required"`: nil,
		`second_factor = "optional"`: {`w.toml:6: warning: rule[0].second_factor = "optional": accounts without an enrolment that this rule fits get in with the password alone; "required" asks them too`},
		`second_factor = "observe"`:  {`w.toml:6: warning: rule[0].second_factor = "observe": whoever this rule fits gets in with the password alone, this only records it; "required" asks for the second factor`},
		"programs = ['thunderbird*', 'k-9*']\nsecond_factor = 'optional'": {
			`w.toml:6: warning: rule[0].programs = "thunderbird*, k-9*": keeps nobody from what this rule waives: a program can say that it is any other`,
			`w.toml:7: warning: rule[0].second_factor = "optional": accounts without an enrolment that this rule fits get in with the password alone; "required" asks them too`,
		},
		"action = 'deny'\nsecond_factor = 'observe'\nread_only = true\nmax_sessions = 5": {
			`w.toml:7: warning: rule[0].second_factor = "observe": ` + deny,
			`w.toml:8: warning: rule[0].read_only = true: ` + deny,
			`w.toml:9: warning: rule[0].max_sessions = 5: ` + deny,
		},
		"" + second:                                            {never("7")},
		`accounts = ["a", "*"]` + second:                       {never("7")},
		`networks = ["0.0.0.0/0", "::/0"]` + second:            {never("7")},
		`networks = ["0.0.0.0/0"]` + second:                    nil,
		`networks = ["0.0.0.0/1", "::/0"]` + second:            nil,
		`accounts = ["*@example.org"]` + second:                nil,
		"accounts = ['*']\nnetworks = ['10.0.0.0/8']" + second: nil,
		`since = "2026-12-01"` + second:                        nil,
		`until = "2026-12-01"` + second:                        nil,
		`weekdays = ["mon"]` + second:                          nil,
		`hours = "08:00-18:00"` + second:                       nil,
		`tls = ["1.2"]` + second:                               nil,
		`tls = ["1.3", "1.2"]` + second:                        {never("7")},
		`programs = ["a*"]` + second:                           nil,
		`programs = ["a", "*"]` + second:                       {never("7")},
		`hours = "8-18"` + second:                              {`w.toml:6: rule[0].hours = "8-18": ` + hours}, // it wouldn't fit everything

		// Wrong values.
		`name = "a\tb"`: {`w.toml:6: rule[0].name = "a\tb": must not have control characters: it stands in audit events`},
		"name = 'a'\nread_only = true\naccounts = ['a']\n[[rule]]\nname = 'a'": {`w.toml:10: rule[1].name = "a": rule[0] has that name already: give each its own`},
		`accounts = []`:              {`w.toml:6: rule[0].accounts = []: must have at least one in it: leave the key out to fit everything`},
		`networks = []`:              {`w.toml:6: rule[0].networks = []: must have at least one in it: leave the key out to fit everything`},
		`network_files = []`:         {`w.toml:6: rule[0].network_files = []: must have at least one in it: leave the key out to fit everything`},
		`countries = []`:             {`w.toml:6: rule[0].countries = []: must have at least one in it: leave the key out to fit everything`},
		`owners = []`:                {`w.toml:6: rule[0].owners = []: must have at least one in it: leave the key out to fit everything`},
		`tls = []`:                   {`w.toml:6: rule[0].tls = []: must have at least one in it: leave the key out to fit everything`},
		`programs = []`:              {`w.toml:6: rule[0].programs = []: must have at least one in it: leave the key out to fit everything`},
		`tls = ["1.1"]`:              {`w.toml:6: rule[0].tls[0] = "1.1": must be "1.2" or "1.3"`},
		`owners = [-1]`:              {`w.toml:6: rule[0].owners[0] = -1: must be a whole number from 0 to 4294967295, without quotes`},
		`weekdays = []`:              {`w.toml:6: rule[0].weekdays = []: must have at least one in it: leave the key out to fit everything`},
		`accounts = [""]`:            {`w.toml:6: rule[0].accounts[0] = "": ` + account},
		`accounts = ["a b"]`:         {`w.toml:6: rule[0].accounts[0] = "a b": ` + account},
		`accounts = ["a?"]`:          {`w.toml:6: rule[0].accounts[0] = "a?": ` + account},
		`accounts = ["a@b@c"]`:       {`w.toml:6: rule[0].accounts[0] = "a@b@c": ` + account},
		`accounts = "alice"`:         {`w.toml:6: rule[0].accounts = "alice": must be a list, such as [ value, value ]`},
		`networks = ["10.0.0.1"]`:    {`w.toml:6: rule[0].networks[0] = "10.0.0.1": must be a network in quotes, such as "203.0.113.0/24"`},
		`since = 2026-12-01`:         {`w.toml:6: rule[0].since = 2026-12-01: ` + moment},
		`since = "tomorrow"`:         {`w.toml:6: rule[0].since = "tomorrow": ` + moment},
		`since = "2026-02-30"`:       {`w.toml:6: rule[0].since = "2026-02-30": ` + moment},
		`until = "0026-12-01"`:       {`w.toml:6: rule[0].until = "0026-12-01": ` + moment},
		`until = "2026-12-01 24:00"`: {`w.toml:6: rule[0].until = "2026-12-01 24:00": ` + moment},
		`weekdays = ["monday"]`:      {`w.toml:6: rule[0].weekdays[0] = "monday": ` + weekday},
		`hours = "08:00"`:            {`w.toml:6: rule[0].hours = "08:00": ` + hours},
		`hours = "08:00-08:00"`:      {`w.toml:6: rule[0].hours = "08:00-08:00": ` + hours},
		`hours = "24:00-06:00"`:      {`w.toml:6: rule[0].hours = "24:00-06:00": ` + hours},
		`hours = "08:00-24:01"`:      {`w.toml:6: rule[0].hours = "08:00-24:01": ` + hours},
		`hours = "08:60-18:00"`:      {`w.toml:6: rule[0].hours = "08:60-18:00": ` + hours},
		`hours = "+8:00-18:00"`:      {`w.toml:6: rule[0].hours = "+8:00-18:00": ` + hours},
		`zone = "Europe/Berlni"`:     {`w.toml:6: rule[0].zone = "Europe/Berlni": ` + zone},
		"\n[rule.zone]":              {`w.toml:7: rule[0].zone is not a table: ` + zone},
		`action = "reject"`:          {`w.toml:6: rule[0].action = "reject": must be "allow" or "deny"`},
		`second_factor = "off"`:      {`w.toml:6: rule[0].second_factor = "off": must be "required", "optional" or "observe"`},
		`max_sessions = -1`:          {`w.toml:6: rule[0].max_sessions = -1: must be at least 1, or 0 for what limits say`},
	} {
		if diff := cmp.Diff(want, said(t, folder(t), required+"[[rule]]\n"+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

// With a default domain there are no bare names, so a pattern for one would never match.
func TestCheckPatternsWithDefaultDomain(t *testing.T) {
	for pattern, want := range map[string][]string{
		"alice":             {`w.toml:6: warning: rule[0].accounts[0] = "alice": never used, because default_domain completes bare names; write "alice@example.org"`},
		"*-admin":           {`w.toml:6: warning: rule[0].accounts[0] = "*-admin": never used, because default_domain completes bare names; write "*-admin@example.org"`},
		"admin-*":           nil,
		"*":                 nil,
		"alice@example.net": nil,
	} {
		text := required + "default_domain = 'example.org'\nrule = [{ accounts = ['" + pattern + "'] }]"
		if diff := cmp.Diff(want, said(t, folder(t), text)); diff != "" {
			t.Errorf("%s\n%s", pattern, diff)
		}
	}
}

func TestRules(t *testing.T) {
	config, problems := Parse(filepath.Join(folder(t), "w.toml"), []byte(required+`
[[rule]]
name = "office"
accounts = ["*@Example.ORG"]
since = "2026-12-01"
until = "2027-06-01 18:30"
weekdays = ["mon", "sun"]
hours = "22:00-06:15"
zone = "America/New_York"
[[rule]]
since = "2026-12-01T08:00:00+01:00"
hours = "18:00-24:00"
zone = "America/New_York"
[[rule]]
until = "2026-12-01"
`))
	if config == nil || len(problems) > 0 {
		t.Fatalf("not loaded: %v", problems)
	}
	type loaded struct {
		Title        string
		Action       string
		Accounts     []string
		Since, Until time.Time
		Days         []time.Weekday
		Hours        Hours
		Zone         string
	}
	var got []loaded
	for i, r := range config.Rules {
		since, until := r.Period()
		got = append(got, loaded{r.Title(i), r.Action, r.Accounts, since, until, r.Days(), r.Hours, r.Zone.Location().String()})
	}
	want := []loaded{
		{
			"office", "allow",
			[]string{"*@example.org"},
			time.Date(2026, 12, 1, 5, 0, 0, 0, time.UTC), time.Date(2027, 6, 1, 22, 30, 0, 0, time.UTC), // with daylight saving
			[]time.Weekday{time.Monday, time.Sunday},
			Hours{22 * time.Hour, 6*time.Hour + 15*time.Minute},
			"America/New_York",
		},
		{
			Title: "rule 2", Action: "allow", Since: time.Date(2026, 12, 1, 7, 0, 0, 0, time.UTC),
			Hours: Hours{18 * time.Hour, 24 * time.Hour}, Zone: "America/New_York",
		},
		{Title: "rule 3", Action: "allow", Until: time.Date(2026, 12, 1, 0, 0, 0, 0, time.Local), Zone: "Local"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What was read is written the same way again.
func TestRuleTextRoundTrip(t *testing.T) {
	for _, text := range []string{"", "2026-12-01", "2026-12-01 08:05", "2026-12-01T08:00:00Z", "2026-12-01T08:00:00.5+01:00"} {
		var m Moment
		if err := m.UnmarshalText([]byte(text)); err != nil || m.String() != text {
			t.Errorf("moment %q is written as %q, %v", text, m, err)
		}
	}
	for _, text := range []string{"", "08:05-18:00", "22:00-00:00", "00:00-24:00"} {
		var h Hours
		if err := h.UnmarshalText([]byte(text)); err != nil || h.String() != text {
			t.Errorf("hours %q are written as %q, %v", text, h, err)
		}
	}
	for _, text := range []string{"", "UTC", "Europe/Berlin"} {
		var z Zone
		if err := z.UnmarshalText([]byte(text)); err != nil || z.String() != text {
			t.Errorf("zone %q is written as %q, %v", text, z, err)
		}
	}
	for _, text := range weekdays {
		var d Weekday
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != text {
			t.Errorf("weekday %q is written as %q, %v", text, d, err)
		}
	}
}
