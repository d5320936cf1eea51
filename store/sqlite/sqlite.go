// Package sqlite keeps records and audit events in one SQLite file, for one
// machine. It owns the file, its schema and its durability: a write that
// returned without error survives a crash and a power cut (WAL, synchronous=FULL).
// It knows nothing of what the records mean.
//
// A Store is safe for concurrent use. Several may be open on the same file, in
// one process or in many: writers queue for up to five seconds, readers never
// wait. The statements keep to what PostgreSQL understands as well ($n, ON
// CONFLICT). Times are kept as microseconds and come back in UTC.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versionTable is where goose writes down the schema's version, and how we
// know our files from those of other programs.
const versionTable = "imapwarden_schema"

// A Store is an open file.
type Store struct {
	path string

	// SQLite has one writer at a time. One connection for writing lets ours queue
	// in Go, where the wait is fair and ends with the context.
	write, read *sql.DB

	// Statements of each login, prepared once.
	account, signIn, grants, appPassword, appPasswords *sql.Stmt
	spend, putGrant, newest, insert                    *sql.Stmt
}

// Open opens the file at path and brings its schema up to date. A file that
// isn't there is made, readable by its owner alone; its folder must exist.
func Open(ctx context.Context, path string) (*Store, error) {
	if path == "" {
		return nil, errors.New("sqlite: no file is named: write sqlite:PATH")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: finding the store: %w", err)
	}
	if err := create(path); err != nil {
		return nil, err
	}
	s := &Store{path: path}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// create makes the file where there is none. SQLite would make it readable for
// all; the -wal and -shm files beside it get the mode of the file itself.
func create(path string) error {
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sqlite: the folder %s doesn't exist: create it, writable only by the user that imapwarden runs as", dir)
	} else if err == nil && !info.IsDir() {
		return fmt.Errorf("sqlite: %s is not a folder: name another file for the store", dir)
	}
	// O_EXCL: a file that is there must not be opened here, for closing it would
	// drop the locks that this process holds on it (POSIX, fcntl).
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		return file.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("sqlite: creating the store: %w", err)
	}
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("sqlite: opening the store: %w", err)
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("sqlite: %s is not a file: name another one for the store", path)
	}
	return nil
}

// open connects readers first: nothing is written to a file that isn't ours.
func (s *Store) open(ctx context.Context) error {
	var err error
	if s.read, err = connect(s.path, 4, url.Values{"_query_only": {"1"}}); err != nil {
		return s.failed("opening it", err)
	}
	if err := s.inspect(ctx); err != nil {
		return err
	}
	if s.write, err = connect(s.path, 1, url.Values{
		"_auto_vacuum":  {"INCREMENTAL"}, // of a new file; PurgeEvents does it
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_txlock":       {"immediate"}, // one that reads, then writes, can't fail half-way for another writer
	}); err != nil {
		return s.failed("opening it", err)
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.prepare(ctx)
}

// connect returns a pool of up to n connections that are kept open.
func connect(path string, n int, settings url.Values) (*sql.DB, error) {
	settings.Set("_busy_timeout", "5000") // milliseconds
	settings.Set("_dqs", "0")             // a mistyped column is an error, not a string
	settings.Set("_defensive", "1")
	settings.Set("_error_rc", "1")
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + settings.Encode()
	connector, err := driver.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// inspect refuses files of other programs and of newer versions of this one.
func (s *Store) inspect(ctx context.Context) error {
	const reading = "reading its schema"
	var tables, ours int
	err := s.read.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(name = $1), 0) FROM sqlite_master`, versionTable).Scan(&tables, &ours)
	if err != nil {
		return s.failed(reading, err)
	}
	if ours == 0 {
		if tables > 0 {
			return fmt.Errorf("sqlite: %s belongs to another program: name another file for the store", s.path)
		}
		return nil
	}
	var version int64
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&version)
	if err != nil {
		return s.failed(reading, err)
	}
	provider, err := migrator(s.read)
	if err != nil {
		return err
	}
	known := provider.ListSources()
	if newest := known[len(known)-1].Version; version > newest {
		return fmt.Errorf("sqlite: %s has schema %d, written by a newer imapwarden; this one knows schemas up to %d: start the newer one, or restore the copy made before the upgrade",
			s.path, version, newest)
	}
	return nil
}

// migrate applies what the file lacks. Another process may be doing the same:
// who comes second fails at what is there already, and so looks again for as
// long as the version moves.
func (s *Store) migrate(ctx context.Context) error {
	provider, err := migrator(s.write)
	if err != nil {
		return err
	}
	for last := int64(-1); ; {
		_, err := provider.Up(ctx)
		if err == nil {
			return nil
		}
		version, versionErr := provider.GetDBVersion(ctx)
		if versionErr != nil || version == last {
			return s.failed("bringing its schema up to date", err)
		}
		last = version
	}
}

func migrator(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading the migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading the migrations: %w", err)
	}
	return provider, nil
}

func (s *Store) prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt  **sql.Stmt
		db    *sql.DB
		query string
	}{
		{&s.account, s.read, selectAccounts + ` WHERE a.name = $1`},
		{&s.signIn, s.read, selectSignIn},
		{&s.grants, s.read, selectGrants},
		{&s.appPassword, s.read, selectAppPassword},
		{&s.appPasswords, s.read, selectAppPasswords},
		{&s.spend, s.write, spendStep},
		{&s.putGrant, s.write, putGrant},
		{&s.newest, s.write, selectNewest},
		{&s.insert, s.write, insertEvent},
	} {
		var err error
		if *p.stmt, err = p.db.PrepareContext(ctx, p.query); err != nil {
			return s.failed("preparing statements", err)
		}
	}
	return nil
}

// Close ends all use of the file; the writer comes last and folds the WAL into it.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return s.failed("closing it", errors.Join(errs...))
}

// update runs change in a transaction of its own: all of it is written, or nothing.
func (s *Store) update(ctx context.Context, doing string, change func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.failed(doing, err)
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := change(tx); err != nil {
		return s.failed(doing, err)
	}
	return s.failed(doing, tx.Commit())
}

// failed says what happened to which file, and what can be done about it.
func (s *Store) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	advice := ""
	if e, ok := errors.AsType[*driver.Error](err); ok {
		switch e.Code() & 0xff { // the low byte is the primary code
		case codes.SQLITE_NOTADB:
			advice = ": it is not a SQLite database, or a damaged one: restore it from a copy, or name another file for the store"
		case codes.SQLITE_CORRUPT:
			advice = ": it is damaged: restore it from a copy"
		case codes.SQLITE_CANTOPEN, codes.SQLITE_READONLY, codes.SQLITE_PERM:
			advice = ": the user that imapwarden runs as must be able to write the file and its folder"
		case codes.SQLITE_BUSY:
			advice = ": another process keeps it locked"
		case codes.SQLITE_FULL:
			advice = ": its disk is full: make room"
		case codes.SQLITE_IOERR:
			advice = ": its disk can't be read or written: see what the kernel's log says of it"
		}
	}
	return fmt.Errorf("sqlite: %s: %s%s: %w", s.path, doing, advice, err)
}

// micros is how times are kept. The zero time survives the journey.
func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }

// never is the zero time, as it is kept.
var never = micros(time.Time{})

// blob never is NULL, as a nil slice would be.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
