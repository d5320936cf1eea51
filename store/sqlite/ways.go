package sqlite

import (
	"cmp"
	"context"
	"slices"
	"time"

	"imapwarden/audit"
)

// selectWays reads along the index events_account, from the first account of a page on. The ID
// counts because Events never shows a lesser one, and must not choose the index: hence the +.
const selectWays = `SELECT account, factor, program, time, source FROM events
	WHERE account > $1 AND +id > 0 AND kind IN ('login', 'session.program') AND outcome = 'accepted' AND time >= $2 ORDER BY account, id`

// Ways returns how accounts signed in since then, for at most limit accounts.
func (s *Store) Ways(ctx context.Context, since time.Time, after string, limit int) ([]audit.Way, error) {
	const reading = "reading how accounts signed in"
	rows, err := s.read.QueryContext(ctx, selectWays, after, micros(since))
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var ways []audit.Way
	known := make(map[[2]string]int) // of the account: indexes in ways, by factor and program
	account, accounts := after, 0
	for rows.Next() {
		w := audit.Way{Count: 1}
		var at int64
		if err := rows.Scan(&w.Account, &w.Factor, &w.Program, &at, &w.Source); err != nil {
			return nil, s.failed(reading, err)
		}
		w.Last = fromMicros(at)
		if w.Account != account {
			if accounts >= limit {
				break
			}
			account = w.Account
			accounts++
			clear(known)
		}
		key := [2]string{w.Factor, w.Program}
		i, ok := known[key]
		if !ok {
			known[key] = len(ways)
			ways = append(ways, w)
			continue
		}
		ways[i].Count++
		if !w.Last.Before(ways[i].Last) {
			ways[i].Last, ways[i].Source = w.Last, w.Source
		}
	}
	slices.SortFunc(ways, func(a, b audit.Way) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Factor, b.Factor), cmp.Compare(a.Program, b.Program))
	})
	return ways, s.failed(reading, rows.Err())
}
