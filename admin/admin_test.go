package admin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pquerna/otp/totp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/store/memory"
)

// serve answers at a socket of its own until the test ends.
func serve(t *testing.T, s *admin.Server) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "admin.sock")
	listener, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return path
}

func directory(t *testing.T, records auth.Records) *auth.Directory {
	t.Helper()
	keys, err := auth.CreateKeys(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &auth.Directory{Records: records, Keys: keys, Issuer: "mail.example.org"}
}

func dial(t *testing.T, path string) *admin.Client {
	t.Helper()
	client, err := admin.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestRoundTrip(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop()}))
	ctx := t.Context()

	e, err := client.Enroll(ctx, "Alice@example.org", false)
	if err != nil {
		t.Fatal(err)
	}
	if e.Account != "alice@example.org" || e.Secret == "" || !strings.HasPrefix(e.URI, "otpauth://totp/") {
		t.Errorf("the enrolment lacks something, or is for %q", e.Account)
	}
	pending, err := client.Show(ctx, "alice@example.org")
	if err != nil || pending.Enrolled || !pending.Pending {
		t.Errorf("before the first code: %+v, %v", pending, err)
	}
	code, err := totp.GenerateCode(e.Secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Confirm(ctx, "alice@example.org", code); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Enroll(ctx, "bob@example.org", true); err != nil {
		t.Fatal(err)
	}
	list, err := client.List(ctx, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	want := []auth.Summary{
		{Account: "alice@example.org", Enrolled: true, RecoveryCodes: 10},
		{Account: "bob@example.org", Enrolled: true, RecoveryCodes: 10},
	}
	if diff := cmp.Diff(want, list, cmpopts.IgnoreTypes(time.Time{})); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if rest, err := client.List(ctx, "alice@example.org", 10); err != nil || len(rest) != 1 {
		t.Errorf("list after alice: %d accounts, %v", len(rest), err)
	}
	if err := client.Reset(ctx, "alice@example.org"); err != nil {
		t.Error(err)
	}
	if err := client.Remove(ctx, "alice@example.org"); err != nil {
		t.Error(err)
	}
	refusal, ok := errors.AsType[*auth.Refusal](client.Remove(ctx, "alice@example.org"))
	if !ok || refusal.Reason != auth.NoSuchAccount || refusal.Message == "" {
		t.Errorf("removing nobody: %+v, want a refusal", refusal)
	}
	if _, ok := errors.AsType[*auth.Refusal](client.Reset(ctx, "hunter2 hunter2")); !ok {
		t.Error("what is no name is not refused")
	}

	by := "uid " + strconv.Itoa(os.Getuid()) + " by admin socket"
	got, err := client.Events(ctx, audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	event := func(kind string, outcome audit.Outcome, account string, reason auth.Reason) audit.Event {
		return audit.Event{Kind: kind, Outcome: outcome, Account: account, Reason: string(reason), Detail: by}
	}
	events := []audit.Event{
		event("account.enroll", audit.Accepted, "alice@example.org", ""),
		event("account.confirm", audit.Accepted, "alice@example.org", ""),
		event("account.enroll", audit.Accepted, "bob@example.org", ""),
		event("account.reset", audit.Accepted, "alice@example.org", ""),
		event("account.remove", audit.Accepted, "alice@example.org", ""),
		event("account.remove", audit.Refused, "alice@example.org", auth.NoSuchAccount),
		event("account.reset", audit.Refused, "", auth.BadName),
	}
	if diff := cmp.Diff(events, got, cmpopts.IgnoreFields(audit.Event{}, "ID", "Time", "Hash")); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}

	// Every field of a filter arrives.
	filter := audit.Filter{After: got[1].ID, Account: "alice@example.org", Since: got[0].Time, Limit: 2}
	chosen, err := client.Events(ctx, filter)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got[4:6], chosen); diff != "" {
		t.Errorf("events chosen (-want +got):\n%s", diff)
	}
	filter = audit.Filter{Source: netip.MustParsePrefix("203.0.113.0/24")}
	if chosen, err := client.Events(ctx, filter); err != nil || len(chosen) != 0 {
		t.Errorf("events of a source: %d, %v", len(chosen), err)
	}
}

// broken takes no events and gives none.
type broken struct{}

func (broken) Append(context.Context, []audit.Event) error { return errors.New("the disk is full") }
func (broken) Events(context.Context, audit.Filter) ([]audit.Event, error) {
	return nil, errors.New("the disk is gone")
}

func (broken) Ways(context.Context, time.Time, string, int) ([]audit.Way, error) {
	return nil, errors.New("the disk is gone")
}

func (broken) Mark(context.Context, string) (string, error) {
	return "", errors.New("the disk is gone")
}

func TestFailureIsNoRefusal(t *testing.T) {
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, memory.New()), Audit: broken{}, Events: broken{}, Log: zap.NewNop()}))

	_, err := client.Events(t.Context(), audit.Filter{})
	if _, refused := errors.AsType[*auth.Refusal](err); refused || err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("reading events: %v", err)
	}
	// A change that can't be recorded isn't reported as a success.
	e, err := client.Enroll(t.Context(), "alice@example.org", true)
	if _, refused := errors.AsType[*auth.Refusal](err); refused || err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("enrolling: %v", err)
	}
	if e.Secret != "" {
		t.Error("the secret came with an error")
	}
	// Nor is one that is no change to an account.
	if _, _, err := client.EndAccount(t.Context(), "alice@example.org"); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("ending sessions: %v", err)
	}
	// The change's own error counts more than the audit's.
	if _, refused := errors.AsType[*auth.Refusal](client.Remove(t.Context(), "nobody")); !refused {
		t.Error("removing nobody is not a refusal")
	}
}

func TestRequestsAreBounded(t *testing.T) {
	path := serve(t, &admin.Server{Directory: directory(t, memory.New()), Audit: broken{}, Events: broken{}, Log: zap.NewNop()})
	plain := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	for name, test := range map[string]struct {
		method, path, body string
		status             int
	}{
		"too long":        {"POST", "/account/show", `{"account":"` + strings.Repeat("a", 64<<10) + `"}`, 400},
		"not JSON":        {"POST", "/account/confirm", `{"code":"987654"`, 400},
		"another type":    {"POST", "/account/confirm", `{"code":987654}`, 400},
		"unknown field":   {"POST", "/account/confirm", `{"987654":1}`, 400},
		"another method":  {"GET", "/account/list", "", 405},
		"no such request": {"POST", "/", `{}`, 404},
		"all or one":      {"POST", "/app-password/revoke", `{"account":"alice"}`, 409},
		"all or some":     {"POST", "/grant/revoke", `{"account":"alice"}`, 409},
		"both":            {"POST", "/grant/revoke", `{"account":"alice","ids":["g1"],"all":true}`, 409},
		"no session":      {"POST", "/session/kill", `{}`, 409},
		"two ways":        {"POST", "/session/kill", `{"account":"alice","session":"s1"}`, 409},
		"another mark":    {"POST", "/mark", `{"mark":"987654"}`, 409},
		"fits":            {"POST", "/account/show", `{"account":"` + strings.Repeat("a", 60<<10) + `"}`, 409},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), test.method, "http://admin"+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := plain.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != test.status {
				t.Errorf("status %d, want %d", answer.StatusCode, test.status)
			}
			if bytes.Contains(body, []byte("987654")) {
				t.Error("the answer repeats a code")
			}
		})
	}
}

func TestSocketIsPrivate(t *testing.T) {
	path := serve(t, &admin.Server{Events: broken{}, Log: zap.NewNop()})
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", name, got, want)
		}
	}
}

// Who gets past the mode of the socket is still asked who they are.
func TestOtherUsersAreTurnedAway(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	path := serve(t, &admin.Server{Directory: directory(t, memory.New()), Audit: broken{}, Events: broken{}, Log: zap.NewNop()})
	answered := make(chan error)
	go func() { answered <- askAsNobody(path) }()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// askAsNobody returns nil where another user is answered with 403. It changes the
// thread that it runs on, which ends with its goroutine.
func askAsNobody(path string) error {
	const nobody = 65534
	runtime.LockOSThread()
	// Only this thread changes its effective uid, which is what SO_PEERCRED tells, and
	// keeps root's way past the modes of files.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), nobody, ^uintptr(0)); errno != 0 {
		return errno
	}
	if err := unix.Setfsuid(0); err != nil {
		return err
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /account/list HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.0 403 ")) {
		return fmt.Errorf("answered with %q", answer)
	}
	return nil
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")

	// A server that was killed leaves its socket behind.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := admin.Dial(t.Context(), path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("asking a dead server: %v", err)
	}
	alive, err := admin.Listen(path)
	if err != nil {
		t.Fatalf("over a dead server's socket: %v", err)
	}

	if second, err := admin.Listen(path); err == nil || !strings.Contains(err.Error(), "another server answers") {
		t.Errorf("beside a living server: %v, %v", second, err)
	}
	dial(t, path) // the living one still answers
	if err := alive.Close(); err != nil {
		t.Error(err)
	}
	if _, err := admin.Dial(t.Context(), path); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("after the end: %v", err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Error("the file was touched")
	}
}
