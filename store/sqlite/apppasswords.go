package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"imapwarden/auth"
)

const (
	appPasswordColumns = `id, account, label, tag, key_id, public, public_tag, sealed, stale, networks, read_only,
		created, expires, revoked, last_used, last_source, last_program`

	selectAppPassword = `SELECT ` + appPasswordColumns + ` FROM app_passwords WHERE tag = $1`

	selectAppPasswords = `SELECT ` + appPasswordColumns + ` FROM app_passwords WHERE account = $1 ORDER BY created, id`

	countAppPasswords = `SELECT count(*) FROM app_passwords
		WHERE account = $1 AND +revoked = $2 AND (expires = $2 OR expires > $3)`

	revokeAppPassword = `UPDATE app_passwords SET revoked = $1, public = $2, sealed = $2
		WHERE account = $3 AND id = $4 AND revoked = $5`

	sealAppPassword = `UPDATE app_passwords SET sealed = $1, stale = FALSE WHERE account = $2 AND id = $3 AND revoked = $4`

	staleAppPassword = `UPDATE app_passwords SET stale = TRUE WHERE id = $1 AND sealed = $2`

	retagAppPassword = `UPDATE app_passwords SET tag = $1, public_tag = $2, key_id = $3 WHERE id = $4`

	useAppPassword = `UPDATE app_passwords SET last_used = $1, last_source = $2, last_program = $3
		WHERE id = $4 AND last_used < $1`

	purgeRevoked = `DELETE FROM app_passwords WHERE revoked > $1 AND revoked < $2`
	purgeExpired = `DELETE FROM app_passwords WHERE expires > $1 AND expires < $2`
)

// AppPassword returns the one with that tag, or auth.ErrNoAppPassword.
func (s *Store) AppPassword(ctx context.Context, tag []byte) (auth.AppPassword, error) {
	p, err := scanAppPassword(s.appPassword.QueryRowContext(ctx, blob(tag)))
	if errors.Is(err, sql.ErrNoRows) {
		return auth.AppPassword{}, auth.ErrNoAppPassword
	}
	return p, s.failed("reading an app password", err)
}

// AppPasswords returns all of the account, oldest first.
func (s *Store) AppPasswords(ctx context.Context, account string) ([]auth.AppPassword, error) {
	const reading = "reading app passwords"
	rows, err := s.appPasswords.QueryContext(ctx, account)
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var list []auth.AppPassword
	for rows.Next() {
		p, err := scanAppPassword(rows)
		if err != nil {
			return nil, s.failed(reading, err)
		}
		list = append(list, p)
	}
	return list, s.failed(reading, rows.Err())
}

// scanAppPassword returns nothing but an error where a part is unreadable: without
// its networks, an app password would be for everywhere.
func scanAppPassword(row scanner) (auth.AppPassword, error) {
	var p auth.AppPassword
	var networks, source string
	var created, expires, revoked, used int64
	err := row.Scan(&p.ID, &p.Account, &p.Label, &p.Tag, &p.KeyID, &p.Public, &p.PublicTag, &p.Sealed, &p.Stale, &networks, &p.ReadOnly,
		&created, &expires, &revoked, &used, &source, &p.LastUse.Program)
	if err != nil {
		return auth.AppPassword{}, err
	}
	if p.Networks, err = parseNetworks(networks); err != nil {
		return auth.AppPassword{}, fmt.Errorf("app password %s: %w", p.ID, err)
	}
	if err := p.LastUse.Source.UnmarshalText([]byte(source)); err != nil {
		return auth.AppPassword{}, fmt.Errorf("app password %s: %w", p.ID, err)
	}
	p.Created, p.Expires, p.Revoked = fromMicros(created), fromMicros(expires), fromMicros(revoked)
	p.LastUse.Time = fromMicros(used)
	return p, nil
}

// AddAppPassword creates it, and the account's record where there is none, unless the
// account has most already.
func (s *Store) AddAppPassword(ctx context.Context, p auth.AppPassword, most int) (added bool, err error) {
	const adding = "adding an app password"
	networks, err := formatNetworks(p.Networks)
	if err != nil {
		return false, s.failed(adding, err)
	}
	err = s.update(ctx, adding, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, countAppPasswords, p.Account, never, micros(p.Created)).Scan(&n); err != nil || n >= most {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO accounts (name, created) VALUES ($1, $2)
			ON CONFLICT (name) DO NOTHING`, p.Account, micros(p.Created))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO app_passwords (`+appPasswordColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
			p.ID, p.Account, p.Label, blob(p.Tag), p.KeyID, blob(p.Public), blob(p.PublicTag), blob(p.Sealed), p.Stale, networks, p.ReadOnly,
			micros(p.Created), micros(p.Expires), micros(p.Revoked),
			micros(p.LastUse.Time), address(p.LastUse.Source), p.LastUse.Program)
		added = err == nil
		return err
	})
	return added && err == nil, err
}

// RevokeAppPassword sets Revoked and takes Public and Sealed away.
func (s *Store) RevokeAppPassword(ctx context.Context, account, id string, at time.Time) (known bool, err error) {
	err = s.update(ctx, "revoking an app password", func(tx *sql.Tx) error {
		revoked, err := tx.ExecContext(ctx, revokeAppPassword, micros(at), []byte{}, account, id, never)
		if err != nil {
			return err
		}
		known, err = changed(revoked)
		return err
	})
	return known && err == nil, err
}

// SealAppPasswords sets Sealed, by ID, and clears Stale; those that are revoked meanwhile
// stay as they are.
func (s *Store) SealAppPasswords(ctx context.Context, account string, sealed map[string][]byte) error {
	if len(sealed) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "sealing app passwords", func(tx *sql.Tx) error {
		for _, id := range slices.Sorted(maps.Keys(sealed)) { // in one order, see TouchGrants
			if _, err := tx.ExecContext(ctx, sealAppPassword, blob(sealed[id]), account, id, never); err != nil {
				return err
			}
		}
		return nil
	})
}

// StaleAppPassword sets Stale where Sealed still is what was tried.
func (s *Store) StaleAppPassword(ctx context.Context, id string, tried []byte) error {
	_, err := s.write.ExecContext(ctx, staleAppPassword, id, blob(tried))
	return s.failed("noting a stale app password", err)
}

// RetagAppPassword sets Tag, PublicTag and KeyID.
func (s *Store) RetagAppPassword(ctx context.Context, id string, tag, publicTag []byte, keyID string) error {
	_, err := s.write.ExecContext(ctx, retagAppPassword, blob(tag), blob(publicTag), keyID, id)
	return s.failed("retagging an app password", err)
}

// UseAppPasswords sets LastUse of each app password named, where that is later.
func (s *Store) UseAppPasswords(ctx context.Context, uses map[string]auth.Use) error {
	if len(uses) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "noting the use of app passwords", func(tx *sql.Tx) error {
		for _, id := range slices.Sorted(maps.Keys(uses)) { // in one order, see TouchGrants
			u := uses[id]
			if _, err := tx.ExecContext(ctx, useAppPassword, micros(u.Time), address(u.Source), u.Program, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// PurgeAppPasswords removes those that were revoked or expired before the given time.
func (s *Store) PurgeAppPasswords(ctx context.Context, before time.Time) error {
	return s.update(ctx, "purging app passwords", func(tx *sql.Tx) error {
		for _, purge := range []string{purgeRevoked, purgeExpired} {
			if _, err := tx.ExecContext(ctx, purge, never, micros(before)); err != nil {
				return err
			}
		}
		return nil
	})
}

// formatNetworks refuses what is no network: as nothing it would come back as everywhere.
func formatNetworks(networks []netip.Prefix) (string, error) {
	texts := make([]string, len(networks))
	for i, p := range networks {
		if !p.IsValid() {
			return "", errors.New("one of its networks is none")
		}
		texts[i] = p.String()
	}
	return strings.Join(texts, ","), nil
}

func parseNetworks(text string) ([]netip.Prefix, error) {
	if text == "" {
		return nil, nil
	}
	var networks []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, err
		}
		networks = append(networks, p)
	}
	return networks, nil
}

// address is "" for the zero Addr, as UnmarshalText reads it.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
