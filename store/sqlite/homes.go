package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"imapwarden/policy"
)

const (
	selectHomes = `SELECT account, app_password, site, last FROM homes ORDER BY last DESC LIMIT $1`

	putHome = `INSERT INTO homes (account, app_password, site, last) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, app_password, site) DO UPDATE SET last = excluded.last WHERE homes.last < excluded.last`

	removeHomes = `DELETE FROM homes WHERE account = $1`
	purgeHomes  = `DELETE FROM homes WHERE (account, app_password, site) IN
		(SELECT account, app_password, site FROM homes WHERE last < $1 LIMIT $2)`
)

// Homes returns at most limit homes, the latest Last first.
func (s *Store) Homes(ctx context.Context, limit int) ([]policy.Home, error) {
	const reading = "reading homes"
	rows, err := s.read.QueryContext(ctx, selectHomes, max(limit, 0))
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var homes []policy.Home
	for rows.Next() {
		h, err := scanHome(rows)
		if err != nil {
			return nil, s.failed(reading, err)
		}
		homes = append(homes, h)
	}
	return homes, s.failed(reading, rows.Err())
}

func scanHome(row scanner) (policy.Home, error) {
	var h policy.Home
	var site string
	var last int64
	err := row.Scan(&h.Account, &h.AppPassword, &site, &last)
	if err != nil {
		return policy.Home{}, err
	}
	if h.Site, err = parseMasked(site); err != nil {
		return policy.Home{}, fmt.Errorf("a home of %q: %w", h.Account, err)
	}
	h.Last = fromMicros(last)
	return h, nil
}

// PutHomes creates homes, or sets their Last where it is later; all of them, or none.
func (s *Store) PutHomes(ctx context.Context, homes ...policy.Home) error {
	if len(homes) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "writing homes", func(tx *sql.Tx) error {
		put, err := tx.PrepareContext(ctx, putHome)
		if err != nil {
			return err
		}
		defer put.Close()
		for _, h := range slices.SortedFunc(slices.Values(homes), byPlace) { // in one order, see TouchGrants
			site, err := formatMasked(h.Site)
			if err != nil {
				return fmt.Errorf("a home of %q: %w", h.Account, err)
			}
			if _, err := put.ExecContext(ctx, h.Account, h.AppPassword, site, micros(h.Last)); err != nil {
				return err
			}
		}
		return nil
	})
}

func byPlace(a, b policy.Home) int {
	kind := 0
	if a.AppPassword != b.AppPassword {
		if kind = -1; a.AppPassword {
			kind = 1
		}
	}
	return cmp.Or(cmp.Compare(a.Account, b.Account), kind, a.Site.Compare(b.Site))
}
