package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

const (
	selectMark = `SELECT value FROM marks WHERE name = $1`

	setMark = `INSERT INTO marks (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`

	selectTagKeys = `SELECT key_id FROM grants UNION SELECT key_id FROM app_passwords WHERE revoked = $1`
)

// Mark returns the value under name, or "" where there is none.
func (s *Store) Mark(ctx context.Context, name string) (string, error) {
	var value string
	err := s.read.QueryRowContext(ctx, selectMark, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, s.failed("reading a mark", err)
}

// SetMark creates or replaces it.
func (s *Store) SetMark(ctx context.Context, name, value string) error {
	_, err := s.write.ExecContext(ctx, setMark, name, value)
	return s.failed("writing a mark", err)
}

// TagKeys returns the KeyID of every grant, and of every app password that isn't revoked,
// each once. It reads all grants, so it is nothing for each login.
func (s *Store) TagKeys(ctx context.Context) ([]string, error) {
	keys, err := texts(s.read.QueryContext(ctx, selectTagKeys, never))
	return keys, s.failed("reading which keys are in use", err)
}
