package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/demo"
	"imapwarden/metrics"
	"imapwarden/store"
	"imapwarden/store/memory"
)

// settings are what a warden on a free port of loopback needs, in a folder of its own.
func settings(t *testing.T) *configs.Config {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := certs.SelfSigned([]string{"mail.example.org"}, time.Hour)
	if err := errors.Join(err,
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := configs.Default()
	c.Hostname = "mail.example.org"
	listener := configs.DefaultListener()
	listener.Address = "127.0.0.1:0"
	c.Listeners = []configs.Listener{listener}
	c.TLS.Certificates = []configs.Certificate{{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}}
	upstream := configs.DefaultUpstream()
	upstream.Address, upstream.TLS = "127.0.0.1:1", "none"
	c.Upstreams = []configs.Upstream{upstream}
	c.Store = configs.Store{URL: "sqlite:" + filepath.Join(dir, "imapwarden.db"), KeyFile: filepath.Join(dir, "master.key")}
	c.Admin.Socket = ""
	c.Metrics.Address = "127.0.0.1:0"
	return c
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().String()
	for _, row := range []struct{ listener, metrics, want string }{
		{port, "", "listener " + port + ": address already in use: another program listens there; ss -ltnp names it"},
		{"127.0.0.1:0", port, "metrics " + port + ": address already in use: another program listens there; ss -ltnp names it"},
		{"192.0.2.1:993", "", "listener 192.0.2.1:993: cannot assign requested address: this machine doesn't have that address"},
	} {
		c := settings(t)
		c.Listeners[0].Address, c.Metrics.Address = row.listener, row.metrics
		w, err := newWarden(t.Context(), c, zap.NewNop())
		if err == nil {
			w.close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	denied := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EACCES)}
	const want = "listener :993: permission denied: ports below 1024 need CAP_NET_BIND_SERVICE, as imapwarden.service gives it"
	if got := listenError("listener :993", denied); got.Error() != want || !errors.Is(got, syscall.EACCES) {
		t.Errorf("got %v, want %s", got, want)
	}
}

// A readOnly store still answers, and takes nothing new while full is set.
type readOnly struct {
	*memory.Store
	full  atomic.Bool
	asked atomic.Int32
}

func (r *readOnly) SetMark(ctx context.Context, name, value string) error {
	r.asked.Add(1)
	if r.full.Load() {
		return errors.New("no space left on device")
	}
	return r.Store.SetMark(ctx, name, value)
}

func TestReadiness(t *testing.T) {
	held := &readOnly{Store: memory.New()}
	w := &warden{metrics: metrics.New(), store: &store.Store{Engine: held}}
	ready := w.readiness(t.Context())
	for range 100 {
		if err := ready(); err != nil {
			t.Fatal(err)
		}
	}
	if n := held.asked.Load(); n > 10 {
		t.Errorf("100 questions at once were %d writes", n)
	}
	held.full.Store(true)
	time.Sleep(time.Second)
	if err := ready(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("with a full disk: %v", err)
	}
	held.full.Store(false)
	w.draining.Store(true)
	if err := ready(); err == nil || err.Error() != "shutting down" {
		t.Errorf("at the end: %v", err)
	}
}

// Who balances load must know at once that no new session is taken, while old ones go on.
func TestNotReadyOnceShutdownHasBegun(t *testing.T) {
	mailbox, err := demo.Start("alice", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer mailbox.Close()
	c := settings(t)
	c.MFA.Mode = "optional"
	c.Upstreams[0].Address = mailbox.Addr()
	w, err := newWarden(t.Context(), c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- w.serve(ctx) }()
	ready := func() (int, string) {
		r, err := http.Get("http://" + w.metricsListener.Addr().String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	if status, body := ready(); status != http.StatusOK {
		t.Errorf("running: %d %s", status, body)
	}

	client, err := tls.Dial("tcp", w.listeners[0].Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answers := bufio.NewScanner(client)
	io.WriteString(client, "a LOGIN alice secret\r\n")
	for answers.Scan() && !strings.HasPrefix(answers.Text(), "a ") {
	}
	if !strings.HasPrefix(answers.Text(), "a OK ") {
		t.Fatalf("login: %q", answers.Text())
	}
	cancel()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		status, body := ready()
		if status == http.StatusServiceUnavailable && body == "not ready: shutting down\n" {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("shutting down: %d %s", status, body)
		}
	}
	client.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A store that can be read and not written lets nobody in with a code, so serve doesn't begin.
func TestUnwritableStore(t *testing.T) {
	c := settings(t)
	w, err := newWarden(t.Context(), c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", strings.TrimPrefix(c.Store.URL, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `CREATE TRIGGER full BEFORE INSERT ON marks BEGIN SELECT RAISE(ABORT, 'no space left'); END`); err != nil {
		t.Fatal(err)
	}
	if w, err = newWarden(t.Context(), c, zap.NewNop()); err == nil {
		w.close()
	}
	if err == nil || !strings.HasPrefix(err.Error(), "trying to write to the store: ") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
}

func TestProgram(t *testing.T) {
	for _, row := range [][3]string{
		{"/usr/local/bin/imapwarden", "imapwarden", "imapwarden"},
		{"/work/imapwarden", "./imapwarden", "./imapwarden"},
		{"/tmp/go-build1/b001/exe/imapwarden", "/tmp/go-build1/b001/exe/imapwarden", "go run ./cmd/imapwarden"},
		{"/root/.cache/go-build/ab/ab12-d/imapwarden", "/root/.cache/go-build/ab/ab12-d/imapwarden", "go run ./cmd/imapwarden"},
	} {
		if got := called(row[0], row[1]); got != row[2] {
			t.Errorf("%s: got %s, want %s", row[0], got, row[2])
		}
	}
}

// A watchedLog does something once a text has been written to it.
type watchedLog struct {
	bytes.Buffer
	awaited string
	then    func()
}

func (l *watchedLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(l.awaited)) {
		l.then()
	}
	return l.Buffer.Write(p)
}

// One line at the beginning and one at the end; what is unwise and what is fatal are lines
// of the same log, with their parts as fields.
func TestServeLog(t *testing.T) {
	c := settings(t)
	file := filepath.Join(filepath.Dir(c.Store.KeyFile), "w.toml")
	write := func(listener string) {
		text := `hostname = "mail.example.org"
mfa.mode = "optional"
metrics.address = ""
admin.socket = ""
timeouts.drain = "1500ms"
listener = [{ address = "` + listener + `" }]
tls.certificates = [{ cert = "cert.pem", key = "key.pem" }]
upstream = [{ address = "127.0.0.1:1", tls = "none" }]
store = { url = "sqlite:imapwarden.db", key_file = "master.key" }
`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whenListening := func() {}
	// serve returns the log, each line by its message, and fails where a line isn't JSON.
	serve := func(ctx context.Context, want int) map[string]map[string]any {
		var out bytes.Buffer
		log := &watchedLog{awaited: `"msg":"listening"`, then: whenListening}
		if status := run(ctx, []string{"serve", "--config", file}, nil, &out, log); status != want {
			t.Errorf("exit status %d, want %d\n%s", status, want, log.String())
		}
		lines := map[string]map[string]any{}
		for line := range strings.Lines(log.String()) {
			fields := map[string]any{}
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Errorf("%v: %s", err, line)
				continue
			}
			message, _ := fields["msg"].(string)
			if lines[message] != nil {
				t.Errorf("said twice: %s", line)
			}
			lines[message] = fields
		}
		return lines
	}
	expect := func(lines map[string]map[string]any, message string, want map[string]any) {
		t.Helper()
		for field, value := range want {
			if got := lines[message][field]; got != value {
				t.Errorf("%s: %s is %v, want %v", message, field, got, value)
			}
		}
	}

	write("127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	whenListening = cancel
	lines := serve(ctx, 0)
	expect(lines, "configuration", map[string]any{
		"level": "warn", "file": file, "line": 2.0, "key": "mfa.mode",
	})
	if message, _ := lines["configuration"]["message"].(string); !strings.HasPrefix(message, `mfa.mode = "optional": `) {
		t.Errorf("message: %q", message)
	}
	expect(lines, "starting", map[string]any{"level": "info", "version": readBuild().Version, "mode": "optional"})
	if upstreams, _ := lines["starting"]["upstreams"].([]any); len(upstreams) != 1 || upstreams[0] != "default: 127.0.0.1:1, tls none" {
		t.Errorf("upstreams: %v", upstreams)
	}
	expect(lines, "shutting down: no new sessions; those that are logged in go on until the deadline", map[string]any{"deadline": "1.5s"})
	expect(lines, "stopped", map[string]any{"level": "info"})

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	write(taken.Addr().String())
	lines = serve(t.Context(), 1)
	expect(lines, "not started", map[string]any{
		"level": "error",
		"error": "listener " + taken.Addr().String() + ": address already in use: another program listens there; ss -ltnp names it",
	})
}

// The demo ends with its terminal, and takes its folder along.
func TestDemoEndsWithItsTerminal(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// testscript.Main makes the program of this test one of the name that it is called by.
	program := filepath.Join(t.TempDir(), "imapwarden")
	if err := os.Symlink(executable, program); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	password := ""
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "password" {
			password = fields[1]
		}
		if strings.HasPrefix(lines.Text(), "Ready. ") {
			break
		}
	}
	last := strings.TrimSpace(lines.Text())
	if want := "Ready. Type as the password until "; !strings.HasPrefix(last, want) || password == "" || !strings.Contains(last, ": "+password) {
		t.Errorf("the last line is %q, the password %q", last, password)
	}
	if !strings.Contains(said.String(), " audit --config "+temp) {
		t.Errorf("no command that can be typed:\n%s", said.String())
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%d files are left (%v)", len(left), err)
	}
}
