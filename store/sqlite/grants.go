package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"imapwarden/auth"
)

const (
	grantColumns = `g.id, g.account, g.network, g.client, g.key_id, g.password_tag, g.created, g.expires, g.last_used`

	selectGrants = `SELECT ` + grantColumns + ` FROM grants g WHERE g.account = $1 ORDER BY g.created, g.id`

	putGrant = `INSERT INTO grants (id, account, network, client, key_id, password_tag, created, expires, last_used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (id) DO UPDATE SET account = excluded.account, network = excluded.network,
			client = excluded.client, key_id = excluded.key_id, password_tag = excluded.password_tag,
			created = excluded.created, expires = excluded.expires, last_used = excluded.last_used`

	touchGrant = `UPDATE grants SET last_used = $1 WHERE id = $2 AND last_used < $1`

	removeGrant  = `DELETE FROM grants WHERE account = $1 AND id = $2`
	removeGrants = `DELETE FROM grants WHERE account = $1 RETURNING id`
	purgeGrants  = `DELETE FROM grants WHERE expires < $1`
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
		var row grantRow
		if err := rows.Scan(row.columns()...); err != nil {
			return nil, s.failed(reading, err)
		}
		g, err := row.grant()
		if err != nil {
			return nil, s.failed(reading, err)
		}
		grants = append(grants, g)
	}
	return grants, s.failed(reading, rows.Err())
}

// A grantRow is one row of grants; in an outer join it may be none.
type grantRow struct {
	id, account, network, keyID sql.NullString
	client, passwordTag         []byte
	created, expires, used      sql.NullInt64
}

func (r *grantRow) columns() []any {
	return []any{&r.id, &r.account, &r.network, &r.client, &r.keyID, &r.passwordTag, &r.created, &r.expires, &r.used}
}

func (r *grantRow) grant() (auth.Grant, error) {
	g := auth.Grant{
		ID: r.id.String, Account: r.account.String, Client: r.client, KeyID: r.keyID.String, PasswordTag: r.passwordTag,
		Created: fromMicros(r.created.Int64), Expires: fromMicros(r.expires.Int64), LastUsed: fromMicros(r.used.Int64),
	}
	if err := g.Network.UnmarshalText([]byte(r.network.String)); err != nil {
		return auth.Grant{}, fmt.Errorf("grant %s: %w", g.ID, err)
	}
	return g, nil
}

// PutGrant creates the grant or replaces the one with its ID.
func (s *Store) PutGrant(ctx context.Context, g auth.Grant) error {
	return s.failed("writing a grant", execGrant(ctx, s.putGrant, g))
}

func (s *Store) putGrants(ctx context.Context, tx *sql.Tx, grants []auth.Grant) error {
	for _, g := range grants {
		if err := execGrant(ctx, tx.StmtContext(ctx, s.putGrant), g); err != nil {
			return err
		}
	}
	return nil
}

func execGrant(ctx context.Context, put *sql.Stmt, g auth.Grant) error {
	network, err := g.Network.MarshalText()
	if err != nil {
		return err
	}
	_, err = put.ExecContext(ctx, g.ID, g.Account, string(network), blob(g.Client), g.KeyID, blob(g.PasswordTag),
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
			if _, err := tx.ExecContext(ctx, touchGrant, micros(lastUsed[id]), id); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveGrants removes the named grants of the account, or all where none is named, and
// returns the IDs of those that it removed.
func (s *Store) RemoveGrants(ctx context.Context, account string, ids ...string) (removed []string, err error) {
	err = s.update(ctx, "removing grants", func(tx *sql.Tx) error {
		if len(ids) == 0 {
			removed, err = texts(tx.QueryContext(ctx, removeGrants, account))
			return err
		}
		for _, id := range ids {
			result, err := tx.ExecContext(ctx, removeGrant, account, id)
			if err != nil {
				return err
			}
			if known, err := changed(result); err != nil {
				return err
			} else if known {
				removed = append(removed, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// texts returns the one column of a query's rows.
func texts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var column []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		column = append(column, text)
	}
	return column, rows.Err()
}

// PurgeGrants removes those that expired before the given time.
func (s *Store) PurgeGrants(ctx context.Context, before time.Time) error {
	_, err := s.write.ExecContext(ctx, purgeGrants, micros(before))
	return s.failed("purging grants", err)
}
