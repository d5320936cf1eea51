package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/configs"
)

// watched is a warden of these settings, not serving, and what it logs.
func watched(t *testing.T, c *configs.Config) (*warden, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	w, err := newWarden(t.Context(), c, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	return w, logs
}

// What the file lacks isn't removed for its age, and too many are removed all the same.
func TestRetentionWaitsForTheFile(t *testing.T) {
	c := settings(t)
	c.Audit.File = filepath.Join(t.TempDir(), "audit.jsonl")
	w, logs := watched(t, c)
	defer w.close()
	old := audit.Event{Kind: "login", Time: time.Now().Add(-2 * c.Audit.Keep.D())}
	if err := w.store.Append(t.Context(), []audit.Event{old, old, old, old, old}); err != nil {
		t.Fatal(err)
	}
	left := func(want int) {
		t.Helper()
		w.purgeOnce(t.Context())
		events, err := w.store.Events(t.Context(), audit.Filter{})
		if err != nil || len(events) != want {
			t.Errorf("%d events are left, %v; want %d", len(events), err, want)
		}
	}
	left(5)
	if n := logs.FilterMessageSnippet("not in the audit file yet").Len(); n != 1 {
		t.Errorf("said %d times that they wait", n)
	}
	c.Audit.Most = 3
	left(3)

	if err := w.store.SetMark(t.Context(), "audit-file", "x"); err != nil { // nobody can tell what is in the file
		t.Fatal(err)
	}
	left(3)
	c.Audit.Most = 2
	left(2)
	if n := logs.FilterMessageSnippet("not removed").Len(); n != 2 {
		t.Errorf("said %d times that it can't tell", n)
	}
	if err := w.store.SetMark(t.Context(), "audit-file", ""); err != nil {
		t.Fatal(err)
	}

	w.export(t.Context())() // ends when all is written
	if w.exporter.Passed().IsZero() {
		t.Error("nothing was written")
	}
	left(0)

	w.exporter = nil // audit.file = ""
	if err := w.store.Append(t.Context(), []audit.Event{old}); err != nil {
		t.Fatal(err)
	}
	left(0)
}

// What fails at the end is said as what fails before, however much of it there is.
func TestServeSaysWhatFailedLate(t *testing.T) {
	w, _ := watched(t, settings(t))
	ctx, cancel := context.WithCancel(t.Context())
	var parts []func(context.Context) error
	for i := range 20 {
		parts = append(parts, func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("late %d.", i)
		})
	}
	cancel()
	err := w.serve(ctx, parts...)
	for i := range parts {
		if want := fmt.Sprintf("besides: late %d.", i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q isn't said", want)
		}
	}
}

// A change whose event the store doesn't take is in the log, whole, refused or not, and counted.
func TestLostChangesAreLogged(t *testing.T) {
	c := settings(t)
	c.Admin.Socket = filepath.Join(t.TempDir(), "admin.sock")
	c.Audit.File = filepath.Join(t.TempDir(), "audit.jsonl")
	w, logs := watched(t, c)
	db, err := sql.Open("sqlite", strings.TrimPrefix(c.Store.URL, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no space left'); END`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.serve(ctx) }()
	client, err := admin.Dial(ctx, c.Admin.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Remove(ctx, "nobody@example.org"); err == nil {
		t.Error("removing nobody is a success")
	}
	lost := logs.FilterMessage("audit event not stored").All()
	if len(lost) != 1 {
		t.Fatalf("%d events are in the log", len(lost))
	}
	e, ok := lost[0].ContextMap()["event"].(audit.Event)
	if !ok || e.Kind != "account.remove" || e.Outcome != audit.Refused || e.Account != "nobody@example.org" || !strings.Contains(e.Detail, "by admin socket") {
		t.Errorf("the log has %+v", e)
	}

	answer, err := http.Get("http://" + w.metricsListener.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nimapwarden_audit_events_lost_total 1\n", "\nimapwarden_audit_events_waiting 0\n", "\nimapwarden_audit_file_complete_timestamp_seconds "} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What somebody wrote into the store must not move the cursor of who looks at it.
func TestListsAreHarmless(t *testing.T) {
	c := settings(t)
	dir := filepath.Dir(c.Store.KeyFile)
	file := filepath.Join(dir, "w.toml")
	text := `hostname = "mail.example.org"
admin.socket = ""
mfa.mode = "optional"
upstream = [{ address = "127.0.0.1:1", tls = "none" }]
store = { url = "sqlite:imapwarden.db", key_file = "master.key" }
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w, _ := watched(t, c)
	const evil = "e\x1b[2J\tvil"
	now := time.Now()
	_, addErr := w.store.AddAppPassword(t.Context(), auth.AppPassword{ID: evil, Account: "alice", Label: evil, Tag: []byte{1}, Created: now}, 10)
	if err := errors.Join(addErr,
		w.store.PutAccount(t.Context(), auth.Account{Name: evil, Created: now}),
		w.store.PutGrant(t.Context(), auth.Grant{
			ID: evil, Account: "alice", Network: netip.MustParsePrefix("203.0.113.0/24"), Created: now, LastUsed: now, Expires: now.Add(time.Hour),
		}),
		w.store.Append(t.Context(), []audit.Event{
			{Time: now, Kind: "login", Outcome: audit.Accepted, Account: evil + "2", Factor: evil, Program: evil, Source: evil},
		}),
		w.close()); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"account list", "app-password list alice", "grant list alice", "report", "audit"} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), append(strings.Fields(command), "--config", file), nil, &out, &errs); status != 0 {
			t.Errorf("%s: exit status %d: %s", command, status, errs.String())
		}
		if strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "e?[2J?vil") {
			t.Errorf("%s: %q", command, out.String())
		}
	}
}
