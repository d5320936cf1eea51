package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What init writes about a real Dovecot serves mail programs, from plaintext on loopback to a
// verified certificate.
func TestInit(t *testing.T) {
	t.Parallel()
	d := shared.dovecot
	for _, test := range []struct {
		name, upstream, tls string
		args                []string
	}{
		{"plaintext on loopback", d.plain, "none", nil},
		{"STARTTLS", d.plain, "starttls", []string{"--tls", "starttls", "--upstream-ca", shared.internal.file, "--upstream-name", dovecotName}},
		{"implicit TLS, found out", d.tls, "implicit", []string{"--upstream-ca", shared.internal.file, "--upstream-name", dovecotName}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := prepareWarden(t, settings{})
			if err := os.Remove(w.config()); err != nil {
				t.Fatal(err)
			}
			said := w.initialise(test.upstream, test.args...)
			if said.Found.Software != "Dovecot" || said.Upstream.TLS != test.tls || !said.Ready {
				t.Errorf("init found %+v", said)
			}
			w.moveIn()
			w.start()

			// Nobody needs a code yet, and who has one may show it.
			a := w.upstream.newAccount(t, anyPassword())
			w.accepts(a, home, a.password).holdsMailOf(a)
			b := w.enrolled(anyPassword())
			w.accepts(b, home, b.withCode(t)).holdsMailOf(b)
		})
	}

	t.Run("a certificate of somebody else", func(t *testing.T) {
		t.Parallel()
		dir, err := os.MkdirTemp(shared.dir, "w")
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(shared.program, "init", "--hostname", "mail.example.test", "--upstream", d.tls, "--tls", "implicit",
			"--upstream-ca", shared.stranger.file, "--upstream-name", dovecotName, "--dir", dir+"/etc", "--state", dir+"/state").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "can't be verified for "+dovecotName) {
			t.Errorf("init: %v\n%s", err, out)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	})
}

// An initiation is what init --json says.
type initiation struct {
	Ready bool
	Found struct {
		Software     string
		Capabilities []string
	}
	Upstream struct{ TLS string }
}

// initialise has init write the warden's configuration and key.
func (w *warden) initialise(upstream string, more ...string) (said initiation) {
	w.t.Helper()
	args := append([]string{
		"init", "--hostname", "mail.example.test", "--upstream", upstream, "--dir", w.dir, "--state", w.dir,
		"--cert", filepath.Join(w.dir, "cert.pem"), "--key", filepath.Join(w.dir, "key.pem"), "--json",
	}, more...)
	cmd := exec.Command(shared.program, args...)
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("init: %v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	if err := json.Unmarshal(out, &said); err != nil {
		w.t.Fatal(err)
	}
	return said
}

// moveIn gives the configuration that init wrote the test's ports, in place of the usual ones
// that one machine has only once, and says where a service would have its socket.
func (w *warden) moveIn() {
	w.t.Helper()
	text := strings.NewReplacer("0.0.0.0:993", w.implicit, "0.0.0.0:143", w.starttls).Replace(mustRead(w.t, w.config())) +
		"\n[admin]\nsocket = \"" + w.dir + "/admin.sock\"\n[metrics]\naddress = \"\"\n[timeouts]\ndrain = \"1s\"\n"
	if err := os.WriteFile(w.config(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}
