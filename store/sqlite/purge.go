package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"imapwarden/audit"
)

// batchLength is how many events, bans or homes one transaction removes, and vacuumBatch how many
// pages one gives back: between two of them a login gets its turn.
const (
	batchLength = 1000
	vacuumBatch = 250
)

const (
	selectOldest = `SELECT id, time, hash FROM events ORDER BY id LIMIT $1`
	removeEvents = `DELETE FROM events WHERE id <= $1`
	selectCut    = `SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET $1`
)

// PurgeEvents removes the oldest: those before the first that is young enough, and of the
// others all but the newest most. The file shrinks with it, when the WAL is next folded
// into it; one made before auto_vacuum was set doesn't, and what is free in it is used again.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, most int) (removed int64, err error) {
	const purging = "purging audit events"
	if most < 1 {
		return 0, s.failed(purging, errors.New("none would be left"))
	}
	if removed, err = s.purge(ctx, func(_, at int64) bool { return at < micros(before) }); err != nil {
		return removed, s.failed(purging, err)
	}
	var last int64 // to go
	switch err := s.read.QueryRowContext(ctx, selectCut, most).Scan(&last); {
	case err == nil:
		n, err := s.purge(ctx, func(id, _ int64) bool { return id <= last })
		removed += n
		if err != nil {
			return removed, s.failed(purging, err)
		}
	case !errors.Is(err, sql.ErrNoRows):
		return removed, s.failed(purging, err)
	}
	return removed, s.failed("giving back what audit events took", s.vacuum(ctx))
}

// purge removes the oldest events, batch by batch, up to the first that doesn't go.
func (s *Store) purge(ctx context.Context, goes func(id, at int64) bool) (removed int64, err error) {
	for {
		n, err := s.purgeBatch(ctx, goes)
		removed += n
		if err != nil {
			return removed, err
		}
		if n < batchLength {
			return removed, nil
		}
	}
}

// purgeBatch removes a batch, and notes where the chain of the others begins.
func (s *Store) purgeBatch(ctx context.Context, goes func(id, at int64) bool) (removed int64, err error) {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() // after Commit it does nothing
	n, last, err := prefix(ctx, tx, goes)
	if err != nil || n == 0 {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, removeEvents, last.ID); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, setMark, audit.ChainMark, audit.FormatMark(last.ID, last.Hash)); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	return n, nil
}

// prefix returns how many of the oldest events go, a batch at most, and ID and Hash of the
// last of them.
func prefix(ctx context.Context, tx *sql.Tx, goes func(id, at int64) bool) (n int64, last audit.Event, err error) {
	rows, err := tx.QueryContext(ctx, selectOldest, batchLength)
	if err != nil {
		return 0, last, err
	}
	defer rows.Close()
	var hash []byte
	for rows.Next() {
		var id, at int64
		var h []byte
		if err := rows.Scan(&id, &at, &h); err != nil {
			return 0, last, err
		}
		if !goes(id, at) {
			break
		}
		last.ID, hash = id, h
		n++
	}
	if err := rows.Err(); err != nil {
		return 0, last, err
	}
	if last.Hash, err = hashOf(hash); err != nil {
		return 0, last, fmt.Errorf("event %d: %w", last.ID, err)
	}
	return n, last, nil
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
