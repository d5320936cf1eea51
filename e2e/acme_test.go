package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

const acmeConfig = `
[tls.acme]
domains   = ["mail.example.test"]
agree     = true
directory = "$directory"
ca        = "$dir/acme-ca.pem"
`

// The proxy gets its certificate from a CA at its own listener, and keeps it over a restart
// with the CA away.
func TestACME(t *testing.T) {
	w := prepareWarden(t, settings{})
	_, port, _ := net.SplitHostPort(w.implicit)
	authority, issuing := startPebble(t, port)
	if err := writePEM(filepath.Join(w.dir, "acme-ca.pem"), "CERTIFICATE", authority.Certificate().Raw, 0o644); err != nil {
		t.Fatal(err)
	}
	s := settings{more: strings.ReplaceAll(acmeConfig, "$directory", authority.URL+wfe.DirectoryPath)}
	w.withoutFiles(s)
	w.start()

	leaf := w.shown(t, issuing)
	var listed struct {
		Names                        []string
		Source, Issuer, Key, Trouble string
		Expires, Renewal             time.Time
	}
	if err := json.Unmarshal(w.command("certificate", "list", "--json"), &listed); err != nil {
		t.Fatal(err)
	}
	if listed.Names[0] != "mail.example.test" || listed.Source != "acme" || listed.Key != "ECDSA P-256" || listed.Trouble != "" ||
		!listed.Expires.Equal(leaf.NotAfter) || !listed.Renewal.Before(listed.Expires) {
		t.Errorf("certificate list says %+v", listed)
	}
	w.command("certificate", "renew", "mail.example.test")
	second := w.shown(t, issuing)
	if second.Equal(leaf) {
		t.Error("certificate renew left the old certificate")
	}
	w.refuses([]string{"certificate", "renew", "other.example.test"}, "is not in tls.acme.domains")

	w.stop()
	authority.Close()
	if text := string(w.command("certificate", "list")); !strings.Contains(text, "mail.example.test") || !strings.Contains(text, "ECDSA P-256") {
		t.Errorf("without a server, certificate list says\n%s", text)
	}
	w.refuses([]string{"certificate", "renew", "mail.example.test"}, "only a running server")
	w.start()
	if !w.shown(t, issuing).Equal(second) {
		t.Error("after a restart another certificate is shown")
	}
}

// withoutFiles configures the warden without certificate files.
func (w *warden) withoutFiles(s settings) {
	w.t.Helper()
	w.configure(s)
	text := mustRead(w.t, w.config())
	line := `certificates = [{ cert = "` + w.dir + `/cert.pem", key = "` + w.dir + `/key.pem" }]`
	if !strings.Contains(text, line) {
		w.t.Fatal("the configuration names no certificate files")
	}
	replace(w.t, w.config(), strings.Replace(text, line, "", 1))
}

// shown returns the certificate that a client is shown who believes the CA, once there is one.
func (w *warden) shown(t *testing.T, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		conn, err := tls.Dial("tcp", w.implicit, &tls.Config{RootCAs: roots, ServerName: "mail.example.test", NextProtos: []string{"imap"}})
		if last = err; err == nil {
			defer conn.Close()
			if p := conn.ConnectionState().NegotiatedProtocol; p != "imap" {
				t.Errorf("speaks %q", p)
			}
			return conn.ConnectionState().PeerCertificates[0]
		}
	}
	t.Fatal(last)
	return nil
}

// startPebble starts Let's Encrypt's CA for tests, which asks at the port of 127.0.0.1,
// whatever the name. It returns where it listens, and what it issues from.
func startPebble(t *testing.T, port string) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"} {
		t.Setenv(name, value)
	}
	quiet, resolver := log.New(io.Discard, "", 0), mustAddress(t)
	names, err := challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{resolver}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	names.SetDefaultDNSIPv4("127.0.0.1")
	names.SetDefaultDNSIPv6("")
	names.Run()
	t.Cleanup(names.Shutdown)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	records := db.NewMemoryStore()
	issuer := ca.New(quiet, records, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 90 * 24 * 3600}})
	front := wfe.New(quiet, records, va.New(quiet, number, number, false, resolver, records), issuer, []string{"pebble.test"}, false, false, 0, 0)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.GetRootCert(0).DER}))
	return server, roots
}
