package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"imapwarden/audit"
)

const (
	selectNewest = `SELECT hash FROM events ORDER BY id DESC LIMIT 1`

	insertEvent = `INSERT INTO events
		(time, kind, outcome, session, account, source, source_key, program, factor, reason, rule, detail, hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id`
)

// Append writes all events in one transaction, or none, and chains them. Where it has
// written them, the caller's have ID, Time, Source and Hash as they are kept.
func (s *Store) Append(ctx context.Context, events []audit.Event) error {
	if len(events) == 0 {
		return ctx.Err()
	}
	kept := slices.Clone(events)
	err := s.update(ctx, "writing audit events", func(tx *sql.Tx) error {
		last, err := s.lastHash(ctx, tx)
		if err != nil {
			return err
		}
		insert := tx.StmtContext(ctx, s.insert)
		for i := range kept {
			e := &kept[i]
			var key []byte
			e.Time = fromMicros(micros(e.Time))
			e.Source, key = canonical(e.Source)
			e.Hash = audit.Chain(last, *e)
			last = e.Hash
			err := insert.QueryRowContext(ctx, micros(e.Time), e.Kind, string(e.Outcome), e.Session, e.Account,
				e.Source, key, e.Program, e.Factor, e.Reason, e.Rule, e.Detail, e.Hash[:]).Scan(&e.ID)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	copy(events, kept)
	return nil
}

// lastHash returns what the next event is chained to: the hash of the newest one, or of
// the last that was purged.
func (s *Store) lastHash(ctx context.Context, tx *sql.Tx) (audit.Hash, error) {
	var kept []byte
	err := tx.StmtContext(ctx, s.newest).QueryRowContext(ctx).Scan(&kept)
	if err == nil {
		return hashOf(kept)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return audit.Hash{}, err
	}
	var mark string
	err = tx.QueryRowContext(ctx, selectMark, audit.ChainMark).Scan(&mark)
	if errors.Is(err, sql.ErrNoRows) {
		return audit.Hash{}, nil
	}
	if err != nil {
		return audit.Hash{}, err
	}
	_, h, err := audit.ParseMark(mark)
	return h, err
}

// hashOf reads a hash as it is kept: empty for events from before there was a chain.
func hashOf(kept []byte) (h audit.Hash, err error) {
	if len(kept) != 0 && len(kept) != len(h) {
		return h, fmt.Errorf("a hash has %d octets, not %d", len(kept), len(h))
	}
	copy(h[:], kept)
	return h, nil
}

// Events returns those that the filter chooses, oldest first. Of more than its
// limit, these are the newest, or those that it asks for. A row that is filed under another
// address than its source's says so in Source.
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
		var hash, key []byte
		err := rows.Scan(&e.ID, &at, &e.Kind, &e.Outcome, &e.Session, &e.Account,
			&e.Source, &key, &e.Program, &e.Factor, &e.Reason, &e.Rule, &e.Detail, &hash)
		if err != nil {
			return nil, s.failed(reading, err)
		}
		if e.Hash, err = hashOf(hash); err != nil {
			return nil, s.failed(reading, fmt.Errorf("event %d: %w", e.ID, err))
		}
		e.Time = fromMicros(at)
		e.Source = filed(e.Source, key)
		events = append(events, e)
	}
	if !f.Oldest {
		slices.Reverse(events)
	}
	return events, s.failed(reading, rows.Err())
}

// eventsQuery asks first for those that the limit keeps.
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
	if f.Before != 0 {
		must("id < ?", f.Before)
	}
	if f.Kind != "" {
		must("kind = ?", f.Kind)
	}
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
	query = `SELECT id, time, kind, outcome, session, account, source, source_key, program, factor, reason, rule, detail, hash
		FROM events WHERE ` + strings.Join(where, " AND ")
	args = append(args, cmp.Or(max(f.Limit, 0), 1000))
	order := "DESC"
	if f.Oldest {
		order = "ASC"
	}
	return query + fmt.Sprintf(` ORDER BY id %s LIMIT $%d`, order, len(args)), args
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

// filed returns the source, and with it where it can be found if that is elsewhere: the key is
// in no hash, and so the text isn't the one that was hashed, and the chain breaks there.
func filed(source string, key []byte) string {
	if _, want := canonical(source); bytes.Equal(key, want) {
		return source
	}
	return fmt.Sprintf("%s (filed under %x)", source, key)
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
