package auth

import (
	"errors"
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a", 244)
	tests := []struct {
		domain, raw, want string // want "": refused
	}{
		{"", "alice", "alice"},
		{"", "ALICE", "alice"},
		{"", "Alice@Example.ORG", "alice@example.org"},
		{"", "a.b_c-d+e@x-y.org", "a.b_c-d+e@x-y.org"},
		{"", "ＡＬＩＣＥ", "alice"},
		{"", "Ärger", "ärger"},
		{"", "A\u0308rger", "ärger"}, // composed: the same name, typed otherwise
		{"", "ΑΣ", "ασ"},
		{"", "用户", "用户"},
		{"", "user42", "user42"},

		{"example.org", "alice", "alice@example.org"},
		{"Example.ORG", "ALICE", "alice@example.org"},
		{"example.org", "alice@example.net", "alice@example.net"},
		{"example.org", "alice＠example.net", "alice@example.net"}, // a full-width @ is one
		{"example.org", long[12:], long[12:] + "@example.org"},

		{"ＥＸample.org", "alice", "alice@example.org"},
		{"", "אב", "אב"},
		{"example.org", "אב", ""}, // RFC 5893: not right-to-left as a whole any more

		{"", "", ""},
		{"example.org", "", ""},
		{"", " alice", ""},
		{"", "alice ", ""},
		{"", "al ice", ""},
		{"", "alice\t", ""},
		{"", "alice\x01", ""},
		{"", "alice\x00", ""},
		{"", "alice\r\nA1 LOGOUT", ""},
		{"", "alice\u00a0", ""},
		{"", "al\u200bice", ""}, // invisible
		{"", "alice%", ""},
		{"", "alice％", ""}, // full-width
		{"", "alice*master", ""},
		{"", "{5}", ""},
		{"", "alice=2C", ""},
		{"", "alice/bob", ""},
		{"", `alice\`, ""},
		{"", `"alice"`, ""},
		{"", "a@b@c", ""},
		{"", "a@@b", ""},
		{"", "@example.org", ""},
		{"", "alice@", ""},
		{"", "@", ""},
		{"", "..", ""},
		{"", "..@example.org", ""},
		{"", "alice@..", ""},
		{"", "alice@example.org.", ""},
		{"", "alice@.example.org", ""},
		{"", "ﬁne", ""}, // a ligature
		{"", "alice\xff", ""},
		{"", "\xc0\xaf", ""},
		{"", strings.Repeat("a", 256), ""},
		{"example.org", long, ""}, // too long once completed
	}
	for _, test := range tests {
		got, err := Names{DefaultDomain: test.domain, Unicode: true}.Canonical(test.raw)
		var refusal *Refusal
		switch {
		case test.want != "" && (err != nil || got != test.want):
			t.Errorf("%q: %q, %v; want %q", test.raw, got, err, test.want)
		case test.want == "" && (got != "" || !errors.As(err, &refusal) || refusal.Reason != BadName):
			t.Errorf("%q: %q, %v; want a refusal", test.raw, got, err)
		}
	}
	if got, err := (Names{}).Canonical(strings.Repeat("a", 255)); err != nil || len(got) != 255 {
		t.Errorf("255 octets: %v", err)
	}
}

// What an upstream might take for alice is alice here too, or nobody.
func TestCanonicalASCII(t *testing.T) {
	for raw, want := range map[string]string{ // "": refused
		"a.b_c-d+e@x-y.org":    "a.b_c-d+e@x-y.org",
		"User42":               "user42@example.org",
		"ＡＬＩＣＥ":                "alice@example.org", // full width: what is asked is the result
		"user４２＠ｅxample.net":   "user42@example.net",
		"\u212Aelvin":          "kelvin@example.org", // the Kelvin sign is K by composition
		"alíce":                "",
		"ali\u0301ce":          "", // the accent on its own
		"alice\u0301":          "",
		"аlice":                "", // Cyrillic а
		"αlice":                "",
		"alıce":                "", // dotless ı
		"AL\u0130CE":           "", // dotted İ: i and a dot in lower case
		"alice@exämple.org":    "",
		"user٤٢":               "", // Arabic digits
		"用户":                   "",
		"straße":               "",
		"al\u017fice":          "", // long s
		"\U0001D41Alice":       "", // bold a
		"alice\u200d":          "",
		"ａｌｉｃｅ％":               "",
		"alice@ｅｘａｍｐｌｅ.ｎｅｔ":    "alice@example.net",
		"alice@xn--exmple-cua": "alice@xn--exmple-cua",
	} {
		got, err := Names{DefaultDomain: "example.org"}.Canonical(raw)
		var refusal *Refusal
		switch {
		case want != "" && (err != nil || got != want):
			t.Errorf("%q: %q, %v; want %q", raw, got, err, want)
		case want == "" && (got != "" || !errors.As(err, &refusal) || refusal.Reason != BadName):
			t.Errorf("%q: %q, %v; want a refusal", raw, got, err)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"ALICE", "ＡＬＩＣＥ", "a@b", "ǰ", "İ", "ẞ", "\u1e9e", "אב", "a.b+c_d-e@F"} {
		f.Add(seed)
	}
	names := Names{DefaultDomain: "example.org", Unicode: true}
	ascii := Names{DefaultDomain: "example.org"}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := names.Canonical(raw)
		strict, strictErr := ascii.Canonical(raw)
		if passes := err == nil && !strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }); passes != (strictErr == nil) || passes && strict != name {
			t.Errorf("%q: %q, %v; in ASCII %q, %v", raw, name, err, strict, strictErr)
		}
		if err != nil {
			return
		}
		if again, err := names.Canonical(name); err != nil || again != name {
			t.Errorf("%q -> %q -> %q, %v", raw, name, again, err)
		}
		if len(name) > maxName || strings.Count(name, "@") != 1 || strings.ContainsAny(name, " \t\r\n\x00%*{}()\\\"/=&") {
			t.Errorf("%q passed as %q", raw, name)
		}
	})
}
