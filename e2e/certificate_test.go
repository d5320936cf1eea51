package e2e

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Certificates change under running sessions, which don't notice.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	session := dialTLS(t, home, w.implicit)
	session.mustLogin(a.name, a.withCode(t))
	first := w.serial()

	// By itself, because the files changed.
	if err := w.issue(); err != nil {
		t.Fatal(err)
	}
	second := w.serialOtherThan(first)
	session.holdsMailOf(a)

	// On SIGHUP; a certificate without its key is none, and the old one stays.
	for name, text := range map[string]string{"cert.pem": "nonsense", "key.pem": ""} {
		file := filepath.Join(w.dir, name)
		good := mustRead(t, file)
		replace(t, file, text)
		before := len(mustRead(t, w.log()))
		w.hangup()
		w.logGrows(before) // it says so
		if got := w.serial(); got != second {
			t.Errorf("a bad %s changed the certificate", name)
		}
		replace(t, file, good)
	}
	if err := w.issue(); err != nil {
		t.Fatal(err)
	}
	w.hangup()
	w.serialOtherThan(second)
	session.holdsMailOf(a)
	dialTLS(t, home, w.implicit).mustLogin(a.name, a.password)
}

func (w *warden) hangup() {
	w.t.Helper()
	if err := w.proc.signal(syscall.SIGHUP); err != nil {
		w.t.Fatal(err)
	}
}

// serial is the serial number of the certificate that a new handshake gets.
func (w *warden) serial() string {
	w.t.Helper()
	c := dialTLS(w.t, home, w.implicit)
	defer c.Close()
	return c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// serialOtherThan waits until new handshakes get another certificate.
func (w *warden) serialOtherThan(old string) string {
	w.t.Helper()
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got := w.serial(); got != old {
			return got
		}
	}
	w.t.Fatal("new handshakes still get the old certificate")
	return ""
}

// logGrows waits until the log is longer than size.
func (w *warden) logGrows(size int) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if len(mustRead(w.t, w.log())) > size {
			return
		}
	}
	w.t.Fatal("nothing was logged")
}

// replace changes the file at once.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}
