package policy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"
)

// A NetworkSet is a set of addresses, as networks. It doesn't change; the zero value is empty.
type NetworkSet struct{ table bart.Lite }

// NewNetworkSet returns the set of all addresses of the networks. Bits behind the prefix don't
// count, and one that isn't valid has no address.
func NewNetworkSet(networks ...netip.Prefix) *NetworkSet {
	s := new(NetworkSet)
	for _, p := range networks {
		s.table.Insert(unmapped(p))
	}
	return s
}

// Contains says if the address is in one of the networks. One that isn't valid is in none.
func (s *NetworkSet) Contains(addr netip.Addr) bool {
	return s.table.Contains(SourceOf(addr).Addr) // the table knows IPv4 addresses only as such
}

// Len is the number of different networks.
func (s *NetworkSet) Len() int { return s.table.Size() }

// OpenNetworks reads a file with a network or an address a line, see [ReadNetworks].
func OpenNetworks(path string) (*File[*NetworkSet], error) {
	return Open(path, func(r io.Reader, _ int64) (*NetworkSet, error) { return ReadNetworks(r) })
}

// badLines is how many of them an error names: a file of another kind has nothing else.
const badLines = 10

// ReadNetworks reads a text with a network or an address a line. What stands behind a # or, as in
// Spamhaus' lists, a ; is a comment; empty lines are passed over. The error has the numbers of the
// bad lines and not what stands there, for a file that was named by mistake may hold secrets.
func ReadNetworks(r io.Reader) (*NetworkSet, error) {
	s := new(NetworkSet)
	var bad []error
	lines := bufio.NewScanner(r)
	n, more := 0, 0
	for lines.Scan() {
		n++
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // as some editors begin a file
		}
		if i := strings.IndexAny(text, "#;"); i >= 0 {
			text = text[:i]
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		switch p, err := parseNetwork(text); {
		case err == nil:
			s.table.Insert(p)
		case len(bad) < badLines:
			bad = append(bad, fmt.Errorf("line %d: %w", n, err))
		default:
			more++
		}
	}
	if err := lines.Err(); err != nil {
		bad = append(bad, fmt.Errorf("line %d: %w", n+1, err))
	}
	if more > 0 {
		bad = append(bad, fmt.Errorf("and %d more bad lines", more))
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	return s, nil
}

// parseNetwork reads a network, or an address, which is one of its own.
func parseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
		p, err = netip.PrefixFrom(addr.WithZone(""), addr.BitLen()), nil
	}
	if err != nil {
		return netip.Prefix{}, errors.New("must be a network or an address, such as 203.0.113.0/24 or 2001:db8::1")
	}
	return unmapped(p), nil
}
