package sqlite

import (
	"cmp"
	"context"
	"slices"

	"imapwarden/auth"
)

// selectSignIn is one statement for what each login asks: each one more costs as much again. There
// is a row for each grant, or one without. The plus keeps SQLite from an index by which it would
// read all app passwords that aren't revoked.
const selectSignIn = `SELECT a.name, a.created, t.id, t.sealed, t.created, t.confirmed, t.last_step,
		EXISTS (SELECT 1 FROM app_passwords p WHERE p.account = $1 AND +p.revoked = $2 AND (length(p.sealed) = 0 OR p.stale)),
		` + grantColumns + `
	FROM (SELECT 1) one
	LEFT JOIN accounts a ON a.name = $1
	LEFT JOIN authenticators t ON t.account = $1
	LEFT JOIN grants g ON g.account = $1`

// SignIn returns what a login needs to know of the account.
func (s *Store) SignIn(ctx context.Context, name string) (in auth.SignIn, err error) {
	const reading = "reading an account"
	rows, err := s.signIn.QueryContext(ctx, name, never)
	if err != nil {
		return auth.SignIn{}, s.failed(reading, err)
	}
	defer rows.Close()
	for rows.Next() {
		var account accountRow
		var grant grantRow
		if err := rows.Scan(append(append(account.columns(), &in.Unsealed), grant.columns()...)...); err != nil {
			return auth.SignIn{}, s.failed(reading, err)
		}
		if account.name.Valid {
			in.Account = account.account()
		}
		if !grant.id.Valid {
			continue
		}
		g, err := grant.grant()
		if err != nil {
			return auth.SignIn{}, s.failed(reading, err)
		}
		in.Grants = append(in.Grants, g)
	}
	slices.SortFunc(in.Grants, func(a, b auth.Grant) int { // few: sorting here is cheaper than there
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return in, s.failed(reading, rows.Err())
}
