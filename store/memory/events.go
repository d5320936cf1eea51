package memory

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"imapwarden/audit"
)

// keep is how many events stay: what strangers cause must not fill the memory.
const keep = 10_000

// Append keeps all events, and gives them their IDs.
func (s *Store) Append(ctx context.Context, events []audit.Event) error {
	if err := s.enter(ctx, "writing audit events"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, e := range events {
		s.lastID++
		e.ID, e.Time = s.lastID, inMicros(e.Time)
		if addr, err := netip.ParseAddr(e.Source); err == nil {
			e.Source = addr.Unmap().String()
		}
		s.events = append(s.events, e)
	}
	// What the slice leaves behind goes when append next moves it.
	s.events = s.events[max(0, len(s.events)-keep):]
	return nil
}

// Events returns those that the filter chooses, oldest first. Of more than its
// limit, these are the newest.
func (s *Store) Events(ctx context.Context, f audit.Filter) ([]audit.Event, error) {
	if err := s.enter(ctx, "reading audit events"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	limit := cmp.Or(max(f.Limit, 0), 1000)
	var events []audit.Event
	for _, e := range slices.Backward(s.events) {
		if len(events) == limit {
			break
		}
		if chosen(e, f) {
			events = append(events, e)
		}
	}
	slices.Reverse(events)
	return events, nil
}

// PurgeEvents removes those from before the given time, and of the others all but
// the newest most.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, most int) (removed int64, err error) {
	if most < 1 {
		return 0, errors.New("memory: purging audit events: none would be left")
	}
	if err := s.enter(ctx, "purging audit events"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	had := len(s.events)
	before = inMicros(before)
	s.events = slices.DeleteFunc(s.events, func(e audit.Event) bool { return e.Time.Before(before) })
	s.events = slices.Clone(s.events[max(0, len(s.events)-most):])
	return int64(had - len(s.events)), nil
}

func chosen(e audit.Event, f audit.Filter) bool {
	return e.ID > f.After &&
		(f.Account == "" || e.Account == f.Account) &&
		(f.Since.IsZero() || !e.Time.Before(inMicros(f.Since))) &&
		(!f.Source.IsValid() || within(e.Source, f.Source))
}

// within takes IPv4 in IPv6 for IPv4, on both sides, and looks past zones.
func within(source string, p netip.Prefix) bool {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Contains(addr.Unmap().WithZone(""))
}
