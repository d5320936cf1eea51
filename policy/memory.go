package policy

import (
	"context"
	"net/netip"
	"time"
)

// A Ban keeps a network out for a while, never for ever.
type Ban struct {
	Network netip.Prefix // masked; of IPv4 addresses never as IPv6
	Signal  string       // what made it: a signal, or [ByHand]
	Since   time.Time
	Until   time.Time // it may be over: the next one is longer for it
	Times   int       // the how manieth in a row it is, from 1
	Detail  string    // for people; of one made by hand, who made it and why
}

// ByHand is the Signal of bans that an administrator has made.
const ByHand = "by-hand"

// A Home is a place where an account has signed in, second factor included.
type Home struct {
	Account     string
	AppPassword bool         // with an app password; what these teach is apart
	Site        netip.Prefix // IPv4: the address, IPv6: its /64
	Last        time.Time    // when it last did; noted once a day
}

// Memory is what a Gate asks of a store, so that a restart forgets neither whom to keep out
// nor where owners are at home. All times are kept to the microsecond.
type Memory interface {
	// Bans returns all bans, those that are over included until purged, by network.
	Bans(ctx context.Context) ([]Ban, error)
	// PutBans creates bans, or replaces those of the same networks; all of them, or none. A
	// network that isn't masked is an error.
	PutBans(ctx context.Context, bans ...Ban) error
	// RemoveBans removes those of the networks; unknown ones are no error.
	RemoveBans(ctx context.Context, networks ...netip.Prefix) error
	// Homes returns at most limit homes, the latest Last first.
	Homes(ctx context.Context, limit int) ([]Home, error)
	// PutHomes creates homes, or sets their Last where it is later; all of them, or none. A site
	// that isn't masked is an error.
	PutHomes(ctx context.Context, homes ...Home) error
	// PurgeMemory removes the bans that ended and the homes that were last used before then.
	PurgeMemory(ctx context.Context, bans, homes time.Time) error

	// Mark returns the value under name, or "" where there is none.
	Mark(ctx context.Context, name string) (string, error)
	// SetMark creates or replaces it.
	SetMark(ctx context.Context, name, value string) error
}
