package auth

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

const (
	ticketMark    = "ticket-keys"
	ticketPurpose = "tickets"
	ticketEvery   = 24 * time.Hour
	ticketLife    = 7 * 24 * time.Hour // crypto/tls accepts no older ticket, and RFC 8446, section 4.6.1, allows none
)

// A ticketKey encrypts TLS session tickets, and so names TLS clients: a client is the one
// that it was as long as its ticket can be opened.
type ticketKey struct {
	made time.Time // whole seconds
	key  [32]byte
}

// ticketKeySize is that of one key in the mark: when it was made, in Unix seconds, and the key.
const ticketKeySize = 8 + 32

// TicketKeys returns the keys for tls.Config.SetSessionTicketKeys, newest first: the first
// encrypts, all open. They are in the store, sealed, so that tickets, and the grants of those
// who bring them, outlive a restart and hold on every node. There is a new one each day, which those who
// serve get by asking each hour or so; one older than seven days is deleted.
//
// They are random and not derived from the master key, because a TLS 1.2 ticket has no forward secrecy:
// it holds the session's own keys, and whoever gets the ticket key later can read what he recorded.
// Only a key that is nowhere any more protects that.
//
// Where two processes make the day's key at the same time, the last to write wins. The other's
// key lives in its own process until it asks again; the tickets that it gave out by then are
// of no use, and their clients show a code once more. Keys that can't be opened, since the key
// file's were lost, are replaced by a new one, for the same price.
func TicketKeys(ctx context.Context, records Marks, keys *Keys, now time.Time) ([][32]byte, error) {
	value, err := records.Mark(ctx, ticketMark)
	if err != nil {
		return nil, fmt.Errorf("auth: reading the TLS session ticket keys: %w", err)
	}
	stored := openTicketKeys(keys, value)
	list := slices.DeleteFunc(slices.Clone(stored), func(k ticketKey) bool {
		age := now.Sub(k.made)
		return age > ticketLife || age < -ticketEvery // the clock was wrong when that was made
	})
	if len(list) == 0 || now.Sub(list[0].made) >= ticketEvery {
		list = slices.Insert(list, 0, ticketKey{now.Truncate(time.Second), [32]byte(random(32))})
	}
	if !slices.Equal(list, stored) {
		if err := records.SetMark(ctx, ticketMark, sealTicketKeys(keys, list)); err != nil {
			return nil, fmt.Errorf("auth: writing the TLS session ticket keys: %w", err)
		}
	}
	all := make([][32]byte, len(list))
	for i, k := range list {
		all[i] = k.key
	}
	return all, nil
}

// openTicketKeys returns none where the mark holds none that we can open.
func openTicketKeys(keys *Keys, value string) (list []ticketKey) {
	sealed, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return nil
	}
	plaintext, err := keys.Open(ticketPurpose, "", ticketMark, sealed)
	if err != nil {
		return nil
	}
	defer plaintext.Wipe()
	for one := range slices.Chunk(plaintext, ticketKeySize) {
		if len(one) == ticketKeySize {
			made := time.Unix(int64(binary.BigEndian.Uint64(one)), 0)
			list = append(list, ticketKey{made, [32]byte(one[8:])})
		}
	}
	return list
}

func sealTicketKeys(keys *Keys, list []ticketKey) string {
	plaintext := make(Secret, 0, len(list)*ticketKeySize)
	defer plaintext.Wipe()
	for _, k := range list {
		plaintext = binary.BigEndian.AppendUint64(plaintext, uint64(k.made.Unix()))
		plaintext = append(plaintext, k.key[:]...)
	}
	return base64.StdEncoding.EncodeToString(keys.Seal(ticketPurpose, "", ticketMark, plaintext))
}
