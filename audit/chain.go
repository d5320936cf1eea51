package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Hash is an event's link in the chain: SHA-256, in hexadecimal as text. The zero Hash is
// none: of events from before there was a chain, and what the first link goes on from.
type Hash [sha256.Size]byte

// IsZero says whether there is none.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("audit: a hash has 64 digits, not %d", len(text))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("audit: reading a hash: %w", err)
	}
	return nil
}

// Chain returns the Hash of e behind an event with the given one: SHA-256 over the older hash
// (32 octets), the time in microseconds since 1970 (64 bits, big-endian), and then, each behind
// its length (64 bits, big-endian), the texts kind, outcome, session, account, source, program,
// factor, reason, rule and detail. Whoever changes, removes or inserts an event has to compute
// all later hashes anew, and so differs from every copy that left this machine before.
func Chain(previous Hash, e Event) Hash {
	b := append(make([]byte, 0, 512), previous[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixMicro()))
	for _, text := range []string{
		e.Kind, string(e.Outcome), e.Session, e.Account, e.Source,
		e.Program, e.Factor, e.Reason, e.Rule, e.Detail,
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	return sha256.Sum256(b)
}

// ChainMark is the name of the mark under which a store notes the last event that it has
// purged, as FormatMark writes it: there the chain of those that remain begins.
const ChainMark = "audit-chain"

// FormatMark writes an event's ID and Hash as text: the ID, a space, and 64 hexadecimal digits.
func FormatMark(id int64, h Hash) string { return fmt.Sprintf("%d %x", id, h[:]) }

// ParseMark reads what FormatMark wrote, and nothing else.
func ParseMark(text string) (id int64, h Hash, err error) {
	number, digits, _ := strings.Cut(text, " ")
	if id, err = strconv.ParseInt(number, 10, 64); err != nil {
		return 0, Hash{}, fmt.Errorf("audit: reading a mark of the chain: %w", err)
	}
	if err := h.UnmarshalText([]byte(digits)); err != nil {
		return 0, Hash{}, err
	}
	if FormatMark(id, h) != text {
		return 0, Hash{}, errors.New("audit: reading a mark of the chain: it is written in another way than ours")
	}
	return id, h, nil
}
