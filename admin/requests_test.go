package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

const (
	alice = "alice@example.org"
	bob   = "bob@example.org"
)

var addresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// changes are the events of a store that administrators left, without times and hashes.
func changes(t *testing.T, records *memory.Store) []audit.Event {
	t.Helper()
	events, err := records.Events(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.Detail != "uid "+strconv.Itoa(os.Getuid())+" by admin socket" {
			t.Errorf("%s: %q is not who did it", e.Kind, e.Detail)
		}
		events[i] = audit.Event{Kind: e.Kind, Outcome: e.Outcome, Session: e.Session, Account: e.Account, Reason: e.Reason}
	}
	return events
}

func compareChanges(t *testing.T, records *memory.Store, want ...audit.Event) {
	t.Helper()
	if diff := cmp.Diff(want, changes(t, records)); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

func wantRefusal(t *testing.T, err error, reason auth.Reason) {
	t.Helper()
	refusal, ok := errors.AsType[*auth.Refusal](err)
	if !ok || refusal.Reason != reason || refusal.Message == "" {
		t.Errorf("got %v, want a refusal for %s that says why", err, reason)
	}
}

func TestAppPasswords(t *testing.T) {
	records := memory.New()
	d := directory(t, records)
	var ended []auth.Revocation
	d.Ended = func(r auth.Revocation) { ended = append(ended, r) }
	client := dial(t, serve(t, &admin.Server{Directory: d, Audit: records, Events: records, Log: zap.NewNop()}))
	ctx := t.Context()

	wanted := auth.NewAppPassword{
		Account: "ALICE@example.org", Label: "phone", Expires: time.Now().Add(time.Hour).Truncate(time.Microsecond),
		Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, ReadOnly: true, Password: auth.Secret("open sesame"),
	}
	phone, err := client.CreateAppPassword(ctx, wanted)
	if err != nil {
		t.Fatal(err)
	}
	if phone.Account != alice || !phone.Sealed || !auth.LooksLikeAppPassword([]byte(phone.Password)) {
		t.Errorf("issued %v, sealed %v: something lacks", phone, phone.Sealed)
	}
	for _, label := range []string{"laptop", "tablet"} {
		if issued, err := client.CreateAppPassword(ctx, auth.NewAppPassword{Account: alice, Label: label}); err != nil || issued.Sealed {
			t.Errorf("%s: sealed %v, %v", label, issued.Sealed, err)
		}
	}
	_, err = client.CreateAppPassword(ctx, auth.NewAppPassword{Account: alice})
	wantRefusal(t, err, auth.BadValue)

	list, err := client.AppPasswords(ctx, alice)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d app passwords, %v", len(list), err)
	}
	want := auth.AppPasswordSummary{
		ID: phone.ID, Account: alice, Label: "phone", Expires: wanted.Expires, Networks: wanted.Networks, ReadOnly: true, Ready: true,
	}
	if diff := cmp.Diff(want, list[0], cmpopts.IgnoreFields(auth.AppPasswordSummary{}, "Created"), addresses); diff != "" {
		t.Errorf("the first (-want +got):\n%s", diff)
	}

	if err := client.RevokeAppPassword(ctx, alice, phone.ID); err != nil {
		t.Error(err)
	}
	wantRefusal(t, client.RevokeAppPassword(ctx, alice, phone.ID), auth.NotFound)
	if n, err := client.RevokeAppPasswords(ctx, alice); n != 2 || err != nil {
		t.Errorf("revoking the others: %d, %v", n, err)
	}
	if len(ended) != 3 || ended[0].AppPassword != phone.ID {
		t.Errorf("sessions were told %+v, want the three app passwords", ended)
	}
	created := audit.Event{Kind: "app-password.create", Outcome: audit.Accepted, Account: alice}
	revoked := audit.Event{Kind: "app-password.revoke", Outcome: audit.Accepted, Account: alice}
	compareChanges(t, records, created, created, created,
		audit.Event{Kind: "app-password.create", Outcome: audit.Refused, Account: alice, Reason: string(auth.BadValue)},
		revoked,
		audit.Event{Kind: "app-password.revoke", Outcome: audit.Refused, Account: alice, Reason: string(auth.NotFound)},
		revoked)
}

func TestRecovery(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop()}))
	e, err := client.Enroll(t.Context(), alice, true)
	if err != nil {
		t.Fatal(err)
	}
	codes, err := client.RenewRecovery(t.Context(), "Alice@example.org")
	if err != nil || len(codes) != 10 || len(e.RecoveryCodes) != 10 || slices.Contains(codes, e.RecoveryCodes[0]) {
		t.Errorf("%d new recovery codes besides %d old ones, %v", len(codes), len(e.RecoveryCodes), err)
	}
	_, err = client.RenewRecovery(t.Context(), bob)
	wantRefusal(t, err, auth.NoSuchAccount)
	compareChanges(t, records,
		audit.Event{Kind: "account.enroll", Outcome: audit.Accepted, Account: alice},
		audit.Event{Kind: "account.recovery", Outcome: audit.Accepted, Account: alice},
		audit.Event{Kind: "account.recovery", Outcome: audit.Refused, Account: bob, Reason: string(auth.NoSuchAccount)})
}

func TestGrants(t *testing.T) {
	records := memory.New()
	d := directory(t, records)
	d.Grant = auth.GrantSettings{From: auth.FromNetwork, IPv4Prefix: 24, Absolute: time.Hour, Idle: time.Hour}
	now := time.Now().UTC().Truncate(time.Second)
	for _, id := range []string{"g1", "g2", "g3"} {
		g := auth.Grant{ID: id, Account: alice, Network: netip.MustParsePrefix("203.0.113.0/24"), Created: now, LastUsed: now, Expires: now.Add(time.Hour)}
		if err := records.PutGrant(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	client := dial(t, serve(t, &admin.Server{Directory: d, Audit: records, Events: records, Log: zap.NewNop()}))
	list, err := client.Grants(t.Context(), "Alice@example.org")
	if err != nil || len(list) != 3 {
		t.Fatalf("%d grants, %v", len(list), err)
	}
	want := auth.GrantSummary{
		ID: "g1", Account: alice, From: auth.FromNetwork, Network: netip.MustParsePrefix("203.0.113.0/24"),
		Created: now, LastUsed: now, Expires: now.Add(time.Hour),
	}
	if diff := cmp.Diff(want, list[0], addresses); diff != "" {
		t.Errorf("the first (-want +got):\n%s", diff)
	}
	if n, err := client.RevokeGrants(t.Context(), alice, "g2"); n != 1 || err != nil {
		t.Errorf("revoking one: %d, %v", n, err)
	}
	_, err = client.RevokeGrants(t.Context(), alice, "g2")
	wantRefusal(t, err, auth.NotFound)
	if n, err := client.RevokeGrants(t.Context(), alice); n != 2 || err != nil {
		t.Errorf("revoking all: %d, %v", n, err)
	}
	compareChanges(t, records,
		audit.Event{Kind: "grant.revoke", Outcome: audit.Accepted, Account: alice},
		audit.Event{Kind: "grant.revoke", Outcome: audit.Refused, Account: alice, Reason: string(auth.NotFound)},
		audit.Event{Kind: "grant.revoke", Outcome: audit.Accepted, Account: alice})
}

// room is where sessions are, each "account/id". One request is made at a time.
type room struct{ sessions []admin.Session }

func (r *room) Sessions() []admin.Session { return r.sessions }

func (r *room) EndSession(id string) (admin.Session, bool) {
	i := slices.IndexFunc(r.sessions, func(s admin.Session) bool { return s.ID == id })
	if i < 0 {
		return admin.Session{}, false
	}
	ended := r.sessions[i]
	r.sessions = slices.Delete(r.sessions, i, i+1)
	return ended, true
}

func (r *room) EndAccount(account string) int {
	had := len(r.sessions)
	r.sessions = slices.DeleteFunc(r.sessions, func(s admin.Session) bool { return s.Account == account })
	return had - len(r.sessions)
}

func TestSessions(t *testing.T) {
	records := memory.New()
	session := func(id, account string) admin.Session {
		return admin.Session{
			ID: id, Account: account, Source: netip.MustParseAddr("203.0.113.7"), Program: "Mail 1.0", Factor: "app-password", AppPassword: "a1",
			ReadOnly: true, Upstream: "default", Began: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), FromClient: 1, ToClient: 2,
		}
	}
	all := []admin.Session{session("s1", alice), session("s2", bob), session("s3", alice), session("s4", bob)}
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, records), Audit: records, Events: records, Sessions: &room{slices.Clone(all)}, Log: zap.NewNop(),
	}))
	check := func(account string, want ...admin.Session) {
		t.Helper()
		got, err := client.Sessions(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), addresses); diff != "" {
			t.Errorf("sessions of %q (-want +got):\n%s", account, diff)
		}
	}
	check("", all...)
	check("Bob@example.org", all[1], all[3])
	_, err := client.Sessions(t.Context(), "no name")
	wantRefusal(t, err, auth.BadName)

	if account, err := client.EndSession(t.Context(), "s1"); account != alice || err != nil {
		t.Errorf("ending one: of %q, %v", account, err)
	}
	check("", all[1:]...)
	_, err = client.EndSession(t.Context(), "s1")
	wantRefusal(t, err, auth.NotFound)
	if account, n, err := client.EndAccount(t.Context(), "BOB@example.org"); account != bob || n != 2 || err != nil {
		t.Errorf("ending bob's: %d of %q, %v", n, account, err)
	}
	check("", all[2])
	_, _, err = client.EndAccount(t.Context(), "hunter2 hunter2")
	wantRefusal(t, err, auth.BadName)
	compareChanges(t, records,
		audit.Event{Kind: "session.kill", Outcome: audit.Accepted, Account: alice, Session: "s1"},
		audit.Event{Kind: "session.kill", Outcome: audit.Refused, Reason: string(auth.NotFound)},
		audit.Event{Kind: "session.kill", Outcome: audit.Accepted, Account: bob},
		audit.Event{Kind: "session.kill", Outcome: audit.Refused, Reason: string(auth.BadName)})
}

func TestNoSessions(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop()}))
	if list, err := client.Sessions(t.Context(), ""); len(list) != 0 || err != nil {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	_, err := client.EndSession(t.Context(), "s1")
	wantRefusal(t, err, auth.NotFound)
	if _, n, err := client.EndAccount(t.Context(), alice); n != 0 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
}

func TestExplain(t *testing.T) {
	want := admin.Explanation{
		Account: alice, Source: netip.MustParseAddr("203.0.113.7"),
		Rule:   policy.Ruling{Rule: "office", Denied: true, SecondFactor: "optional", ReadOnly: true, MaxSessions: 3},
		Unread: []string{"geo.countries"},
		Bans:   []admin.Ban{{Network: netip.MustParsePrefix("203.0.113.0/24"), Signal: policy.ByHand, Times: 1, Detail: "me"}},
		Limits: &policy.Explanation{Decision: policy.Decision{Signal: policy.AccountLimit}, WaitSeconds: 60, AccountFailures: 10, SessionsLimit: 50},
		Login: auth.Explanation{
			Account: alice, Known: true, Mode: auth.Optional, Grants: 2,
			Prospects: []auth.Prospect{{With: "the password alone", Outcome: "accepted", Factor: auth.FactorGrant}},
		},
	}
	server := &admin.Server{Directory: directory(t, memory.New()), Audit: broken{}, Events: broken{}, Log: zap.NewNop()}
	server.Explain = func(_ context.Context, account string, source netip.Addr) (admin.Explanation, error) {
		if account != alice || source != want.Source {
			t.Errorf("asked for %s from %s", account, source)
		}
		return want, nil
	}
	got, err := dial(t, serve(t, server)).Explain(t.Context(), alice, want.Source)
	if err != nil {
		t.Fatal(err)
	}
	// What people must wait travels in seconds.
	unexported := cmpopts.IgnoreUnexported(policy.Decision{})
	if diff := cmp.Diff(want, got, unexported, addresses); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRotate(t *testing.T) {
	records := memory.New()
	want := auth.Rotation{Key: "new", Resealed: 3, Kept: []string{"old"}, Dropped: []string{"older"}}
	failure := error(nil)
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop(),
		Rotate: func(context.Context) (auth.Rotation, error) { return want, failure },
	}))
	got, err := client.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	failure = auth.ErrRotating
	_, err = client.Rotate(t.Context())
	wantRefusal(t, err, auth.AlreadyRotating)
	failure = errors.New("the disk is full")
	if _, err := client.Rotate(t.Context()); err == nil || err.Error() != failure.Error() {
		t.Errorf("with a full disk: %v", err)
	}
	compareChanges(t, records,
		audit.Event{Kind: "key.rotate", Outcome: audit.Accepted},
		audit.Event{Kind: "key.rotate", Outcome: audit.Refused, Reason: string(auth.AlreadyRotating)},
		audit.Event{Kind: "key.rotate", Outcome: audit.Failed})
}

func TestWaysAndMark(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop()}))
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	login := func(account, program string, minute int) audit.Event {
		return audit.Event{
			Time: at.Add(time.Duration(minute) * time.Minute), Kind: "login", Outcome: audit.Accepted,
			Account: account, Factor: "code", Program: program, Source: "203.0.113.7",
		}
	}
	if err := records.Append(t.Context(), []audit.Event{login(alice, "A", 0), login(alice, "A", 1), login(alice, "B", 2), login(bob, "", 3)}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		since time.Time
		after string
		limit int
	}{
		"all":        {time.Time{}, "", 10},
		"since":      {at.Add(time.Minute), "", 10},
		"after":      {time.Time{}, alice, 10},
		"one of two": {time.Time{}, "", 1},
		"none":       {at.Add(time.Hour), "", 10},
	} {
		want, err := records.Ways(t.Context(), test.since, test.after, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Ways(t.Context(), test.since, test.after, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}

	if value, err := client.Mark(t.Context(), audit.ChainMark); value != "" || err != nil {
		t.Errorf("before anything was purged: %q, %v", value, err)
	}
	if _, err := records.PurgeEvents(t.Context(), at.Add(time.Minute), 100); err != nil {
		t.Fatal(err)
	}
	if value, err := client.Mark(t.Context(), audit.ChainMark); !strings.HasPrefix(value, "1 ") || err != nil {
		t.Errorf("afterwards: %q, %v", value, err)
	}
	if err := records.SetMark(t.Context(), "secret", "sealed"); err != nil {
		t.Fatal(err)
	}
	value, err := client.Mark(t.Context(), "secret")
	wantRefusal(t, err, auth.BadValue)
	if value != "" {
		t.Error("another mark is shown")
	}
}

// That who made a change is gone by now leaves its event.
func TestRecordOutlivesItsMaker(t *testing.T) {
	records := memory.New()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := admin.Record(ctx, records, "uid "+strconv.Itoa(os.Getuid())+" by admin socket", audit.Event{Kind: "key.rotate"}, nil); err != nil {
		t.Error(err)
	}
	compareChanges(t, records, audit.Event{Kind: "key.rotate", Outcome: audit.Accepted})
}

// Administrators type all kinds of things; what is a secret stands in no log and no URL.
func TestNoSecretInTheLog(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "log")
	settings := zap.NewProductionConfig()
	settings.OutputPaths = []string{seen}
	log, err := settings.Build()
	if err != nil {
		t.Fatal(err)
	}
	records := &noAppPasswords{memory.New()}
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, records), Audit: records, Events: records, Log: log}))
	_, err = client.CreateAppPassword(t.Context(), auth.NewAppPassword{Account: alice, Label: "phone", Password: auth.Secret("open sesame")})
	if err == nil || !strings.Contains(err.Error(), "the disk is full") || strings.Contains(err.Error(), "sesame") {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(seen)
	if err != nil || !strings.Contains(string(text), "/app-password/create") {
		t.Errorf("the log lacks the failure (%v)", err)
	}
	for _, secret := range []string{"sesame", "b3BlbiBzZXNhbWU"} {
		if strings.Contains(string(text), secret) {
			t.Error("the log has the password")
		}
	}
}

type noAppPasswords struct{ *memory.Store }

func (noAppPasswords) AddAppPassword(context.Context, auth.AppPassword, int) (bool, error) {
	return false, errors.New("the disk is full")
}

// A rotation that the server's end cuts short is in the audit before the store is closed.
func TestRotationCutShort(t *testing.T) {
	records := memory.New()
	begun := make(chan bool)
	server := &admin.Server{
		Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop(),
		Rotate: func(ctx context.Context) (auth.Rotation, error) {
			close(begun)
			<-ctx.Done()
			return auth.Rotation{}, ctx.Err()
		},
	}
	path := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	client := dial(t, path)
	asked := make(chan error, 1)
	go func() {
		_, err := client.Rotate(context.Background())
		asked <- err
	}()
	<-begun
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	compareChanges(t, records, audit.Event{Kind: "key.rotate", Outcome: audit.Failed})
	if err := <-asked; err == nil {
		t.Error("it passed for a success")
	}
}

// A refusal or failure whose event is lost is at least in the log.
func TestLostEventsAreLogged(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	client := dial(t, serve(t, &admin.Server{
		Directory: directory(t, memory.New()), Audit: broken{}, Events: broken{}, Log: zap.New(core),
		Rotate: func(context.Context) (auth.Rotation, error) { return auth.Rotation{}, errors.New("no such key") },
	}))
	for what, ask := range map[string]func() error{
		"account.remove of nobody was refused": func() error { return client.Remove(t.Context(), "nobody") },
		"session.kill was refused":             func() error { _, err := client.EndSession(t.Context(), "s1"); return err },
		"key.rotate was failed":                func() error { _, err := client.Rotate(t.Context()); return err },
	} {
		if err := ask(); err == nil {
			t.Errorf("%s: passed for a success", what)
		}
		entries := logs.TakeAll()
		if len(entries) != 1 || !strings.Contains(fmt.Sprint(entries[0].ContextMap()["error"]), what) {
			t.Errorf("%s: logged %v", what, entries)
		}
	}
}

// Fewer events than were asked for would look like all that there are.
func TestEventsInOneAnswer(t *testing.T) {
	records := memory.New()
	client := dial(t, serve(t, &admin.Server{Directory: directory(t, records), Audit: records, Events: records, Log: zap.NewNop()}))
	if _, err := client.Events(t.Context(), audit.Filter{Limit: admin.MaxEvents}); err != nil {
		t.Error(err)
	}
	_, err := client.Events(t.Context(), audit.Filter{Limit: admin.MaxEvents + 1})
	wantRefusal(t, err, auth.BadValue)
}
