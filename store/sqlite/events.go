package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"imapwarden/audit"
)

// Append writes all events in one transaction, or none. It gives them their IDs.
func (s *Store) Append(ctx context.Context, events []audit.Event) error {
	if len(events) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "writing audit events", func(tx *sql.Tx) error {
		insert, err := tx.PrepareContext(ctx, `INSERT INTO events
			(time, kind, outcome, session, account, source, source_key, program, factor, reason, rule, detail)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`)
		if err != nil {
			return err
		}
		defer insert.Close()
		for _, e := range events {
			source, key := canonical(e.Source)
			_, err := insert.ExecContext(ctx, micros(e.Time), e.Kind, string(e.Outcome), e.Session, e.Account,
				source, key, e.Program, e.Factor, e.Reason, e.Rule, e.Detail)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Events returns those that the filter chooses, oldest first. Of more than its
// limit, these are the newest.
func (s *Store) Events(ctx context.Context, f audit.Filter) ([]audit.Event, error) {
	const reading = "reading audit events"
	query, args := eventsQuery(f)
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var events []audit.Event
	for rows.Next() {
		var e audit.Event
		var at int64
		err := rows.Scan(&e.ID, &at, &e.Kind, &e.Outcome, &e.Session, &e.Account,
			&e.Source, &e.Program, &e.Factor, &e.Reason, &e.Rule, &e.Detail)
		if err != nil {
			return nil, s.failed(reading, err)
		}
		e.Time = fromMicros(at)
		events = append(events, e)
	}
	slices.Reverse(events)
	return events, s.failed(reading, rows.Err())
}

// eventsQuery asks for the newest first, since the limit keeps the newest.
func eventsQuery(f audit.Filter) (query string, args []any) {
	var where []string
	must := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		where = append(where, condition)
	}
	must("id > ?", f.After)
	if f.Account != "" {
		must("account = ?", f.Account)
	}
	if !f.Since.IsZero() {
		must("time >= ?", micros(f.Since))
	}
	if f.Source.IsValid() {
		first, last := keys(f.Source)
		must("source_key BETWEEN ? AND ?", first, last)
		if !f.Source.Masked().Addr().Unmap().Is4() {
			first, last := keys(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
			must("source_key NOT BETWEEN ? AND ?", first, last) // ::/0 is all of IPv6, and nothing of IPv4
		}
	}
	query = `SELECT id, time, kind, outcome, session, account, source, program, factor, reason, rule, detail
		FROM events WHERE ` + strings.Join(where, " AND ")
	args = append(args, cmp.Or(max(f.Limit, 0), 1000))
	return query + fmt.Sprintf(` ORDER BY id DESC LIMIT $%d`, len(args)), args
}

// purgeBatch is how many events one transaction removes, and vacuumBatch how many
// pages one gives back: between two of them a login gets its turn.
const (
	purgeBatch  = 1000
	vacuumBatch = 250
)

// PurgeEvents removes those from before the given time, and of the others all but
// the newest most. The file shrinks with it, when the WAL is next folded into it; one
// made before auto_vacuum was set doesn't, and what is free in it is used again.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, most int) (removed int64, err error) {
	const purging = "purging audit events"
	if most < 1 {
		return 0, s.failed(purging, errors.New("none would be left"))
	}
	removed, err = s.purge(ctx, `SELECT id FROM events WHERE time < $1 ORDER BY time`, micros(before))
	if err != nil {
		return removed, s.failed(purging, err)
	}
	var last int64 // to go
	err = s.read.QueryRowContext(ctx, `SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET $1`, most).Scan(&last)
	if err == nil {
		var n int64
		n, err = s.purge(ctx, `SELECT id FROM events WHERE id <= $1 ORDER BY id`, last)
		removed += n
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return removed, s.failed(purging, err)
	}
	return removed, s.failed("giving back what audit events took", s.vacuum(ctx))
}

// purge removes the events that the query chooses by its one argument, batch by batch.
func (s *Store) purge(ctx context.Context, chosen string, arg int64) (removed int64, err error) {
	for {
		result, err := s.write.ExecContext(ctx, `DELETE FROM events WHERE id IN (`+chosen+` LIMIT $2)`, arg, purgeBatch)
		if err != nil {
			return removed, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return removed, err
		}
		removed += n
		if n < purgeBatch {
			return removed, nil
		}
	}
}

// vacuum gives free pages back to the file system, as far as the file can do that.
func (s *Store) vacuum(ctx context.Context) error {
	for last := -1; ; {
		var free int
		if err := s.write.QueryRowContext(ctx, `PRAGMA freelist_count`).Scan(&free); err != nil {
			return err
		}
		if free == 0 || free == last {
			return nil
		}
		last = free
		if _, err := s.write.ExecContext(ctx, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, vacuumBatch)); err != nil {
			return err
		}
	}
}

// canonical returns the one way to write an address, and its key; IPv4 in IPv6
// is IPv4. What is no address stays as it is, and has no key.
func canonical(source string) (text string, key []byte) {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return source, nil
	}
	addr = addr.Unmap()
	key16 := addr.As16()
	return addr.String(), key16[:]
}

// keys returns the first and the last key within the prefix.
func keys(p netip.Prefix) (first, last []byte) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 128 - 32
	}
	low := p.Masked().Addr().As16()
	high := low
	for i := bits; i < 128; i++ {
		high[i/8] |= 0x80 >> (i % 8)
	}
	return low[:], high[:]
}
