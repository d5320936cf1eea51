package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/policy"
	"imapwarden/store/sqlite"
	"imapwarden/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return open(t, filepath.Join(t.TempDir(), "a.db"))
	})
}

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw opens the file as another program would.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a ?#%20.db") // no part of it is a parameter
	open(t, path)
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, want 0600", name, info.Mode())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	foreign := filepath.Join(dir, "foreign.db")
	_, err := raw(t, foreign).Exec(`CREATE TABLE users (name TEXT)`)
	must(t, err)
	newer := filepath.Join(dir, "newer.db")
	must(t, open(t, newer).Close())
	_, err = raw(t, newer).Exec(`INSERT INTO imapwarden_schema (version_id, is_applied) VALUES (99, 1)`)
	must(t, err)
	must(t, os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "link.db")))

	for _, test := range []struct{ name, path, want string }{
		{"no name", "", "no file is named"},
		{"no folder", filepath.Join(dir, "no", "a.db"), "the folder " + filepath.Join(dir, "no") + " doesn't exist: create it"},
		{"a file for a folder", filepath.Join(file("plain", ""), "a.db"), "plain is not a folder"},
		{"a folder for a file", dir, "is not a file"},
		{"a link to nothing", filepath.Join(dir, "link.db"), "link.db"},
		{"text", file("text.db", strings.Repeat("hostname = \"mail.example.org\"\n", 50)), "text.db: reading its schema: it is not a SQLite database"},
		{"a damaged database", file("cut.db", "SQLite format 3\x00"+strings.Repeat("\xaa", 5000)), "cut.db"},
		{"another program's database", foreign, "foreign.db belongs to another program"},
		{"a newer schema", newer, "newer.db has schema 99, written by a newer imapwarden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, _ := os.ReadFile(test.path)
			s, err := sqlite.Open(t.Context(), test.path)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to say %q", err, test.want)
			}
			if after, _ := os.ReadFile(test.path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was made where the link leads")
	}
}

// fill writes one record of each kind; check wants them all.
var site = netip.MustParsePrefix("2001:db8:0:1::/64")

func fill(ctx context.Context, s *sqlite.Store) error {
	account := auth.Account{Name: "alice", TOTP: &auth.TOTP{ID: "t", Sealed: []byte{1}, LastStep: 100}}
	return errors.Join(
		s.PutAccount(ctx, account, []byte{1}, []byte{2}),
		s.PutGrant(ctx, auth.Grant{ID: "g", Account: "alice"}),
		s.SetMark(ctx, "key", "1"),
		s.Append(ctx, []audit.Event{{Kind: "login"}}),
		s.PutBans(ctx, policy.Ban{Network: site, Detail: "b"}),
		s.PutHomes(ctx, policy.Home{Account: "alice", Site: site}),
		s.SaveFile(ctx, certs.File{Name: "a/b", Value: []byte{1}}),
		spend(ctx, s, 101),
		issue(ctx, s),
		spendRecovery(ctx, s),
	)
}

func issue(ctx context.Context, s *sqlite.Store) error {
	added, err := s.AddAppPassword(ctx, auth.AppPassword{ID: "p", Account: "alice", Tag: []byte{1}}, 1)
	if err == nil && !added {
		err = errors.New("there is one already")
	}
	return err
}

func spendRecovery(ctx context.Context, s *sqlite.Store) error {
	left, won, err := s.SpendRecovery(ctx, "t", []byte{1}, time.Now(), auth.Grant{ID: "r", Account: "alice"})
	if err == nil && (!won || left != 1) {
		err = fmt.Errorf("the recovery code was won: %v, %d are left", won, left)
	}
	return err
}

func spend(ctx context.Context, s *sqlite.Store, step int64) error {
	won, err := s.SpendStep(ctx, "t", step, auth.Grant{ID: "h", Account: "alice"})
	if err == nil && !won {
		err = errors.New("the step was spent already")
	}
	return err
}

func check(t *testing.T, s *sqlite.Store) {
	t.Helper()
	ctx := t.Context()
	a, err := s.Account(ctx, "alice")
	must(t, err)
	if a.TOTP == nil || a.TOTP.LastStep != 101 {
		t.Errorf("the authenticator is %+v, want one with step 101 spent", a.TOTP)
	}
	grants, err := s.Grants(ctx, "alice")
	must(t, err)
	mark, err := s.Mark(ctx, "key")
	must(t, err)
	events, err := s.Events(ctx, audit.Filter{})
	must(t, err)
	if len(grants) != 3 || mark != "1" || len(events) != 1 {
		t.Errorf("got %d grants, mark %q and %d events; want 3, 1 and 1", len(grants), mark, len(events))
	}
	bans, err := s.Bans(ctx)
	must(t, err)
	homes, err := s.Homes(ctx, 10)
	must(t, err)
	if len(bans) != 1 || bans[0].Detail != "b" || len(homes) != 1 || homes[0].Site != site {
		t.Errorf("the bans are %+v and the homes %+v", bans, homes)
	}
	if f, err := s.LoadFile(ctx, "a/b"); err != nil || string(f.Value) != "\x01" {
		t.Errorf("the file of certificates is %+v, %v", f, err)
	}
	if p, err := s.AppPassword(ctx, []byte{1}); err != nil || p.ID != "p" {
		t.Errorf("the app password is %s, %v", p.ID, err)
	}
	if spendRecovery(ctx, s) == nil {
		t.Error("a recovery code that was used counted again")
	}
	must(t, s.Append(ctx, []audit.Event{{Kind: "login"}}))
	chained(t, s, 2)
	if spend(ctx, s, 101) == nil {
		t.Error("a code that was used counted again")
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	must(t, fill(t.Context(), s))
	must(t, s.Close())
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("closing left the WAL behind")
	}
	check(t, open(t, path))
}

// chained wants so many events, each chained to the one before.
func chained(t *testing.T, s *sqlite.Store, want int) {
	t.Helper()
	events, err := s.Events(t.Context(), audit.Filter{Limit: 1000})
	must(t, err)
	if len(events) != want {
		t.Errorf("got %d events, want %d", len(events), want)
	}
	_, err = storetest.Chained(audit.Hash{}, events)
	must(t, err)
}

// Also after all events are purged, and the file was opened again, the chain goes on.
func TestChainSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	before := []audit.Event{{Kind: "login"}, {Kind: "login"}}
	must(t, s.Append(t.Context(), before))
	_, err := s.PurgeEvents(t.Context(), time.Now(), 1)
	must(t, err)
	must(t, s.Close())
	after := []audit.Event{{Kind: "login"}}
	must(t, open(t, path).Append(t.Context(), after))
	_, err = storetest.Chained(before[1].Hash, after)
	must(t, err)
}

// Of a batch that fails half-way nothing is written, and nothing said of it.
func TestAppendAllOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	_, err := raw(t, path).Exec(`CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.detail = 'no'
		BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	must(t, err)
	events := []audit.Event{{Kind: "login", Source: "::ffff:192.0.2.1"}, {Kind: "login", Detail: "no"}}
	before := slices.Clone(events)
	if err := s.Append(t.Context(), events); err == nil {
		t.Error("written")
	}
	if !slices.Equal(events, before) {
		t.Errorf("events that weren't written became %+v", events)
	}
	chained(t, s, 0)
	must(t, s.Append(t.Context(), events[:1]))
	chained(t, s, 1)
}

// A call that fails half-way leaves bans, homes and accounts as they were.
func TestMemoryAllOrNothing(t *testing.T) {
	network := func(text string) netip.Prefix { return netip.MustParsePrefix(text) }
	first, second := policy.Ban{Network: network("192.0.2.0/24"), Times: 1}, policy.Ban{Network: network("198.51.100.0/24"), Times: 1}
	alice, bob := policy.Home{Account: "alice", Site: site}, policy.Home{Account: "bob", Site: site}
	for name, test := range map[string]struct {
		refuse string // as in CREATE TRIGGER
		call   func(context.Context, *sqlite.Store) error
	}{
		"PutBans": {`UPDATE ON bans WHEN old.network = '198.51.100.0/24'`, func(ctx context.Context, s *sqlite.Store) error {
			again, third := first, policy.Ban{Network: network("9.0.0.0/8")}
			again.Times = 2
			return s.PutBans(ctx, second, third, again)
		}},
		"RemoveBans": {`DELETE ON bans WHEN old.network = '198.51.100.0/24'`, func(ctx context.Context, s *sqlite.Store) error {
			return s.RemoveBans(ctx, first.Network, second.Network)
		}},
		"PutHomes": {`UPDATE ON homes WHEN old.account = 'bob'`, func(ctx context.Context, s *sqlite.Store) error {
			again, other := alice, bob
			again.Last, other.Last = time.Now(), time.Now()
			return s.PutHomes(ctx, other, again, policy.Home{Account: "aaron", Site: site})
		}},
		"RemoveAccount": {`DELETE ON homes WHEN old.account = 'alice'`, func(ctx context.Context, s *sqlite.Store) error {
			return s.RemoveAccount(ctx, "alice")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s := open(t, path)
			ctx := t.Context()
			must(t, errors.Join(
				s.PutAccount(ctx, auth.Account{Name: "alice"}), s.PutGrant(ctx, auth.Grant{ID: "g", Account: "alice"}),
				s.PutBans(ctx, first, second), s.PutHomes(ctx, alice, bob)))
			_, err := raw(t, path).Exec(`CREATE TRIGGER refuse BEFORE ` + test.refuse + ` BEGIN SELECT RAISE(ABORT, 'refused'); END`)
			must(t, err)
			if err := test.call(ctx, s); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("got %v, want what the trigger says", err)
			}
			in, err := s.SignIn(ctx, "alice")
			must(t, err)
			bans, err := s.Bans(ctx)
			must(t, err)
			homes, err := s.Homes(ctx, 10)
			must(t, err)
			if in.Account.Name != "alice" || len(in.Grants) != 1 || len(bans) != 2 || bans[0].Times != 1 ||
				len(homes) != 2 || !homes[0].Last.IsZero() {
				t.Errorf("half of it was done: %+v, %+v, %+v", in, bans, homes)
			}
		})
	}
}

// Whoever writes into the file without us is found out.
func TestTampering(t *testing.T) {
	for _, change := range []string{
		`UPDATE events SET detail = 'changed' WHERE id = 2`,
		`UPDATE events SET outcome = '', kind = 'loginrefused' WHERE id = 2`,
		`UPDATE events SET time = time + 1 WHERE id = 2`,
		`UPDATE events SET source = '192.0.2.2' WHERE id = 2`,
		`UPDATE events SET hash = '' WHERE id = 2`,
		`DELETE FROM events WHERE id = 1`,
		`DELETE FROM events WHERE id = 2`,
		`UPDATE events SET id = 9 WHERE id = 2`,
	} {
		path := filepath.Join(t.TempDir(), "a.db")
		s := open(t, path)
		must(t, s.Append(t.Context(), []audit.Event{
			{Kind: "login", Outcome: audit.Refused, Source: "192.0.2.1"},
			{Kind: "login", Outcome: audit.Refused, Source: "192.0.2.1"},
			{Kind: "login", Outcome: audit.Refused, Source: "192.0.2.1"},
		}))
		chained(t, s, 3)
		_, err := raw(t, path).Exec(change)
		must(t, err)
		events, err := s.Events(t.Context(), audit.Filter{})
		must(t, err)
		if _, err := storetest.Chained(audit.Hash{}, events); err == nil {
			t.Errorf("nobody noticed %s", change)
		}
	}
}

// A power cut leaves the file and its WAL as they are at some moment.
func TestRecordsSurviveACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	must(t, fill(t.Context(), open(t, path)))
	cut := filepath.Join(t.TempDir(), "b.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		must(t, err)
		must(t, os.WriteFile(cut+suffix, content, 0o600))
	}
	check(t, open(t, cut))
}

func TestTwoHandles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	stores := make([]*sqlite.Store, 2)
	var wg sync.WaitGroup
	for i := range stores { // both find an empty file, and migrate it
		wg.Go(func() {
			var err error
			if stores[i], err = sqlite.Open(t.Context(), path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range stores {
		if s == nil {
			t.FailNow()
		}
		defer s.Close()
	}
	must(t, stores[0].PutAccount(t.Context(), auth.Account{Name: "alice", TOTP: &auth.TOTP{ID: "t"}}))

	const steps = 50
	wins := make([][steps + 1]bool, len(stores)*2)
	for i := range wins {
		s := stores[i%len(stores)]
		wg.Go(func() {
			for step := int64(1); step <= steps; step++ {
				won, err := s.SpendStep(t.Context(), "t", step)
				if err != nil {
					t.Error(err)
				}
				wins[i][step] = won
				if err := s.Append(t.Context(), []audit.Event{{Kind: "login"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for step := 1; step <= steps; step++ {
		n := 0
		for i := range wins {
			if wins[i][step] {
				n++
			}
		}
		// None where another handle had got ahead to a later step.
		if n > 1 || step == steps && n != 1 {
			t.Errorf("step %d has %d winners", step, n)
		}
	}
	for _, s := range stores {
		chained(t, s, len(wins)*steps)
	}
}

// What counts at most, and what counts once, does so over several handles.
func TestTwoHandlesCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	stores := []*sqlite.Store{open(t, path), open(t, path)}
	tags := make([][]byte, 20)
	for i := range tags {
		tags[i] = []byte{byte(i)}
	}
	must(t, stores[0].PutAccount(t.Context(), auth.Account{Name: "alice", TOTP: &auth.TOTP{ID: "t"}}, tags...))
	var wins, added atomic.Int32
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			for j, tag := range tags {
				_, won, err := s.SpendRecovery(t.Context(), "t", tag, time.Now())
				if err != nil {
					t.Error(err)
				} else if won {
					wins.Add(1)
				}
				id := fmt.Sprint(i, " ", j)
				ok, err := s.AddAppPassword(t.Context(), auth.AppPassword{ID: id, Account: "alice", Tag: []byte(id)}, 10)
				if err != nil {
					t.Error(err)
				} else if ok {
					added.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if wins.Load() != 20 || added.Load() != 10 {
		t.Errorf("%d of 20 codes were won, %d of 10 app passwords added", wins.Load(), added.Load())
	}
}

// One of two processes gets a lease, whether nobody has it or it has just run out.
func TestTwoHandlesLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	stores := []*sqlite.Store{open(t, path), open(t, path)}
	const rounds = 50
	now := time.Now()
	var wins [rounds]atomic.Int32
	var wg sync.WaitGroup
	for i, s := range slices.Repeat(stores, 2) {
		wg.Go(func() {
			for round := range rounds {
				at := now.Add(time.Duration(round) * time.Minute)
				won, err := s.LeaseFile(t.Context(), "a", fmt.Sprint(round, " ", i), at, at.Add(time.Minute))
				if err != nil {
					t.Error(err)
				}
				if won {
					wins[round].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for round := range wins {
		// None where another handle had got ahead to a later round.
		if n := wins[round].Load(); n > 1 || round == rounds-1 && n != 1 {
			t.Errorf("round %d has %d winners", round, n)
		}
	}
}

func TestOpenWithCancelledContext(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Time{})
	defer cancel()
	if s, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "a.db")); err == nil {
		s.Close()
		t.Error("opened")
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
}

// Processes that find the same migrations pending apply them once.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	must(t, open(t, path).Close())
	other, err := raw(t, path).Conn(t.Context())
	must(t, err)
	defer other.Close()
	for _, statement := range []string{ // back to before the first migration
		`DROP TABLE certificate_files`, `DROP TABLE certificate_leases`, `DROP TABLE bans`, `DROP TABLE homes`, `DROP TABLE recovery_codes`, `DROP TABLE app_passwords`, `DROP TABLE authenticators`, `DROP TABLE accounts`, `DROP TABLE grants`, `DROP TABLE marks`, `DROP TABLE events`,
		`DELETE FROM imapwarden_schema WHERE version_id > 0`,
		`BEGIN IMMEDIATE`,
	} {
		_, err := other.ExecContext(t.Context(), statement)
		must(t, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(300 * time.Millisecond) // until all have seen what is pending, and wait to apply it
	_, err = other.ExecContext(t.Context(), `ROLLBACK`)
	must(t, err)
	wg.Wait()
}
