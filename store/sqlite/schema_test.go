package sqlite

import (
	"context"
	"database/sql"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/policy"
)

// older makes a file of an older schema.
func older(t *testing.T, version int64) (path string, db *sql.DB) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	must(t, create(path))
	db, err := sql.Open("sqlite", path)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	provider, err := migrator(db)
	must(t, err)
	_, err = provider.UpTo(t.Context(), version)
	must(t, err)
	return path, db
}

// A file of the first version keeps what is in it.
func TestMigrateFromSchema1(t *testing.T) {
	path, db := older(t, 1)
	day := time.Date(2026, 11, 22, 19, 26, 30, 123456000, time.UTC)
	_, err := db.Exec(`
		INSERT INTO accounts VALUES ('alice', $1);
		INSERT INTO authenticators VALUES ('t', 'alice', x'00ff', $1, $1, 100);
		INSERT INTO grants VALUES ('g', 'alice', '192.0.2.0/24', x'0908', $1, $1, $1);
		INSERT INTO marks VALUES ('key', 'k1');
		INSERT INTO events VALUES (7, $1, 'login', 'accepted', 's', 'alice', '192.0.2.1',
			x'00000000000000000000ffffc0000201', 'Mail', 'code', '', '', '')`, day.UnixMicro())
	must(t, err)
	must(t, db.Close())

	s, err := Open(t.Context(), path)
	must(t, err)
	defer s.Close()
	a, err := s.Account(t.Context(), "alice")
	must(t, err)
	if a.TOTP == nil || a.TOTP.ID != "t" || string(a.TOTP.Sealed) != "\x00\xff" || a.TOTP.LastStep != 100 || !a.Created.Equal(day) {
		t.Errorf("the account came back as %+v with %+v", a, a.TOTP)
	}
	grants, err := s.Grants(t.Context(), "alice")
	must(t, err)
	if len(grants) != 1 || grants[0].ID != "g" || string(grants[0].PasswordTag) != "\x09\x08" ||
		grants[0].KeyID != "" || len(grants[0].Client) != 0 {
		t.Errorf("the grants came back as %+v", grants)
	}
	keys, err := s.TagKeys(t.Context())
	must(t, err)
	if !slices.Equal(keys, []string{""}) {
		t.Errorf("the keys in use are %q", keys)
	}
	known, err := s.PutRecovery(t.Context(), "t", [][]byte{{1}})
	if err != nil || !known {
		t.Errorf("an authenticator from before gets no recovery codes: %v, %v", known, err)
	}

	// The chain begins with the first new event.
	must(t, s.Append(t.Context(), []audit.Event{{Time: day, Kind: "login"}}))
	events, err := s.Events(t.Context(), audit.Filter{})
	must(t, err)
	if len(events) != 2 || events[0].ID != 7 || events[0].Account != "alice" || !events[0].Hash.IsZero() {
		t.Fatalf("the events came back as %+v", events)
	}
	if events[1].Hash != audit.Chain(audit.Hash{}, events[1]) {
		t.Error("the first new event doesn't begin the chain")
	}
	_, err = s.PurgeEvents(t.Context(), time.Time{}, 1)
	must(t, err)
	mark, err := s.Mark(t.Context(), audit.ChainMark)
	must(t, err)
	if want := audit.FormatMark(7, audit.Hash{}); mark != want {
		t.Errorf("the mark is %q, want %q", mark, want)
	}
}

// A file of the second version keeps what is in it, and remembers from then on.
func TestMigrateFromSchema2(t *testing.T) {
	path, db := older(t, 2)
	day := time.Date(2026, 11, 22, 19, 26, 30, 123456000, time.UTC)
	hash := audit.Chain(audit.Hash{}, audit.Event{Time: day, Kind: "login", Account: "alice"})
	_, err := db.Exec(`
		INSERT INTO accounts VALUES ('alice', $1);
		INSERT INTO authenticators VALUES ('t', 'alice', x'00ff', $1, $1, 100);
		INSERT INTO recovery_codes VALUES ('t', x'01', $2);
		INSERT INTO grants VALUES ('g', 'alice', '192.0.2.0/24', x'0908', $1, $1, $1, x'04', 'k1');
		INSERT INTO app_passwords VALUES ('p', 'alice', 'phone', x'01', 'k1', x'', x'', x'02', FALSE, '', FALSE, $1, $2, $2, $2, '', '');
		INSERT INTO events VALUES (7, $1, 'login', '', '', 'alice', '', NULL, '', '', '', '', '', $3)`, day.UnixMicro(), never, hash[:])
	must(t, err)
	must(t, db.Close())

	s, err := Open(t.Context(), path)
	must(t, err)
	defer s.Close()
	in, err := s.SignIn(t.Context(), "alice")
	must(t, err)
	if in.Account.TOTP == nil || in.Account.TOTP.LastStep != 100 || len(in.Grants) != 1 || in.Grants[0].KeyID != "k1" {
		t.Errorf("the account came back as %+v", in)
	}
	p, err := s.AppPassword(t.Context(), []byte{1})
	must(t, err)
	if p.ID != "p" || p.Label != "phone" {
		t.Errorf("the app password came back as %s, %q", p.ID, p.Label)
	}
	must(t, s.Append(t.Context(), []audit.Event{{Time: day, Kind: "login"}}))
	if report, err := audit.Verify(t.Context(), s, nil); err != nil || report.Broken != nil {
		t.Errorf("the chain doesn't go on: %+v, %v", report, err)
	}

	bans, err := s.Bans(t.Context())
	must(t, err)
	homes, err := s.Homes(t.Context(), 10)
	must(t, err)
	if len(bans) != 0 || len(homes) != 0 {
		t.Errorf("before there were any, there are %d bans and %d homes", len(bans), len(homes))
	}
	network := netip.MustParsePrefix("192.0.2.1/32")
	must(t, s.PutBans(t.Context(), policy.Ban{Network: network}))
	must(t, s.PutHomes(t.Context(), policy.Home{Account: "alice", Site: network}))
	must(t, s.RemoveAccount(t.Context(), "alice"))
	if homes, err := s.Homes(t.Context(), 10); err != nil || len(homes) != 0 {
		t.Errorf("an account that was removed has %d homes, %v", len(homes), err)
	}
}

// A file of the third version keeps what is in it, and has room for certificates from then on.
func TestMigrateFromSchema3(t *testing.T) {
	path, db := older(t, 3)
	_, err := db.Exec(`
		INSERT INTO accounts VALUES ('alice', $1);
		INSERT INTO bans VALUES ('192.0.2.0/24', 'failures', $1, $1, 1, 'b');
		INSERT INTO homes VALUES ('alice', FALSE, '192.0.2.1/32', $1)`, never)
	must(t, err)
	must(t, db.Close())

	s, err := Open(t.Context(), path)
	must(t, err)
	defer s.Close()
	bans, err := s.Bans(t.Context())
	must(t, err)
	homes, err := s.Homes(t.Context(), 10)
	must(t, err)
	if _, err := s.Account(t.Context(), "alice"); err != nil || len(bans) != 1 || bans[0].Detail != "b" || len(homes) != 1 {
		t.Errorf("the records came back as %+v and %+v, %v", bans, homes, err)
	}
	files, err := s.ListFiles(t.Context(), "")
	if err != nil || len(files) != 0 {
		t.Errorf("before there were any, there are the files %+v, %v", files, err)
	}
	must(t, s.SaveFile(t.Context(), certs.File{Name: "a"}))
	won, err := s.LeaseFile(t.Context(), "a", "one", time.Now(), time.Now())
	if err != nil || !won {
		t.Errorf("leased: %v, %v", won, err)
	}
}

// With 100,000 accounts nothing may be looked for from one end to the other.
func TestLookupsUseAnIndex(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
	must(t, err)
	defer s.Close()
	queries := []string{
		selectAccounts + ` WHERE a.name = $1`,
		selectAccounts + ` WHERE a.name > $1 ORDER BY a.name LIMIT $2`,
		spendStep, confirmStep, removeAuthenticator, removeAccount,
		selectRecovery, spendRecovery, countRecovery, removeRecovery, knowAuthenticator, reseal,
		selectSignIn, selectGrants, touchGrant, removeGrant, removeGrants, purgeGrants,
		selectAppPassword, selectAppPasswords, countAppPasswords, revokeAppPassword, sealAppPassword,
		staleAppPassword, retagAppPassword, useAppPassword, purgeRevoked, purgeExpired,
		selectMark, selectWays, removeEvents,
		removeBan, purgeBans, removeHomes, purgeHomes,
		loadFile, resealFile, removeFile, removeFileRange, selectFile, selectFileRange, releaseFile,
	}
	for _, f := range []audit.Filter{
		{After: 1},
		{Account: "alice"},
		{Source: netip.MustParsePrefix("2001:db8::/32")},
		{Since: time.Now()},
	} {
		for _, f.Oldest = range []bool{false, true} {
			query, _ := eventsQuery(f)
			queries = append(queries, query)
		}
	}
	for _, query := range queries {
		for _, step := range plan(t, s.write, query) {
			if strings.HasPrefix(step, "SCAN") && step != "SCAN one" && step != "SCAN CONSTANT ROW" { // one row
				t.Errorf("%s\nreads all: %s", query, step)
			}
			if strings.Contains(step, "(revoked=?") && query != selectTagKeys {
				t.Errorf("%s\nreads all that aren't revoked: %s", query, step)
			}
			if strings.Contains(step, "AUTOMATIC") {
				t.Errorf("%s\nmakes an index each time: %s", query, step)
			}
			if strings.Contains(step, "TEMP B-TREE") && !strings.Contains(query, "source_key") {
				t.Errorf("%s\nsorts: %s", query, step)
			}
		}
	}
	// Those that read along an index, or in the order of IDs, and stop soon; and all bans, which
	// are asked for at the start.
	for query, want := range map[string]string{
		selectWays:   "SEARCH events USING INDEX events_account (account>?)",
		selectNewest: "SCAN events",
		selectOldest: "SCAN events",
		selectCut:    "SCAN events",
		selectHomes:  "SCAN homes USING INDEX homes_last",
		selectBans:   "SCAN bans",
	} {
		if got := plan(t, s.write, query); !slices.Equal(got, []string{want}) {
			t.Errorf("%s\nis done by %q, want %q alone", query, got, want)
		}
	}
}

func plan(t *testing.T, db *sql.DB, query string) []string {
	t.Helper()
	args := make([]any, 0, 8)
	for strings.Contains(query, "$"+string(rune('1'+len(args)))) {
		args = append(args, 1)
	}
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		must(t, rows.Scan(&id, &parent, &unused, &detail))
		steps = append(steps, detail)
	}
	must(t, rows.Err())
	return steps
}

// Networks that can't be read must not become everywhere, nor a hash or a ban none.
func TestUnreadableIsAnError(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
	must(t, err)
	defer s.Close()
	_, err = s.AddAppPassword(t.Context(), auth.AppPassword{ID: "p", Account: "alice", Tag: []byte{1}}, 1)
	must(t, err)
	must(t, s.Append(t.Context(), []audit.Event{{Kind: "login"}}))
	if _, err := s.write.Exec(`UPDATE events SET hash = x'01'`); err == nil {
		t.Error("a hash of one octet was taken")
	}
	for _, test := range []struct {
		damage string
		read   func(context.Context) error
	}{
		{`UPDATE app_passwords SET networks = ','`, func(ctx context.Context) error { _, err := s.AppPassword(ctx, []byte{1}); return err }},
		{`UPDATE app_passwords SET networks = '192.0.2.0/24,x'`, func(ctx context.Context) error { _, err := s.AppPasswords(ctx, "alice"); return err }},
		{`UPDATE app_passwords SET networks = '', last_source = 'x'`, func(ctx context.Context) error { _, err := s.AppPassword(ctx, []byte{1}); return err }},
		{`PRAGMA ignore_check_constraints = 1; UPDATE events SET hash = x'01'`, func(ctx context.Context) error { _, err := s.Events(ctx, audit.Filter{}); return err }},
		{`SELECT 1`, func(ctx context.Context) error { return s.Append(ctx, []audit.Event{{}}) }},
		{`SELECT 1`, func(ctx context.Context) error { _, err := s.PurgeEvents(ctx, time.Now(), 1); return err }},
		{`INSERT INTO bans VALUES ('192.0.2.0', '', 0, 0, 1, '')`, func(ctx context.Context) error { _, err := s.Bans(ctx); return err }},
		{`UPDATE bans SET network = '192.0.2.1/24'`, func(ctx context.Context) error { _, err := s.Bans(ctx); return err }},
		{`UPDATE bans SET network = '192.0.2.0/24', until = 'never'`, func(ctx context.Context) error { _, err := s.Bans(ctx); return err }},
		{`INSERT INTO homes VALUES ('alice', FALSE, '', 0)`, func(ctx context.Context) error { _, err := s.Homes(ctx, 1); return err }},
		{`UPDATE homes SET site = '::ffff:192.0.2.1/128'`, func(ctx context.Context) error { _, err := s.Homes(ctx, 1); return err }},
		{`UPDATE homes SET site = '192.0.2.1/32', last = 'today'`, func(ctx context.Context) error { _, err := s.Homes(ctx, 1); return err }},
		{`DELETE FROM events; INSERT INTO marks VALUES ('audit-chain', '1 x')`, func(ctx context.Context) error { return s.Append(ctx, []audit.Event{{}}) }},
	} {
		_, err := s.write.Exec(test.damage)
		must(t, err)
		if err := test.read(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "sqlite: ") {
			t.Errorf("after %s: got %v, want an error", test.damage, err)
		}
	}
}
