package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"

	"imapwarden/certs"
	"imapwarden/store/memory"
)

const aDay = 24 * time.Hour

// A fixture is one ACME that has its own listener, where pebble looks for challenges.
type fixture struct {
	*certs.ACME
	*pebble
	*diary
	listener net.Listener
}

// newFixture makes it; change, if there is one, is called before it is opened.
func newFixture(t *testing.T, p *pebble, l net.Listener, change func(*certs.ACME)) *fixture {
	t.Helper()
	d, log := newDiary()
	a := &certs.ACME{
		Directory: p.directory, Roots: p.roots, Domains: []string{"mail.example.org"}, Address: l.Addr().String(),
		Storage: &certmagic.FileStorage{Path: t.TempDir()}, Log: log, Check: 20 * time.Millisecond, Retry: 20 * time.Millisecond,
	}
	if change != nil {
		change(a)
	}
	return &fixture{ACME: a, pebble: p, diary: d, listener: l}
}

func listen(t *testing.T) (l net.Listener, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return l, port
}

func (f *fixture) start(t *testing.T) {
	t.Helper()
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) {
		if err := f.Serve(ctx, f.listener); err != nil {
			t.Error(err)
		}
	})
	serve(t, func(ctx context.Context) {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

// verify has a client that believes pebble look at what is shown for the name.
func (f *fixture) verify(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	c := shown(f.ACME, name)
	if c == nil {
		t.Fatalf("nothing is shown for %s", name)
	}
	between := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(issuer)
	}
	if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: f.issuing, Intermediates: between}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return c
}

func TestACMEIssues(t *testing.T) {
	key := base64.RawURLEncoding.EncodeToString([]byte("a key of thirty-two octets, sure"))
	for _, test := range []struct {
		name    string
		domains []string
		eab     map[string]string
		change  func(*certs.ACME, *pebble)
	}{
		{name: "TLS-ALPN-01", domains: []string{"mail.example.org"}},
		{name: "two domains", domains: []string{"mail.example.org", "imap.example.net"}},
		{name: "HTTP-01", domains: []string{"mail.example.org"}, change: func(a *certs.ACME, _ *pebble) { a.Challenge = certs.HTTP01 }},
		{name: "DNS-01 with a wildcard", domains: []string{"*.example.org"}, change: func(a *certs.ACME, p *pebble) {
			a.Challenge, a.DNS, a.Resolver, a.Propagation = certs.DNS01, zone{p}, p.resolver(t), time.Minute
		}},
		{name: "external account binding", domains: []string{"mail.example.org"}, eab: map[string]string{"kid-1": key}, change: func(a *certs.ACME, _ *pebble) {
			a.Binding = &acme.EAB{KeyID: "kid-1", MACKey: key}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, port := listen(t)
			p := newPebble(t, port, "", test.eab)
			f := newFixture(t, p, l, func(a *certs.ACME) {
				a.Domains = test.domains
				if test.change != nil {
					test.change(a, p)
				}
			})
			f.start(t)
			for range test.domains {
				f.wait(t, "a certificate of the CA is in use")
			}
			for _, name := range test.domains {
				f.verify(t, strings.Replace(name, "*", "any", 1))
			}
			for i, s := range f.List(t.Context()) {
				if s.Trouble != "" || s.Names[0] != test.domains[i] || s.Key != "ECDSA P-256" || !strings.HasPrefix(s.Issuer, "Pebble") ||
					!s.Renewal.After(time.Now()) || !s.Renewal.Before(s.Expires) {
					t.Errorf("listed as %+v", s)
				}
			}
			if shown(f.ACME, "other.example.com") != nil {
				t.Error("a name that isn't configured is shown something")
			}
			if f.Default() == nil {
				t.Error("there is no default")
			}
		})
	}
}

// A zone is pebble's DNS, to be written to.
type zone struct{ *pebble }

func (z zone) AppendRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	for _, r := range records {
		z.names.AddDNSTXTRecord(libdns.AbsoluteName(r.RR().Name, zone), r.RR().Data)
	}
	return records, nil
}

func (z zone) DeleteRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	for _, r := range records {
		z.names.DeleteDNSTXTRecord(libdns.AbsoluteName(r.RR().Name, zone))
	}
	return records, nil
}

// What is stored is served at once, with the authority away, and replaced when it is back.
func TestACMEReplacesStored(t *testing.T) {
	for _, test := range []struct {
		name        string
		from, until time.Duration // of the stored certificate, from now
		trouble     string
	}{
		{"about to expire", -80 * aDay, 10 * aDay, ""},
		{"expired", -90 * aDay, -aDay, "has expired: mail programs refuse it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, port := listen(t)
			p := newPebble(t, port, "", nil)
			f := newFixture(t, p, l, nil)
			old := store(t, f.Storage, p.directory, "mail.example.org", time.Now().Add(test.from), time.Now().Add(test.until))
			if s := f.List(t.Context())[0]; s.Trouble != test.trouble {
				t.Errorf("listed with the trouble %q, want %q", s.Trouble, test.trouble)
			}
			away := away(p)
			f.start(t)
			if c := shown(f.ACME, "mail.example.org"); c == nil || !c.Leaf.Equal(old) {
				t.Fatal("the stored certificate isn't served at once")
			}
			f.diary.wait(t, "renewed")
			if c := shown(f.ACME, "mail.example.org"); c == nil || !c.Leaf.Equal(old) {
				t.Error("the stored certificate isn't served while the CA is away")
			}
			away(false)
			f.diary.wait(t, "in use")
			if c := f.verify(t, "mail.example.org"); c.Leaf.Equal(old) {
				t.Error("the old certificate is still served")
			}
		})
	}
}

// away has pebble hang up on everybody until it is called with false.
func away(p *pebble) func(bool) {
	p.answerBefore(func(w http.ResponseWriter, _ *http.Request) bool {
		panic(http.ErrAbortHandler)
	})
	return func(bool) { p.answerBefore(nil) }
}

func TestACMEAuthorityAwayAtStart(t *testing.T) {
	l, port := listen(t)
	p := newPebble(t, port, "", nil)
	f := newFixture(t, p, l, nil)
	away := away(p)
	f.start(t)
	said := f.diary.wait(t, "no certificate yet")
	if said["name"] != "mail.example.org" || said["again"] == nil || !strings.Contains(said["error"].(string), "can't be reached") {
		t.Errorf("it says %v", said)
	}
	if shown(f.ACME, "mail.example.org") != nil || f.Default() != nil {
		t.Error("a certificate from nowhere")
	}
	f.diary.wait(t, "a client can't be served")
	if s := f.List(t.Context())[0]; !strings.Contains(s.Trouble, "can't be reached") || s.NextTry.IsZero() {
		t.Errorf("listed as %+v", s)
	}
	away(false)
	f.diary.wait(t, "in use")
	f.verify(t, "mail.example.org")
	f.diary.wait(t, "can be used again")
	if s := f.List(t.Context())[0]; s.Trouble != "" || !s.NextTry.IsZero() {
		t.Errorf("listed as %+v", s)
	}
}

func TestACMERateLimit(t *testing.T) {
	for name, after := range map[string]func() string{
		"seconds": func() string { return "7200" },
		"a date":  func() string { return time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			l, port := listen(t)
			p := newPebble(t, port, "", nil)
			p.answerBefore(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/order-plz" {
					return false
				}
				w.Header().Set("Content-Type", "application/problem+json")
				w.Header().Set("Retry-After", after())
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates already issued","status":429}`)
				return true
			})
			f := newFixture(t, p, l, nil)
			f.start(t)
			said := f.diary.wait(t, "no certificate yet")
			if text := said["error"].(string); text != "the CA has had too many requests from us or for this name, and asks to wait: too many certificates already issued" {
				t.Errorf("it says %q", text)
			}
			if wait := time.Until(said["again"].(time.Time)); wait < 110*time.Minute || wait > 2*time.Hour {
				t.Errorf("it comes back after %v, and was asked to in two hours", wait)
			}
			if s := f.List(t.Context())[0]; time.Until(s.NextTry) < 110*time.Minute {
				t.Errorf("listed as %+v", s)
			}
			// Who asks for it by hand doesn't wait.
			p.answerBefore(nil)
			if err := f.Renew(t.Context(), "mail.example.org"); err != nil {
				t.Error(err)
			}
			f.verify(t, "mail.example.org")
		})
	}
}

func TestACMEChallengeFails(t *testing.T) {
	l, _ := listen(t)
	p := newPebble(t, freePort(t), "", nil) // it knocks where nobody is
	f := newFixture(t, p, l, nil)
	f.start(t)
	said := f.diary.wait(t, "no certificate yet")
	if text := said["error"].(string); !strings.Contains(text, "couldn't convince itself that mail.example.org is ours") || !strings.Contains(text, "port 443 of that name must lead here") {
		t.Errorf("it says %q", text)
	}
}

// A revoked certificate is replaced, whether the authority tells by OCSP (RFC 6960) or by its
// renewal information alone (RFC 9773, section 4.1).
func TestACMEReplacesRevoked(t *testing.T) {
	for _, stapled := range []bool{true, false} {
		t.Run(map[bool]string{true: "OCSP", false: "ARI"}[stapled], func(t *testing.T) {
			l, port := listen(t)
			url, use := "", func(*pebble) {}
			if stapled {
				url, use = responder(t)
			}
			p := newPebble(t, port, url, nil)
			use(p)
			if !stapled {
				p.hasten()
			}
			f := newFixture(t, p, l, nil)
			f.start(t)
			f.diary.wait(t, "in use")
			first := f.verify(t, "mail.example.org")
			if (len(first.OCSPStaple) > 0) != stapled {
				t.Errorf("stapled: %v, want %v", len(first.OCSPStaple) > 0, stapled)
			}
			if stapled { // the answer that is kept is good for an hour
				if err := f.Storage.Delete(t.Context(), "ocsp"); err != nil {
					t.Fatal(err)
				}
			}
			p.revoke(t, first.Leaf)
			f.diary.wait(t, "in use")
			if second := f.verify(t, "mail.example.org"); second.Leaf.Equal(first.Leaf) {
				t.Error("the revoked certificate is still served")
			}
		})
	}
}

// Two processes that ask at once get one certificate.
func TestACMETwoProcesses(t *testing.T) {
	l, port := listen(t)
	p := newPebble(t, port, "", nil)
	records := memory.New()
	both := make([]*fixture, 2)
	for i := range both {
		both[i] = newFixture(t, p, l, func(a *certs.ACME) { a.Storage = newStorage(records) })
		if err := both[i].Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, func(ctx context.Context) { _ = both[0].Serve(ctx, l) })
	var running sync.WaitGroup
	for _, f := range both {
		running.Go(func() {
			serve(t, func(ctx context.Context) { _ = f.Run(ctx) })
			f.diary.wait(t, "in use")
		})
	}
	running.Wait()
	if n := p.ordered(); n != 1 {
		t.Errorf("%d orders, want one", n)
	}
	if !both[0].verify(t, "mail.example.org").Leaf.Equal(both[1].verify(t, "mail.example.org").Leaf) {
		t.Error("they serve two certificates")
	}
}

func TestACMERenewByHand(t *testing.T) {
	l, port := listen(t)
	p := newPebble(t, port, "", nil)
	f := newFixture(t, p, l, nil)
	f.start(t)
	f.diary.wait(t, "in use")
	first := f.verify(t, "mail.example.org")
	if err := f.Renew(t.Context(), "mail.example.org"); err != nil {
		t.Fatal(err)
	}
	if f.verify(t, "mail.example.org").Leaf.Equal(first.Leaf) {
		t.Error("the certificate is the same as before")
	}
	if err := f.Renew(t.Context(), "other.example.org"); err != certs.ErrNoDomain {
		t.Errorf("renewing what isn't configured: %v", err)
	}
	p.server.Close()
	if err := f.Renew(t.Context(), "mail.example.org"); err == nil || !strings.Contains(err.Error(), "can't be reached") {
		t.Errorf("renewing with the CA away: %v", err)
	}
}

// Whoever asks for a challenge's answer that nobody waits for gets none, and no other certificate.
func TestACMEAnswersNoStrangers(t *testing.T) {
	l, port := listen(t)
	p := newPebble(t, port, "", nil)
	f := newFixture(t, p, l, nil)
	f.start(t)
	f.diary.wait(t, "in use")
	for _, protocols := range [][]string{{"acme-tls/1"}, nil, {"imap"}} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: "mail.example.org", NextProtos: protocols})
		if err == nil {
			conn.Close()
			t.Errorf("%q: got a handshake", protocols)
		}
	}
}
