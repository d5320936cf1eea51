package certs_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/crypto/ocsp"

	"imapwarden/certs"
)

// A pebble is Let's Encrypt's authority for tests, in this process.
type pebble struct {
	directory string
	roots     *x509.CertPool // of its HTTPS
	issuing   *x509.CertPool // of what it issues
	db        *db.MemoryStore
	ca        *ca.CAImpl
	names     *challtestsrv.ChallSrv // its DNS: every name is 127.0.0.1
	dns       string                 // where that answers
	front     http.Handler
	server    *httptest.Server

	mu     sync.Mutex
	orders int                                               // that it was asked for
	before func(w http.ResponseWriter, r *http.Request) bool // true: it has answered in pebble's place
}

// newPebble starts one that looks for challenges at the port. OCSP is offered where responder is a URL.
func newPebble(t *testing.T, port, responder string, eab map[string]string) *pebble {
	t.Helper()
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"} {
		t.Setenv(name, value)
	}
	quiet := log.New(io.Discard, "", 0)
	p := &pebble{db: db.NewMemoryStore(), dns: net.JoinHostPort("127.0.0.1", freePort(t))}
	var err error
	if p.names, err = challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{p.dns}, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	p.names.SetDefaultDNSIPv4("127.0.0.1")
	p.names.SetDefaultDNSIPv6("")
	p.names.Run()
	t.Cleanup(p.names.Shutdown)
	for id, key := range eab {
		if err := p.db.AddExternalAccountKeyByID(id, key); err != nil {
			t.Fatal(err)
		}
	}
	kind := "ecdsa"
	if responder != "" {
		kind = "rsa" // pebble hands out no other keys, and the responder needs it
	}
	p.ca = ca.New(quiet, p.db, responder, kind, 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 90 * 24 * 3600}})
	validation := va.New(quiet, number(t, port), number(t, port), false, p.dns, p.db)
	front := wfe.New(quiet, p.db, validation, p.ca, []string{"pebble.test"}, false, eab != nil, 0, 0)
	p.front = front.Handler()
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		if r.URL.Path == "/order-plz" {
			p.orders++
		}
		before := p.before
		p.mu.Unlock()
		if before == nil || !before(w, r) {
			p.front.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.server.Close)
	p.directory = p.server.URL + wfe.DirectoryPath
	p.roots = x509.NewCertPool()
	p.roots.AddCert(p.server.Certificate())
	p.issuing = x509.NewCertPool()
	p.issuing.AddCert(p.ca.GetRootCert(0).Cert)
	return p
}

// answerBefore has requests answered in pebble's place, where the function says that it did.
func (p *pebble) answerBefore(before func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

func (p *pebble) ordered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.orders
}

// revoke is what pebble does when it is asked to. The window that it suggests then, of one second,
// is too short for acmez; Let's Encrypt's is longer.
func (p *pebble) revoke(t *testing.T, c *x509.Certificate) {
	t.Helper()
	issued := p.db.GetCertificateBySerial(c.SerialNumber)
	if issued == nil {
		t.Fatal("pebble doesn't know that certificate")
	}
	past := time.Now().UTC().Add(-time.Hour)
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, past.Format(time.RFC3339), past.Add(30*time.Minute).Format(time.RFC3339))
	if err := p.db.SetARIResponse(c.SerialNumber, window); err != nil {
		t.Fatal(err)
	}
	p.db.RevokeCertificate(&core.RevokedCertificate{Certificate: issued, RevokedAt: time.Now()})
}

// hasten has renewal information asked for anew each time, which pebble wants every six hours.
func (p *pebble) hasten() {
	p.answerBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/renewalInfo/") {
			return false
		}
		answer := httptest.NewRecorder()
		p.front.ServeHTTP(answer, r)
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		return true
	})
}

// resolver is pebble's DNS with what it lacks: it knows that example.org is a zone.
func (p *pebble) resolver(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(q)
		switch name := q.Question[0].Name; {
		case q.Question[0].Qtype != dns.TypeSOA:
			answer, _ = dns.Exchange(q, p.dns)
		case name == "example.org.":
			soa, _ := dns.NewRR("example.org. 60 IN SOA ns.example.org. postmaster.example.org. 1 60 60 60 60")
			answer.Answer = append(answer.Answer, soa)
		default:
			answer.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(answer)
	})}
	serve(t, func(ctx context.Context) {
		context.AfterFunc(ctx, func() { _ = server.Shutdown() })
		_ = server.ActivateAndServe()
	})
	return conn.LocalAddr().String()
}

func number(t *testing.T, port string) int {
	t.Helper()
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// serve does it in the background until the test ends.
func serve(t *testing.T, do func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { do(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// A diary is a log whose lines can be waited for.
type diary struct {
	lines chan string

	mu   sync.Mutex
	last map[string]map[string]any // fields, by message
}

func newDiary() (*diary, *zap.Logger) {
	d := &diary{lines: make(chan string, 1000), last: make(map[string]map[string]any)}
	return d, zap.New(diaryCore{zapcore.NewNopCore(), d})
}

type diaryCore struct {
	zapcore.Core
	*diary
}

func (d diaryCore) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

func (d diaryCore) With([]zapcore.Field) zapcore.Core { return d }

func (d diaryCore) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if d.Enabled(e.Level) {
		return c.AddCore(e, d)
	}
	return c
}

func (d diaryCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	d.mu.Lock()
	d.last[e.Message] = encoder.Fields
	d.mu.Unlock()
	d.lines <- e.Message
	return nil
}

// wait returns the fields of the next line that has the text in it.
func (d *diary) wait(t *testing.T, text string) map[string]any {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line := <-d.lines:
			if strings.Contains(line, text) {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.last[line]
			}
		case <-timeout:
			t.Fatalf("no line with %q was logged", text)
		}
	}
}

// store keeps a self-made certificate as if the authority had issued it.
func store(t *testing.T, s certmagic.Storage, directory, name string, from, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stored"}, DNSNames: []string{name}, NotBefore: from, NotAfter: until,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "an authority"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(certmagic.CertificateResource{SANs: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := (&certmagic.ACMEIssuer{CA: directory}).IssuerKey()
	for file, content := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer, name):       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		certmagic.StorageKeys.SitePrivateKey(issuer, name): pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
		certmagic.StorageKeys.SiteMeta(issuer, name):       record,
	} {
		if err := s.Store(t.Context(), file, content); err != nil {
			t.Fatal(err)
		}
	}
	return leaf
}

// shown is what a client that asks for the name is shown; nil: nothing.
func shown(a *certs.ACME, name string) *tls.Certificate {
	return a.Find(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"imap"}})
}

// responder answers OCSP requests (RFC 6960) for what a pebble has issued.
func responder(t *testing.T) (url string, use func(*pebble)) {
	t.Helper()
	var mu sync.Mutex
	var p *pebble
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		request, err := ocsp.ParseRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		issuer := p.ca.GetIntermediateCert(0).Cert
		answer := ocsp.Response{Status: ocsp.Good, SerialNumber: request.SerialNumber, ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
		if p.db.GetRevokedCertificateBySerial(request.SerialNumber) != nil {
			answer.Status, answer.RevokedAt = ocsp.Revoked, time.Now()
		}
		signed, err := ocsp.CreateResponse(issuer, issuer, answer, p.signer())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(signed)
	}))
	t.Cleanup(server.Close)
	return server.URL, func(made *pebble) { mu.Lock(); defer mu.Unlock(); p = made }
}

func (p *pebble) signer() crypto.Signer { return p.ca.GetIntermediateKey(0) }
