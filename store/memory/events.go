package memory

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"imapwarden/audit"
)

// keep is how many events stay: what strangers cause must not fill the memory.
const keep = 10_000

// Append keeps all events and chains them. The caller's then have ID, Time, Source and Hash
// as they are kept.
func (s *Store) Append(ctx context.Context, events []audit.Event) error {
	if err := s.enter(ctx, "writing audit events"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for i := range events {
		e := &events[i]
		s.lastID++
		e.ID, e.Time = s.lastID, inMicros(e.Time)
		if addr, err := netip.ParseAddr(e.Source); err == nil {
			e.Source = addr.Unmap().String()
		}
		e.Hash = audit.Chain(s.lastHash, *e)
		s.lastHash = e.Hash
		s.events = append(s.events, *e)
	}
	// What the slice leaves behind goes when append next moves it.
	s.drop(len(s.events) - keep)
	return nil
}

// drop removes the oldest n events, and notes where the chain of the others begins.
func (s *Store) drop(n int) {
	if n <= 0 {
		return
	}
	last := s.events[n-1]
	s.marks[audit.ChainMark] = audit.FormatMark(last.ID, last.Hash)
	s.events = s.events[n:]
}

// Events returns those that the filter chooses, oldest first. Of more than its
// limit, these are the newest, or those that it asks for.
func (s *Store) Events(ctx context.Context, f audit.Filter) ([]audit.Event, error) {
	if err := s.enter(ctx, "reading audit events"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var events []audit.Event
	for _, e := range s.events {
		if chosen(e, f) {
			events = append(events, e)
		}
	}
	surplus := max(0, len(events)-cmp.Or(max(f.Limit, 0), 1000))
	if f.Oldest {
		return events[:len(events)-surplus], nil
	}
	return events[surplus:], nil
}

// Ways returns how accounts signed in since then, for at most limit accounts.
func (s *Store) Ways(ctx context.Context, since time.Time, after string, limit int) ([]audit.Way, error) {
	if err := s.enter(ctx, "reading how accounts signed in"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	type key struct{ account, factor, program string }
	ways := make(map[key]audit.Way)
	for _, e := range s.events {
		if e.Kind != "login" && e.Kind != "session.program" || e.Outcome != audit.Accepted || e.Account <= after || e.Time.Before(inMicros(since)) {
			continue
		}
		k := key{e.Account, e.Factor, e.Program}
		w, ok := ways[k]
		if !ok || !e.Time.Before(w.Last) {
			w.Last, w.Source = e.Time, e.Source
		}
		w.Account, w.Factor, w.Program = e.Account, e.Factor, e.Program
		w.Count++
		ways[k] = w
	}
	sorted := slices.SortedFunc(maps.Values(ways), func(a, b audit.Way) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Factor, b.Factor), cmp.Compare(a.Program, b.Program))
	})
	accounts := 0
	for i, w := range sorted {
		if i == 0 || w.Account != sorted[i-1].Account {
			if accounts++; accounts > limit {
				return sorted[:i], nil
			}
		}
	}
	return sorted, nil
}

// PurgeEvents removes the oldest: those before the first that is young enough, and of the
// others all but the newest most.
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
	young := slices.IndexFunc(s.events, func(e audit.Event) bool { return !e.Time.Before(before) })
	if young < 0 {
		young = had
	}
	s.drop(max(young, had-most))
	s.events = slices.Clone(s.events) // lets go of the others
	return int64(had - len(s.events)), nil
}

func chosen(e audit.Event, f audit.Filter) bool {
	return e.ID > f.After &&
		(f.Before == 0 || e.ID < f.Before) &&
		(f.Kind == "" || e.Kind == f.Kind) &&
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
