package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"imapwarden/policy"
)

const (
	selectBans = `SELECT network, signal, since, until, times, detail FROM bans`

	putBan = `INSERT INTO bans (network, signal, since, until, times, detail) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (network) DO UPDATE SET signal = excluded.signal, since = excluded.since,
			until = excluded.until, times = excluded.times, detail = excluded.detail`

	removeBan = `DELETE FROM bans WHERE network = $1`
	purgeBans = `DELETE FROM bans WHERE network IN (SELECT network FROM bans WHERE until < $1 LIMIT $2)`
)

// Bans returns all bans, those that are over included until purged, by network.
func (s *Store) Bans(ctx context.Context) ([]policy.Ban, error) {
	const reading = "reading bans"
	rows, err := s.read.QueryContext(ctx, selectBans)
	if err != nil {
		return nil, s.failed(reading, err)
	}
	defer rows.Close()
	var bans []policy.Ban
	for rows.Next() {
		b, err := scanBan(rows)
		if err != nil {
			return nil, s.failed(reading, err)
		}
		bans = append(bans, b)
	}
	slices.SortFunc(bans, byNetwork) // as texts, 10.0.0.0/8 would come before 9.0.0.0/8
	return bans, s.failed(reading, rows.Err())
}

func scanBan(row scanner) (policy.Ban, error) {
	var b policy.Ban
	var network string
	var since, until int64
	err := row.Scan(&network, &b.Signal, &since, &until, &b.Times, &b.Detail)
	if err != nil {
		return policy.Ban{}, err
	}
	if b.Network, err = parseMasked(network); err != nil {
		return policy.Ban{}, fmt.Errorf("a ban: %w", err)
	}
	b.Since, b.Until = fromMicros(since), fromMicros(until)
	return b, nil
}

// PutBans creates bans, or replaces those of the same networks; all of them, or none.
func (s *Store) PutBans(ctx context.Context, bans ...policy.Ban) error {
	if len(bans) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "writing bans", func(tx *sql.Tx) error {
		put, err := tx.PrepareContext(ctx, putBan)
		if err != nil {
			return err
		}
		defer put.Close()
		// In one order, see TouchGrants; of two of the same network, the last one counts.
		for _, b := range slices.SortedStableFunc(slices.Values(bans), byNetwork) {
			network, err := formatMasked(b.Network)
			if err != nil {
				return err
			}
			if _, err := put.ExecContext(ctx, network, b.Signal, micros(b.Since), micros(b.Until), b.Times, b.Detail); err != nil {
				return err
			}
		}
		return nil
	})
}

func byNetwork(a, b policy.Ban) int { return a.Network.Compare(b.Network) }

// RemoveBans removes those of the networks.
func (s *Store) RemoveBans(ctx context.Context, networks ...netip.Prefix) error {
	if len(networks) == 0 {
		return ctx.Err()
	}
	return s.update(ctx, "removing bans", func(tx *sql.Tx) error {
		for _, n := range slices.SortedFunc(slices.Values(networks), netip.Prefix.Compare) { // in one order, see TouchGrants
			if _, err := tx.ExecContext(ctx, removeBan, n.String()); err != nil {
				return err
			}
		}
		return nil
	})
}

// PurgeMemory removes the bans that ended and the homes that were last used before then, some
// at a time: between two such transactions a login gets its turn.
func (s *Store) PurgeMemory(ctx context.Context, bans, homes time.Time) error {
	return errors.Join(
		s.failed("purging bans", s.purgeRows(ctx, purgeBans, bans)),
		s.failed("purging homes", s.purgeRows(ctx, purgeHomes, homes)))
}

// purgeRows repeats a statement that removes at most so many rows.
func (s *Store) purgeRows(ctx context.Context, query string, before time.Time) error {
	for {
		result, err := s.write.ExecContext(ctx, query, micros(before), batchLength)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < batchLength {
			return err
		}
	}
}

// formatMasked refuses what isn't masked, and IPv4 as IPv6: a network that can be written in two
// ways would be two.
func formatMasked(p netip.Prefix) (string, error) {
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		return "", fmt.Errorf("%s is not a masked network of IPv4 or IPv6", p)
	}
	return p.String(), nil
}

func parseMasked(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err == nil {
		_, err = formatMasked(p)
	}
	return p, err
}
