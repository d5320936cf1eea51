package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/bench/internal/rig"
	"imapwarden/store"
)

const (
	storeName = "store.db"
	keyName   = "master.key"

	past = "before" // detail of the events from before the run

	stepLength = 30 // seconds (RFC 6238)
)

// A person signs in.
type person struct {
	name        string
	appPassword string
	secret      string // of the authenticator, in base32; "": not enrolled

	mu   sync.Mutex
	step int64 // of the newest code that was used
}

// code returns one that wasn't used before, at once or after a wait of some seconds. The
// proxy takes those of the step before and after, so the step may change on the way.
func (p *person) code() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = max(p.step+1, time.Now().Unix()/stepLength)
	time.Sleep(time.Until(time.Unix((p.step-1)*stepLength, 0)))
	return hotp.GenerateCodeCustom(p.secret, uint64(p.step), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
}

// fill makes the store, and returns for each kind those who sign in so. They are spread over
// all accounts, so that the database can't keep all that they need at hand.
func fill(ctx context.Context, s settings) (map[kind][]*person, error) {
	// Each record is a transaction. In memory they wait for no disk.
	draft, err := os.MkdirTemp(memory(), "imapwarden-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(draft)
	people, err := fillStore(ctx, s, draft)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{storeName, keyName} {
		if err := copyFile(filepath.Join(s.folder, name), filepath.Join(draft, name)); err != nil {
			return nil, err
		}
	}
	return people, nil
}

// memory is a folder that is no disk, or "" where there is none.
func memory() string {
	const folder = "/dev/shm"
	if info, err := os.Stat(folder); err == nil && info.IsDir() {
		return folder
	}
	return ""
}

func fillStore(ctx context.Context, s settings, folder string) (_ map[kind][]*person, err error) {
	records, err := store.Open(ctx, "sqlite:"+filepath.Join(folder, storeName))
	if err != nil {
		return nil, err
	}
	defer func() { // which also folds the log into the file
		if closed := records.Close(); err == nil {
			err = closed
		}
	}()
	keys, err := auth.OpenKeys(ctx, filepath.Join(folder, keyName), records)
	if err != nil {
		return nil, err
	}
	if err := addEvents(ctx, records, s.events); err != nil {
		return nil, err
	}

	if err := addStrangers(ctx, filepath.Join(folder, storeName), s, keys.ID()); err != nil {
		return nil, err
	}
	return addPeople(ctx, &auth.Directory{Records: records, Keys: keys, Issuer: rig.Hostname}, s)
}

// addPeople puts those who sign in, in random order, in the place of strangers.
func addPeople(ctx context.Context, admin *auth.Directory, s settings) (map[kind][]*person, error) {
	people := make(map[kind][]*person)
	places := mathrand.Perm(s.accounts)
	for i := range s.rounds * s.logins {
		people[observed] = append(people[observed], &person{name: fmt.Sprintf("plain%06d@example.org", i)})
		for _, k := range kinds[1:] {
			p, err := addPerson(ctx, admin, fmt.Sprintf("user%06d@example.org", places[0]))
			if err != nil {
				return nil, err
			}
			people[k], places = append(people[k], p), places[1:]
		}
	}
	return people, nil
}

// addPerson makes an account with all that signing in needs.
func addPerson(ctx context.Context, admin *auth.Directory, name string) (*person, error) {
	replaced, err := admin.Show(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := admin.Remove(ctx, name); err != nil {
		return nil, err
	}
	enrolled, err := admin.Enroll(ctx, name, true)
	if err != nil {
		return nil, err
	}
	p := &person{name: name, secret: enrolled.Secret}
	for range max(replaced.AppPasswords, 1) {
		issued, err := admin.CreateAppPassword(ctx, auth.NewAppPassword{Account: name, Label: "Phone", Password: auth.Secret(password)})
		if err != nil {
			return nil, err
		}
		p.appPassword = issued.Password
	}
	return p, nil
}

// strangers are accounts of the same size that nobody signs in to: 400,000 transactions would
// take minutes, so these are a few statements. $1 is how many accounts, $2 now in
// microseconds, $3 the zero time, $4 how many app passwords, $5 the id of a key.
var strangers = []string{
	`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1)
	INSERT INTO accounts (name, created) SELECT printf('user%06d@example.org', i), $2 FROM n`,

	`INSERT INTO authenticators (id, account, sealed, created, confirmed, last_step)
	SELECT lower(hex(randomblob(16))), name, randomblob(64), $2, $2, 0 FROM accounts`,

	`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < 10)
	INSERT INTO recovery_codes (authenticator, tag, used) SELECT id, randomblob(32), $3 FROM authenticators, n`,

	`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $4)
	INSERT INTO app_passwords (id, account, label, tag, key_id, public, public_tag, sealed, stale, networks, read_only,
		created, expires, revoked, last_used, last_source, last_program)
	SELECT lower(hex(randomblob(8))), printf('user%06d@example.org', i % $1), 'Phone', randomblob(32), $5, randomblob(32),
		randomblob(32), randomblob(144), FALSE, '', FALSE, $2, $3, $3, $3, '', '' FROM n`,
}

func addStrangers(ctx context.Context, file string, s settings, keyID string) error {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	for _, statement := range strangers {
		if _, err := tx.ExecContext(ctx, statement, s.accounts, time.Now().UnixMicro(), time.Time{}.UnixMicro(), s.appPasswords, keyID); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// addEvents makes a past.
func addEvents(ctx context.Context, sink audit.Sink, n int) error {
	for n > 0 {
		batch := make([]audit.Event, min(n, 256))
		for i := range batch {
			batch[i] = audit.Event{
				Time: time.Now(), Kind: "login", Outcome: audit.Accepted, Session: rand.Text()[:16],
				Account: fmt.Sprintf("user%06d@example.org", n-i), Source: "192.0.2.1", Factor: string(auth.FactorGrant), Detail: past,
			}
		}
		if err := sink.Append(ctx, batch); err != nil {
			return err
		}
		n -= len(batch)
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
