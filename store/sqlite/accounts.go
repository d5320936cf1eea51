package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"imapwarden/auth"
)

const (
	selectAccounts = `SELECT a.name, a.created, t.id, t.sealed, t.created, t.confirmed, t.last_step
		FROM accounts a LEFT JOIN authenticators t ON t.account = a.name`

	removeAccount       = `DELETE FROM accounts WHERE name = $1`
	removeAuthenticator = `DELETE FROM authenticators WHERE account = $1`

	spendStep   = `UPDATE authenticators SET last_step = $1 WHERE id = $2 AND last_step < $1`
	confirmStep = `UPDATE authenticators SET last_step = $1, confirmed = $2 WHERE id = $3 AND last_step < $1`
)

// Account returns the record of that name, or auth.ErrNoAccount.
func (s *Store) Account(ctx context.Context, name string) (auth.Account, error) {
	a, err := scanAccount(s.account.QueryRowContext(ctx, name))
	if errors.Is(err, sql.ErrNoRows) {
		return auth.Account{}, auth.ErrNoAccount
	}
	return a, s.failed("reading an account", err)
}

// Accounts returns at most limit records whose names come after the given one,
// by name, octet by octet.
func (s *Store) Accounts(ctx context.Context, after string, limit int) ([]auth.Account, error) {
	const reading = "listing accounts"
	rows, err := s.read.QueryContext(ctx, selectAccounts+` WHERE a.name > $1 ORDER BY a.name LIMIT $2`, after, max(limit, 0))
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var accounts []auth.Account
	for rows.Next() {
		a, err := scanAccount(rows)
		if err != nil {
			return nil, s.failed(reading, err)
		}
		accounts = append(accounts, a)
	}
	return accounts, s.failed(reading, rows.Err())
}

// A scanner is a *sql.Row or the current one of *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func scanAccount(row scanner) (auth.Account, error) {
	var r accountRow
	if err := row.Scan(r.columns()...); err != nil {
		return auth.Account{}, err
	}
	return r.account(), nil
}

// An accountRow is one of accounts with its authenticator, if it has one; in an outer join it
// may be none.
type accountRow struct {
	name, id                        sql.NullString
	created, begun, confirmed, step sql.NullInt64
	sealed                          []byte
}

func (r *accountRow) columns() []any {
	return []any{&r.name, &r.created, &r.id, &r.sealed, &r.begun, &r.confirmed, &r.step}
}

func (r *accountRow) account() auth.Account {
	a := auth.Account{Name: r.name.String, Created: fromMicros(r.created.Int64)}
	if r.id.Valid {
		a.TOTP = &auth.TOTP{
			ID:        r.id.String,
			Sealed:    r.sealed,
			Created:   fromMicros(r.begun.Int64),
			Confirmed: fromMicros(r.confirmed.Int64),
			LastStep:  r.step.Int64,
		}
	}
	return a
}

// PutAccount creates the record or replaces it whole, its authenticator and that one's
// recovery codes included.
func (s *Store) PutAccount(ctx context.Context, a auth.Account, recovery ...[]byte) error {
	return s.update(ctx, "writing an account", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO accounts (name, created) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET created = excluded.created`, a.Name, micros(a.Created))
		if err != nil {
			return err
		}
		// Also one of the same ID: its recovery codes go with it.
		if _, err := tx.ExecContext(ctx, removeAuthenticator, a.Name); err != nil {
			return err
		}
		if a.TOTP == nil {
			if len(recovery) > 0 {
				return errors.New("recovery codes need an authenticator")
			}
			return nil
		}
		t := a.TOTP
		_, err = tx.ExecContext(ctx, `INSERT INTO authenticators (id, account, sealed, created, confirmed, last_step)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			t.ID, a.Name, blob(t.Sealed), micros(t.Created), micros(t.Confirmed), t.LastStep)
		if err != nil {
			return err
		}
		return addRecovery(ctx, tx, t.ID, recovery)
	})
}

// RemoveAccount removes the record, its grants, app passwords and homes, or says auth.ErrNoAccount.
func (s *Store) RemoveAccount(ctx context.Context, name string) error {
	known := false
	err := s.update(ctx, "removing an account", func(tx *sql.Tx) error {
		removed, err := tx.ExecContext(ctx, removeAccount, name) // with all that refers to it
		if err != nil {
			return err
		}
		if known, err = changed(removed); err != nil || !known {
			return err
		}
		for _, remove := range []string{`DELETE FROM grants WHERE account = $1`, removeHomes} {
			if _, err := tx.ExecContext(ctx, remove, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !known {
		return auth.ErrNoAccount
	}
	return err
}

// SpendStep sets LastStep where it is older than step, and with it puts the grants.
func (s *Store) SpendStep(ctx context.Context, totp string, step int64, grants ...auth.Grant) (won bool, err error) {
	err = s.update(ctx, "spending a code", func(tx *sql.Tx) error {
		spent, err := tx.StmtContext(ctx, s.spend).ExecContext(ctx, step, totp)
		if err != nil {
			return err
		}
		if won, err = changed(spent); err != nil || !won {
			return err
		}
		return s.putGrants(ctx, tx, grants)
	})
	return won && err == nil, err
}

// Confirm is SpendStep that also sets Confirmed.
func (s *Store) Confirm(ctx context.Context, totp string, step int64, at time.Time) (won bool, err error) {
	err = s.update(ctx, "confirming an authenticator", func(tx *sql.Tx) error {
		confirmed, err := tx.ExecContext(ctx, confirmStep, step, micros(at), totp)
		if err != nil {
			return err
		}
		won, err = changed(confirmed)
		return err
	})
	return won && err == nil, err
}

func changed(result sql.Result) (bool, error) {
	n, err := result.RowsAffected()
	return n > 0, err
}
