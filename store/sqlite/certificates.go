package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"imapwarden/certs"
)

const (
	saveFile = `INSERT INTO certificate_files (name, value, modified, size) VALUES ($1, $2, $3, $4)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value, modified = excluded.modified, size = excluded.size`

	loadFile = `SELECT name, value, modified, size FROM certificate_files WHERE name = $1`

	resealFile = `UPDATE certificate_files SET value = $1 WHERE name = $2 AND value = $3`

	// Without LIKE, for which names would have to be quoted: what begins with "a/" stands
	// from there to before "a0", the slash being followed by the zero.
	removeFile      = `DELETE FROM certificate_files WHERE name = $1`
	removeFileRange = `DELETE FROM certificate_files WHERE name >= $1 AND name < $2`
	selectFile      = `SELECT name, modified, size FROM certificate_files WHERE name = $1`
	selectFileRange = `SELECT name, modified, size FROM certificate_files WHERE name >= $1 AND name < $2 ORDER BY name`

	removeAllFiles = `DELETE FROM certificate_files`
	selectAllFiles = `SELECT name, modified, size FROM certificate_files ORDER BY name`

	leaseFile = `INSERT INTO certificate_leases (name, holder, until) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
		WHERE certificate_leases.holder = excluded.holder OR certificate_leases.until <= $4`

	releaseFile = `DELETE FROM certificate_leases WHERE name = $1 AND holder = $2`
)

// SaveFile creates the file, or replaces the one of its name.
func (s *Store) SaveFile(ctx context.Context, f certs.File) error {
	_, err := s.write.ExecContext(ctx, saveFile, f.Name, blob(f.Value), micros(f.Modified), f.Size)
	return s.failed("writing a file of certificates", err)
}

// LoadFile returns the file of that name, or certs.ErrNoFile.
func (s *Store) LoadFile(ctx context.Context, name string) (certs.File, error) {
	var f certs.File
	var modified int64
	err := s.read.QueryRowContext(ctx, loadFile, name).Scan(&f.Name, &f.Value, &modified, &f.Size)
	if errors.Is(err, sql.ErrNoRows) {
		return certs.File{}, certs.ErrNoFile
	}
	if err != nil {
		return certs.File{}, s.failed("reading a file of certificates", err)
	}
	f.Modified = fromMicros(modified)
	return f, nil
}

// ResealFile replaces the value where it still is old, and leaves all else of the file.
func (s *Store) ResealFile(ctx context.Context, name string, old, sealed []byte) (won bool, err error) {
	result, err := s.write.ExecContext(ctx, resealFile, blob(sealed), name, blob(old))
	return s.changedOne("sealing a file of certificates anew", result, err)
}

// changedOne says whether the statement found the one row that it was for.
func (s *Store) changedOne(doing string, result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, s.failed(doing, err)
	}
	n, err := result.RowsAffected()
	return n == 1, s.failed(doing, err)
}

// DeleteFiles removes the file of that name, and all below it.
func (s *Store) DeleteFiles(ctx context.Context, name string) error {
	return s.update(ctx, "removing files of certificates", func(tx *sql.Tx) error {
		if name == "" {
			_, err := tx.ExecContext(ctx, removeAllFiles)
			return err
		}
		if _, err := tx.ExecContext(ctx, removeFile, name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, removeFileRange, name+"/", name+"0")
		return err
	})
}

// ListFiles returns the file of that name and all below it, by name, without their values.
func (s *Store) ListFiles(ctx context.Context, name string) ([]certs.File, error) {
	const listing = "listing files of certificates"
	if name == "" {
		files, err := scanFiles(s.read.QueryContext(ctx, selectAllFiles))
		return files, s.failed(listing, err)
	}
	files, err := scanFiles(s.read.QueryContext(ctx, selectFile, name))
	if err != nil {
		return nil, s.failed(listing, err)
	}
	below, err := scanFiles(s.read.QueryContext(ctx, selectFileRange, name+"/", name+"0"))
	return append(files, below...), s.failed(listing, err)
}

func scanFiles(rows *sql.Rows, err error) ([]certs.File, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var files []certs.File
	for rows.Next() {
		var f certs.File
		var modified int64
		if err := rows.Scan(&f.Name, &modified, &f.Size); err != nil {
			return nil, err
		}
		f.Modified = fromMicros(modified)
		files = append(files, f)
	}
	return files, rows.Err()
}

// LeaseFile gives the holder the lease of that name, unless another's still runs.
func (s *Store) LeaseFile(ctx context.Context, name, holder string, now, until time.Time) (won bool, err error) {
	result, err := s.write.ExecContext(ctx, leaseFile, name, holder, micros(until), micros(now))
	return s.changedOne("leasing a name of certificates", result, err)
}

// ReleaseFile ends the lease where it is the holder's.
func (s *Store) ReleaseFile(ctx context.Context, name, holder string) error {
	_, err := s.write.ExecContext(ctx, releaseFile, name, holder)
	return s.failed("releasing a name of certificates", err)
}
