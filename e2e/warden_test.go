package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// wardenConfig is the configuration as DESIGN.md gives it, with what settings say in the
// place of names. What isn't named has its default; refusals come sooner than that only to
// save the tests' time.
const wardenConfig = `
hostname = "mail.example.test"

[[listener]]
address = "$implicit"
tls     = "implicit"

[[listener]]
address = "$starttls"
tls     = "starttls"

[tls]
certificates = [{ cert = "$dir/cert.pem", key = "$dir/key.pem" }]

[[upstream]]
name    = "default"
address = "$upstream"
tls     = "$tls"
ca      = "$ca"
server_name = "$serverName"
forward = "$forward"
$login

[mfa]
mode = "$mode"
refusal_delay = "200ms"
[mfa.grant]
from = "$grant"
ipv4_prefix = 24

[timeouts]
drain = "$drain"

[store]
url = "sqlite:$dir/imapwarden.db"
key_file = "$dir/master.key"
[admin]
socket = "$dir/admin.sock"
[metrics]
address = ""
[log]
level = "debug"

$more
`

// settings are what tests vary; zero fields get the common value.
type settings struct {
	upstream   *dovecot // the shared one
	tls        string   // towards the upstream: none
	ca         string
	serverName string
	login      string // lines of [[upstream]] on how to sign in there: none, the user's own password
	mode       string // required
	grant      string // from where: network
	drain      string // 1s
	forward    string // id
	more       string // other tables, such as [[rule]]; $dir is the warden's folder
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
	w := prepareWarden(t, s)
	w.start()
	return w
}

// prepareWarden is startWarden without the start, for who has more to put into its folder.
func prepareWarden(t *testing.T, s settings) *warden {
	t.Helper()
	if s.upstream == nil {
		s.upstream = shared.dovecot
	}

	dir, err := os.MkdirTemp(shared.dir, "w")
	if err != nil {
		t.Fatal(err)
	}
	w := &warden{t: t, dir: dir, implicit: mustAddress(t), starttls: mustAddress(t), upstream: s.upstream}
	if err := w.issue(); err != nil {
		t.Fatal(err)
	}
	w.configure(s)
	t.Cleanup(w.finish)
	return w
}

// configure writes the configuration, for the next start.
func (w *warden) configure(s settings) {
	w.t.Helper()
	address := w.upstream.plain
	if s.tls == "implicit" {
		address = w.upstream.tls
	} else if s.forward == "proxy-v2" {
		address = w.upstream.proxied
	}
	values := map[string]string{
		"implicit":   w.implicit,
		"starttls":   w.starttls,
		"upstream":   address,
		"tls":        cmp.Or(s.tls, "none"),
		"ca":         s.ca,
		"serverName": s.serverName,
		"forward":    cmp.Or(s.forward, "id"),
		"mode":       cmp.Or(s.mode, "required"),
		"grant":      cmp.Or(s.grant, "network"),
		"drain":      cmp.Or(s.drain, "1s"),
	}
	dir := func(name string) string {
		if name == "dir" {
			return w.dir
		}
		return "$" + name
	}
	values["dir"], values["login"], values["more"] = w.dir, os.Expand(s.login, dir), os.Expand(s.more, dir)
	config := os.Expand(wardenConfig, func(name string) string { return values[name] })
	if err := os.WriteFile(w.config(), []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
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

// stop ends the process as systemd does, and the sessions with it that have no time to end.
func (w *warden) stop() {
	w.t.Helper()
	if status, err := w.proc.terminate(); err != nil || status != 0 {
		w.t.Fatalf("imapwarden ended with status %d, %v", status, err)
	}
}

// restart ends the process and starts it again with what the settings say.
func (w *warden) restart(s settings) {
	w.t.Helper()
	w.stop()
	w.configure(s)
	w.start()
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
	w.readEnrolment(a, w.command("account", "enroll", a.name, "--confirmed", "--json"))
}

// readEnrolment gives the account what account enroll --json has printed.
func (w *warden) readEnrolment(a *account, out []byte) {
	w.t.Helper()
	var enrolled struct {
		Account, Secret, URI string
		RecoveryCodes        []string `json:"recovery_codes"`
	}
	if err := json.Unmarshal(out, &enrolled); err != nil {
		w.t.Fatalf("account enroll --json: %v", err)
	}
	if enrolled.Account != a.name || enrolled.Secret == "" || !strings.HasPrefix(enrolled.URI, "otpauth://totp/") || len(enrolled.RecoveryCodes) != 10 {
		w.t.Fatalf("account enroll --json for %s lacks something; its account is %q", a.name, enrolled.Account)
	}
	a.secret, a.step, a.recovery = known.add(enrolled.Secret), 0, enrolled.RecoveryCodes
	for _, code := range a.recovery {
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

// command runs imapwarden as its admin does, who must be obeyed, and returns what it printed.
func (w *warden) command(args ...string) []byte {
	w.t.Helper()
	return w.commandWith("", args...)
}

// commandWith is command with something on standard input.
func (w *warden) commandWith(input string, args ...string) []byte {
	w.t.Helper()
	out, err := w.run(input, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// run runs a command. The error has what it wrote to standard error; it may be asked for its
// exit status with errors.As.
func (w *warden) run(input string, args ...string) ([]byte, error) {
	cmd := exec.Command(shared.program, append(args, "--config", w.config())...)
	cmd.Stdin = strings.NewReader(input)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("imapwarden %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out, nil
}

// refuses runs a command that must end with status 1 and say all of this.
func (w *warden) refuses(args []string, says ...string) {
	w.t.Helper()
	_, err := w.run("", args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		w.t.Errorf("imapwarden %s: %v, want exit status 1", strings.Join(args, " "), err)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			w.t.Errorf("%v doesn't say %q", err, text)
		}
	}
}

// lines runs a command with --json that prints an object a line, and returns them.
func lines[T any](w *warden, args ...string) (list []T) {
	w.t.Helper()
	for decoder := json.NewDecoder(bytes.NewReader(w.command(append(args, "--json")...))); ; {
		var one T
		switch err := decoder.Decode(&one); err {
		case nil:
			list = append(list, one)
		case io.EOF:
			return list
		default:
			w.t.Fatalf("imapwarden %s --json: %v", strings.Join(args, " "), err)
		}
	}
}

// An event is what tests look at of those that the audit has.
type event struct {
	ID                                                              int64
	Kind, Outcome, Account, Source, Program, Factor, Reason, Detail string
	Rule, Hash                                                      string
}

// events returns those of the account, oldest first.
func (w *warden) events(a *account) []event {
	w.t.Helper()
	return lines[event](w, "audit", "--account", a.name, "--limit", "1000")
}

// lastLogin returns the newest login of the account.
func (w *warden) lastLogin(a *account) event {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, e := range slices.Backward(w.events(a)) { // it may come a moment after the client's OK
			if e.Kind == "login" {
				return e
			}
		}
	}
	w.t.Fatalf("the audit has no login of %s", a.name)
	return event{}
}

// login tries to sign in from there, on a connection of its own.
func (w *warden) login(a *account, from, password string) (*conn, reply) {
	w.t.Helper()
	c := dialTLS(w.t, from, w.implicit)
	return c, loginQuoted(c, a.name, password)
}

// accepts signs in and returns the connection.
func (w *warden) accepts(a *account, from, password string) *conn {
	w.t.Helper()
	c, r := w.login(a, from, password)
	if !r.is("OK") {
		w.t.Fatalf("login from %s: %s", from, r.line)
	}
	return c
}

// rejects signs in, which must be refused, as to clients, without a reason, and for this one.
func (w *warden) rejects(a *account, from, password, reason string) {
	w.t.Helper()
	c, r := w.login(a, from, password)
	c.Close()
	if !r.is("NO [AUTHENTICATIONFAILED]") {
		w.t.Errorf("login from %s: %s, want a refusal for %s", from, r.line, reason)
		return
	}
	if e := w.lastLogin(a); e.Outcome != "refused" || e.Reason != reason {
		w.t.Errorf("login from %s: the audit says %s, %q, want %q", from, e.Outcome, e.Reason, reason)
	}
}

func mustAddress(t *testing.T) string {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
