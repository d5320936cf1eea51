package main

import (
	"strings"
	"testing"
	"time"

	"imapwarden/audit"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

func TestWeakPasswords(t *testing.T) {
	store := memory.New()
	now := time.Now()
	alert := func(account, rule, reason string, age time.Duration) audit.Event {
		return audit.Event{Time: now.Add(-age), Kind: audit.Alert, Outcome: audit.Refused, Account: account, Rule: rule, Reason: reason}
	}
	events := []audit.Event{
		alert("zoe", policy.PasswordCommon, rightPassword, 48*time.Hour), // too long ago
		alert("alice", policy.PasswordCommon, rightPassword, time.Hour),
		alert("bob", policy.PasswordSprayed, rightPassword, time.Hour),
		alert("bob", policy.PasswordCommon, rightPassword, time.Minute),
		alert("carol", policy.PasswordSprayed, "", time.Minute), // not hers
		alert("", policy.PasswordSprayed, "", time.Minute),
		alert("dave", policy.AccountNetworks, "", time.Minute),
	}
	if err := store.Append(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	weak, err := weakPasswords(t.Context(), store, now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := printWeak(&out, weak); err != nil {
		t.Fatal(err)
	}
	const want = "\n2 accounts should get another password:\n\n    alice: it is on the list of common passwords\n    bob: it is tried on many accounts\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	if printWeak(&out, nil); out.String() != "" {
		t.Errorf("nobody: %q", out.String())
	}
}
