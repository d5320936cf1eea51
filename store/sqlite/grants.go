package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"imapwarden/auth"
)

const (
	selectGrants = `SELECT id, account, network, password_tag, created, expires, last_used
		FROM grants WHERE account = $1 ORDER BY created, id`

	putGrant = `INSERT INTO grants (id, account, network, password_tag, created, expires, last_used)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET account = excluded.account, network = excluded.network,
			password_tag = excluded.password_tag, created = excluded.created,
			expires = excluded.expires, last_used = excluded.last_used`
)

// Grants returns all grants of the account, oldest first.
func (s *Store) Grants(ctx context.Context, account string) ([]auth.Grant, error) {
	const reading = "reading grants"
	rows, err := s.grants.QueryContext(ctx, account)
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var grants []auth.Grant
	for rows.Next() {
		var g auth.Grant
		var network string
		var created, expires, used int64
		if err := rows.Scan(&g.ID, &g.Account, &network, &g.PasswordTag, &created, &expires, &used); err != nil {
			return nil, s.failed(reading, err)
		}
		if err := g.Network.UnmarshalText([]byte(network)); err != nil {
			return nil, s.failed(reading, fmt.Errorf("grant %s: %w", g.ID, err))
		}
		g.Created, g.Expires, g.LastUsed = fromMicros(created), fromMicros(expires), fromMicros(used)
		grants = append(grants, g)
	}
	return grants, s.failed(reading, rows.Err())
}

// PutGrant creates the grant or replaces the one with its ID.
func (s *Store) PutGrant(ctx context.Context, g auth.Grant) error {
	return s.failed("writing a grant", execGrant(ctx, s.putGrant, g))
}

func execGrant(ctx context.Context, put *sql.Stmt, g auth.Grant) error {
	network, err := g.Network.MarshalText()
	if err != nil {
		return err
	}
	_, err = put.ExecContext(ctx, g.ID, g.Account, string(network), blob(g.PasswordTag),
		micros(g.Created), micros(g.Expires), micros(g.LastUsed))
	return err
}

// TouchGrants sets LastUsed of each grant named, where that is later.
func (s *Store) TouchGrants(ctx context.Context, lastUsed map[string]time.Time) error {
	if len(lastUsed) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "noting the use of grants", func(tx *sql.Tx) error {
		// Always in the same order: where rows are locked one by one, two
		// transactions would otherwise wait for each other.
		for _, id := range slices.Sorted(maps.Keys(lastUsed)) {
			_, err := tx.ExecContext(ctx, `UPDATE grants SET last_used = $1 WHERE id = $2 AND last_used < $1`,
				micros(lastUsed[id]), id)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveGrants removes the named grants of the account, or all where none is named.
func (s *Store) RemoveGrants(ctx context.Context, account string, ids ...string) error {
	return s.update(ctx, "removing grants", func(tx *sql.Tx) error {
		if len(ids) == 0 {
			_, err := tx.ExecContext(ctx, `DELETE FROM grants WHERE account = $1`, account)
			return err
		}
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `DELETE FROM grants WHERE account = $1 AND id = $2`, account, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// PurgeGrants removes those that expired before the given time.
func (s *Store) PurgeGrants(ctx context.Context, before time.Time) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM grants WHERE expires < $1`, micros(before))
	return s.failed("purging grants", err)
}

// Mark returns the value under name, or "" where there is none.
func (s *Store) Mark(ctx context.Context, name string) (string, error) {
	var value string
	err := s.read.QueryRowContext(ctx, `SELECT value FROM marks WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, s.failed("reading a mark", err)
}

// SetMark creates or replaces it.
func (s *Store) SetMark(ctx context.Context, name, value string) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO marks (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return s.failed("writing a mark", err)
}
