package auth

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pquerna/otp/totp"
)

func TestEnrolmentFromBeginToEnd(t *testing.T) {
	keys := testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		records := newFake()
		var changes []string
		d := &Directory{
			Records: records, Keys: keys, Names: Names{DefaultDomain: "example.org"}, Issuer: "mail.example.org",
			Grant: GrantSettings{From: FromNetwork, Absolute: time.Hour, Idle: time.Hour},
			Audit: func(_ context.Context, c Change) {
				changes = append(changes, c.Kind+" "+c.Account+" "+string(reasonOf(c.Err)))
			},
		}
		ctx := t.Context()
		code := func(e Enrolment) string {
			code, err := totp.GenerateCode(e.Secret, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return code
		}
		is := func(err error, want Reason) {
			t.Helper()
			if reasonOf(err) != want {
				t.Errorf("got %v, want %q", err, want)
			}
		}

		is(d.Confirm(ctx, "alice", "123456"), NoSuchAccount)
		replaced, err := d.Enroll(ctx, "ALICE", false)
		is(err, "")
		e, err := d.Enroll(ctx, "alice@example.org", false)
		is(err, "")
		is(d.Confirm(ctx, "alice", code(replaced)), WrongCode)
		if s, err := d.Show(ctx, "alice"); err != nil || s.Enrolled || !s.Pending || s.Account != "alice@example.org" {
			t.Errorf("pending: %+v, %v", s, err)
		}
		shown := code(e)
		is(d.Confirm(ctx, "alice", shown[:3]+" "+shown[3:]), "")
		is(d.Confirm(ctx, "alice", shown), AlreadyEnrolled)
		_, err = d.Enroll(ctx, "alice", true)
		is(err, AlreadyEnrolled)
		if !strings.Contains(err.Error(), "account reset alice@example.org") {
			t.Errorf("%v has no way out", err)
		}

		a := &Authenticator{Records: records, Keys: keys, Grant: d.Grant}
		w := &world{Authenticator: a, t: t, records: records, shared: e.Secret, password: password}
		w.refused(w.visit(with(password+shown).of("alice@example.org")), ReplayedCode) // confirming spent it
		time.Sleep(30 * time.Second)
		w.accepted(w.visit(with(password+w.code()).of("alice@example.org")), FactorCode)
		if s, _ := d.Show(ctx, "alice"); !s.Enrolled || s.Pending || s.Grants != 1 || s.Confirmed.IsZero() {
			t.Errorf("enrolled: %+v", s)
		}

		is(d.Reset(ctx, "alice"), "")
		is(d.Reset(ctx, "alice"), "")
		if s, _ := d.Show(ctx, "alice"); s.Enrolled || s.Pending || s.Grants != 0 || len(records.grants) != 0 {
			t.Errorf("reset: %+v", s)
		}
		is(d.Confirm(ctx, "alice", "123456"), NoEnrolment)
		is(d.Remove(ctx, "alice"), "")
		is(d.Remove(ctx, "alice"), NoSuchAccount)
		is(d.Reset(ctx, "al ice"), BadName)
		records.setDown(true)
		for _, err := range []error{d.Remove(ctx, "alice"), d.Reset(ctx, "alice"), d.Confirm(ctx, "alice", "123456")} {
			if !errors.Is(err, errDown) || reasonOf(err) != "failed" {
				t.Errorf("%v is not a failure", err)
			}
		}

		want := `account.confirm alice@example.org no-such-account
account.enroll alice@example.org 
account.enroll alice@example.org 
account.confirm alice@example.org wrong-code
account.confirm alice@example.org 
account.confirm alice@example.org already-enrolled
account.enroll alice@example.org already-enrolled
account.reset alice@example.org 
account.reset alice@example.org 
account.confirm alice@example.org no-enrolment
account.remove alice@example.org 
account.remove alice@example.org no-such-account
account.reset  bad-name
account.remove alice@example.org failed
account.reset alice@example.org failed
account.confirm alice@example.org failed`
		if got := strings.Join(changes, "\n"); got != want {
			t.Errorf("told of\n%s\nwant\n%s", got, want)
		}
	})
}

func reasonOf(err error) Reason {
	var refusal *Refusal
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refusal):
		return refusal.Reason
	}
	return "failed"
}

func TestListAndItsJSON(t *testing.T) {
	d := &Directory{
		Records: newFake(), Keys: testKeys(t), Issuer: "mail.example.org",
		Now: func() time.Time { return time.Unix(1e9, 0).UTC() },
	}
	e, err := d.Enroll(t.Context(), "bob", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Enroll(t.Context(), "alice", false); err != nil {
		t.Fatal(err)
	}
	all, err := d.List(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(all)
	want := `[{"account":"alice","enrolled":false,"pending":true,"created":"2001-09-09T01:46:40Z","grants":0,"app_passwords":0,"recovery_codes":10},` +
		`{"account":"bob","enrolled":true,"pending":false,"created":"2001-09-09T01:46:40Z","confirmed":"2001-09-09T01:46:40Z","grants":0,"app_passwords":0,"recovery_codes":10}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if page, _ := d.List(t.Context(), "alice", 1); len(page) != 1 || page[0].Account != "bob" {
		t.Errorf("after alice: %v", page)
	}
	if text, _ := json.Marshal(e); !strings.Contains(string(text), `"recovery_codes":["`) || len(e.RecoveryCodes) != 10 || len(e.Secret) != 32 {
		t.Error("the enrolment is not of the promised shape")
	}
	if strings.Contains(string(d.Records.(*fakeRecords).accounts["bob"].TOTP.Sealed), e.Secret) {
		t.Error("the secret is stored as it is")
	}
}
