package sqlite

import (
	"context"
	"database/sql"
	"time"

	"imapwarden/auth"
)

const (
	selectRecovery = `SELECT tag, used FROM recovery_codes WHERE authenticator = $1`

	spendRecovery = `UPDATE recovery_codes SET used = $1 WHERE authenticator = $2 AND tag = $3 AND used = $4`

	countRecovery = `SELECT count(*) FROM recovery_codes WHERE authenticator = $1 AND used = $2`

	removeRecovery = `DELETE FROM recovery_codes WHERE authenticator = $1`

	knowAuthenticator = `SELECT count(*) FROM authenticators WHERE id = $1`

	reseal = `UPDATE authenticators SET sealed = $1 WHERE id = $2 AND sealed = $3`
)

// RecoveryCodes returns those of the authenticator, used ones included.
func (s *Store) RecoveryCodes(ctx context.Context, totp string) ([]auth.RecoveryCode, error) {
	const reading = "reading recovery codes"
	rows, err := s.read.QueryContext(ctx, selectRecovery, totp)
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var codes []auth.RecoveryCode
	for rows.Next() {
		var c auth.RecoveryCode
		var used int64
		if err := rows.Scan(&c.Tag, &used); err != nil {
			return nil, s.failed(reading, err)
		}
		c.Used = fromMicros(used)
		codes = append(codes, c)
	}
	return codes, s.failed(reading, rows.Err())
}

// SpendRecovery sets Used of an unused recovery code, and with it puts the grants.
func (s *Store) SpendRecovery(ctx context.Context, totp string, tag []byte, at time.Time, grants ...auth.Grant) (left int, won bool, err error) {
	err = s.update(ctx, "spending a recovery code", func(tx *sql.Tx) error {
		spent, err := tx.ExecContext(ctx, spendRecovery, micros(at), totp, blob(tag), never)
		if err != nil {
			return err
		}
		if won, err = changed(spent); err != nil {
			return err
		}
		if won {
			if err := s.putGrants(ctx, tx, grants); err != nil {
				return err
			}
		}
		return tx.QueryRowContext(ctx, countRecovery, totp, never).Scan(&left)
	})
	if err != nil {
		return 0, false, err
	}
	return left, won, nil
}

// PutRecovery replaces the authenticator's recovery codes by unused ones.
func (s *Store) PutRecovery(ctx context.Context, totp string, tags [][]byte) (known bool, err error) {
	err = s.update(ctx, "replacing recovery codes", func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, knowAuthenticator, totp).Scan(&known); err != nil || !known {
			return err
		}
		if _, err := tx.ExecContext(ctx, removeRecovery, totp); err != nil {
			return err
		}
		return addRecovery(ctx, tx, totp, tags)
	})
	return known && err == nil, err
}

func addRecovery(ctx context.Context, tx *sql.Tx, totp string, tags [][]byte) error {
	for _, tag := range tags {
		_, err := tx.ExecContext(ctx, `INSERT INTO recovery_codes (authenticator, tag, used) VALUES ($1, $2, $3)
			ON CONFLICT (authenticator, tag) DO NOTHING`, totp, blob(tag), never)
		if err != nil {
			return err
		}
	}
	return nil
}

// Reseal replaces what is sealed of the authenticator where it still is old.
func (s *Store) Reseal(ctx context.Context, totp string, old, sealed []byte) (won bool, err error) {
	err = s.update(ctx, "resealing an authenticator", func(tx *sql.Tx) error {
		resealed, err := tx.ExecContext(ctx, reseal, blob(sealed), totp, blob(old))
		if err != nil {
			return err
		}
		won, err = changed(resealed)
		return err
	})
	return won && err == nil, err
}
