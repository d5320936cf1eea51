package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// wardenConfig is the configuration as DESIGN.md gives it. What isn't named
// has its default; refusals come sooner than that only to save the tests' time.
const wardenConfig = `
hostname = "mail.example.test"

[[listener]]
address = "%[2]s"
tls     = "implicit"

[[listener]]
address = "%[3]s"
tls     = "starttls"

[tls]
certificates = [{ cert = "%[1]s/cert.pem", key = "%[1]s/key.pem" }]

[[upstream]]
name    = "default"
address = "%[4]s"
tls     = "%[5]s"
ca      = "%[6]s"
server_name = "%[7]s"
forward = "%[10]s"

[mfa]
mode = "%[8]s"
refusal_delay = "200ms"
[mfa.grant]
ipv4_prefix = 24

[timeouts]
drain = "%[9]s"

[store]
url = "sqlite:%[1]s/imapwarden.db"
key_file = "%[1]s/master.key"
[admin]
socket = "%[1]s/admin.sock"
[metrics]
address = ""
[log]
level = "debug"
`

// settings are what tests vary; zero fields get the common value.
type settings struct {
	upstream   *dovecot // the shared one
	tls        string   // towards the upstream: none
	ca         string
	serverName string
	mode       string // required
	drain      string // 5s
	forward    string // id
}

// A warden is a running imapwarden with a folder, ports and a store of its own.
type warden struct {
	t        *testing.T
	dir      string
	implicit string // address, TLS from the start
	starttls string // address
	upstream *dovecot

	proc *process
}

// startWarden starts an imapwarden that ends with the test. On failure its log
// is shown; in any case it is searched for secrets and races.
func startWarden(t *testing.T, s settings) *warden {
	t.Helper()
	if s.upstream == nil {
		s.upstream = shared.dovecot
	}
	orElse := func(text *string, common string) {
		if *text == "" {
			*text = common
		}
	}
	orElse(&s.tls, "none")
	orElse(&s.mode, "required")
	orElse(&s.drain, "5s")
	orElse(&s.forward, "id")

	dir, err := os.MkdirTemp(shared.dir, "w")
	if err != nil {
		t.Fatal(err)
	}
	w := &warden{t: t, dir: dir, implicit: mustAddress(t), starttls: mustAddress(t), upstream: s.upstream}
	if err := w.issue(); err != nil {
		t.Fatal(err)
	}
	address := s.upstream.plain
	if s.tls == "implicit" {
		address = s.upstream.tls
	} else if s.forward == "proxy-v2" {
		address = s.upstream.proxied
	}
	config := fmt.Sprintf(wardenConfig, dir, w.implicit, w.starttls, address, s.tls, s.ca, s.serverName, s.mode, s.drain, s.forward)
	if err := os.WriteFile(w.config(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.finish)
	w.start()
	return w
}

func (w *warden) config() string { return filepath.Join(w.dir, "imapwarden.toml") }
func (w *warden) log() string    { return filepath.Join(w.dir, "stderr.log") }

// issue gives the warden a new certificate.
func (w *warden) issue() error {
	return shared.clients.issue(filepath.Join(w.dir, "cert.pem"), filepath.Join(w.dir, "key.pem"), "localhost", "mail.example.test")
}

func (w *warden) start() {
	w.t.Helper()
	var err error
	w.proc, err = startProcess(filepath.Join(w.dir, "stdout.log"), w.log(), shared.program, "serve", "--config", w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, address := range []string{w.implicit, w.starttls} {
		if err := w.proc.accepts(address); err != nil {
			w.t.Fatal(err)
		}
	}
}

// kill ends the process without giving it a moment.
func (w *warden) kill() {
	w.t.Helper()
	if err := w.proc.signal(os.Kill); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.proc.wait(); err != nil {
		w.t.Fatal(err)
	}
}

// finish ends the process and looks at what it left behind.
func (w *warden) finish() {
	if w.proc != nil {
		if status, err := w.proc.terminate(); err != nil || status > 0 {
			w.t.Errorf("imapwarden ended with status %d, %v", status, err)
		}
	}
	if text, err := os.ReadFile(w.log()); err == nil && strings.Contains(string(text), "DATA RACE") {
		w.t.Errorf("imapwarden's log reports a data race:\n%s", text)
	}
	// The audit as its reader gets it, from the store alone.
	if out, err := exec.Command(shared.program, "audit", "--json", "--config", w.config()).Output(); err != nil {
		w.t.Errorf("imapwarden audit: %v", err)
	} else if err := os.WriteFile(filepath.Join(w.dir, "audit.jsonl"), out, 0o600); err != nil {
		w.t.Error(err)
	}
	w.searchSecrets()
	if w.t.Failed() {
		w.t.Logf("imapwarden's log:\n%s", tail(w.log(), 60))
		w.t.Logf("Dovecot's log, of all tests:\n%s", tail(w.upstream.log(), 20))
	}
}

// searchSecrets looks for every password, code and TOTP secret in what
// imapwarden wrote. Codes aren't looked for in the database, where six digits
// of a number may be anything.
func (w *warden) searchSecrets() {
	for _, pattern := range []string{"*.log", "*.jsonl", "imapwarden.db*"} {
		files, err := filepath.Glob(filepath.Join(w.dir, pattern))
		if err != nil || len(files) == 0 {
			w.t.Errorf("imapwarden wrote no %s (%v)", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				w.t.Error(err)
			}
			if n := known.in(string(text), !strings.HasPrefix(pattern, "imapwarden.db")); n > 0 {
				w.t.Errorf("%d passwords, codes or secrets stand in %s", n, filepath.Base(file))
			}
		}
	}
}

// enroll gives the account an authenticator.
func (w *warden) enroll(a *account) {
	w.t.Helper()
	var enrolled struct {
		Account, Secret, URI string
		RecoveryCodes        []string `json:"recovery_codes"` // empty for now, but never absent
	}
	out := w.command("account", "enroll", a.name, "--confirmed", "--json")
	if err := json.Unmarshal(out, &enrolled); err != nil {
		w.t.Fatalf("account enroll --json: %v", err)
	}
	if enrolled.Account != a.name || enrolled.Secret == "" || !strings.HasPrefix(enrolled.URI, "otpauth://totp/") || enrolled.RecoveryCodes == nil {
		w.t.Fatalf("account enroll --json for %s lacks something; its account is %q", a.name, enrolled.Account)
	}
	a.secret, a.step = known.add(enrolled.Secret), 0
	for _, code := range enrolled.RecoveryCodes {
		known.add(code)
	}
}

// enrolled makes an account with an authenticator.
func (w *warden) enrolled(password string) *account {
	w.t.Helper()
	a := w.upstream.newAccount(w.t, password)
	w.enroll(a)
	return a
}

// command runs imapwarden as its admin does and returns what it printed.
func (w *warden) command(args ...string) []byte {
	w.t.Helper()
	cmd := exec.Command(shared.program, append(args, "--config", w.config())...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("imapwarden %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return out
}

func mustAddress(t *testing.T) string {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
