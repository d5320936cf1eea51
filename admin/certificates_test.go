package admin_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/store/memory"
)

// A fakeCA has one certificate, and renews it unless it is away.
type fakeCA struct {
	list []admin.Certificate
	away bool
}

func (c *fakeCA) Certificates(context.Context) ([]admin.Certificate, error) { return c.list, nil }

func (c *fakeCA) RenewCertificate(_ context.Context, name string) error {
	switch {
	case name != "mail.example.org":
		return &auth.Refusal{Reason: auth.NotFound, Message: "no such name"}
	case c.away:
		return errors.New("the CA can't be reached")
	}
	return nil
}

func TestCertificates(t *testing.T) {
	records := memory.New()
	authority := &fakeCA{}
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, records), Audit: records, Events: records, Certificates: authority, Log: zap.NewNop(),
	}))
	ctx := t.Context()

	if list, err := client.Certificates(ctx); err != nil || len(list) != 0 {
		t.Errorf("at first: %v, %v", list, err)
	}
	at := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	authority.list = []admin.Certificate{
		{Names: []string{"imap.example.org"}, Source: "/etc/cert.pem", Issuer: "a CA", Key: "RSA 2048", Expires: at},
		{Names: []string{"mail.example.org"}, Source: "acme", Trouble: "none yet", NextTry: at},
	}
	list, err := client.Certificates(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(authority.list, list); diff != "" {
		t.Error(diff)
	}

	if err := client.RenewCertificate(ctx, "mail.example.org"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"other.example.org", "a\nb"} {
		if _, refused := errors.AsType[*auth.Refusal](client.RenewCertificate(ctx, name)); !refused {
			t.Errorf("renewing %q isn't refused", name)
		}
	}
	authority.away = true
	if err := client.RenewCertificate(ctx, "mail.example.org"); err == nil || err.Error() != "the CA can't be reached" {
		t.Errorf("with the CA away: %v", err)
	}
	for outcome, want := range map[audit.Outcome][]string{
		audit.Accepted: {"mail.example.org"}, audit.Refused: {"other.example.org"}, audit.Failed: {"mail.example.org"},
	} {
		if diff := cmp.Diff(want, details(t, records, "certificate.renew", outcome)); diff != "" {
			t.Errorf("%s: %s", outcome, diff)
		}
	}
}
