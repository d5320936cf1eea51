package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// What a ban that is made by hand can be.
const (
	shortestByHand = time.Second
	longestByHand  = 90 * 24 * time.Hour
	widestIPv4     = 8 // bits
	widestIPv6     = 16
)

// A Book is the bans that a memory keeps, for commands where no [Gate] runs. A Gate that does run
// learns of a change only when it next loads. It is safe for concurrent use where the memory is.
type Book struct {
	Memory Memory
	Now    func() time.Time // nil: time.Now
}

// Bans returns the bans in force, by network.
func (b Book) Bans(ctx context.Context) ([]Ban, error) {
	all, err := b.Memory.Bans(ctx)
	if err != nil {
		return nil, fmt.Errorf("policy: reading bans: %w", err)
	}
	now := b.now()
	for i := range all {
		all[i], _ = all[i].begun(now)
	}
	return slices.DeleteFunc(all, func(ban Ban) bool { return !now.Before(ban.Until) }), nil
}

// Ban bans a network, in place of the ban that it may have, durably once it returns nil. Make
// the ban with [NewBan].
func (b Book) Ban(ctx context.Context, ban Ban) error {
	inForce, err := b.Bans(ctx)
	if err != nil {
		return err
	}
	// The next Gate couldn't take it in.
	if len(inForce) >= maxBans && !slices.ContainsFunc(inForce, func(other Ban) bool { return other.Network == ban.Network }) {
		return fmt.Errorf("policy: banning %s: %d networks are banned, and there is no room for more", ban.Network, maxBans)
	}
	if err := b.Memory.PutBans(ctx, ban); err != nil {
		return fmt.Errorf("policy: banning %s: %w", ban.Network, err)
	}
	return nil
}

// Unban ends the ban of a network, and forgets that there was one. It says whether
// there was one in force. Durable once it returns nil.
func (b Book) Unban(ctx context.Context, network netip.Prefix) (known bool, err error) {
	inForce, err := b.Bans(ctx)
	if err != nil {
		return false, err
	}
	if known = slices.ContainsFunc(inForce, func(ban Ban) bool { return ban.Network == network }); !known {
		return false, nil
	}
	if err := b.Memory.RemoveBans(ctx, network); err != nil {
		return true, fmt.Errorf("policy: ending the ban of %s: %w", network, err)
	}
	return true, nil
}

func (b Book) now() time.Time {
	if b.Now == nil {
		return time.Now()
	}
	return b.Now()
}

// A BadBan is an expected no: the ban that was asked for can't be.
type BadBan struct {
	Message string // for the person who asked: what is wrong and what to do
}

// Error returns the message.
func (b *BadBan) Error() string { return b.Message }

// NewBan returns a ban by hand that begins now, to the microsecond. The network may be written in
// any way, as for [BanNetwork]; by says who makes the ban, and why. The error is a [*BadBan]: the
// network is none or too wide, or the ban too short or too long.
func NewBan(network netip.Prefix, length time.Duration, by string, now time.Time) (Ban, error) {
	network = BanNetwork(network)
	if err := checkBan(network, length); err != nil {
		return Ban{}, err
	}
	now = now.UTC().Truncate(time.Microsecond)
	return Ban{
		Network: network, Signal: ByHand, Since: now, Until: now.Add(length.Truncate(time.Microsecond)), Times: 1, Detail: by,
	}, nil
}

// BanNetwork returns a network as bans have it: masked, and of IPv4 addresses as such, also where
// it was written with the IPv6 addresses that carry them. What is no network is the zero Prefix.
func BanNetwork(network netip.Prefix) netip.Prefix { return unmapped(network).Masked() }

// checkBan doesn't say that a ban is foolish, only that it can't have been meant: a slip of the
// finger in the bits behind the slash must not keep everybody out.
func checkBan(network netip.Prefix, length time.Duration) error {
	const forGood = `write a rule with networks = ["%s"] and action = "deny"`
	widest := widestIPv6
	if network.Addr().Is4() {
		widest = widestIPv4
	}
	switch {
	case !network.IsValid():
		return badBan("there is no such network: write an address and its prefix, such as 203.0.113.0/24")
	case network.Bits() < widest:
		return badBan("%s is too wide for a ban, which is of a /%d at most: if it is meant, "+forGood, network, widest, network)
	case network.Overlaps(mapped):
		// No source has these addresses, see SourceOf, so it would keep nobody out.
		return badBan("%s stands for IPv4 addresses: write their network as IPv4, such as 203.0.113.0/24", network)
	case length < shortestByHand:
		return badBan("a ban of %s is too short: it lasts a second at least", length)
	case length > longestByHand:
		return badBan("a ban lasts %d days at most: to keep %s out for good, "+forGood, longestByHand/(24*time.Hour), network, network)
	}
	return nil
}

// mapped are the IPv6 addresses that carry IPv4 ones (RFC 4291, section 2.5.5.2).
var mapped = netip.MustParsePrefix("::ffff:0:0/96")

func badBan(format string, args ...any) error { return &BadBan{fmt.Sprintf(format, args...)} }
