// Package audit records who did what and why it was allowed or refused: one
// event per decision, append-only, without any secret in it.
//
// A Recorder takes events from any number of goroutines, gathers those that
// come together into one durable write, and holds back its callers while the
// store can't keep up, for its queue is bounded. What strangers can repeat at
// will it counts instead of writing it each time. The events are a chain of hashes
// (Chain), which Verify computes anew, and an Exporter copies them to a file, which
// VerifyFile holds against the store. The package knows no store: whoever keeps
// events implements Sink and Source.
package audit

import (
	"context"
	"net/netip"
	"time"
)

// Outcome is how a decision ended. Refused is an expected no; Failed means that
// we could not tell, and that the client was told to come back later.
type Outcome string

// The outcomes.
const (
	Accepted Outcome = "accepted"
	Refused  Outcome = "refused"
	Failed   Outcome = "failed"
)

// An Event is one decision, or one change by an administrator.
type Event struct {
	ID      int64     `json:"id,omitempty"` // set by the store, ascending
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"` // from a closed set, such as "login" or "account.enroll": see docs/audit.md
	Outcome Outcome   `json:"outcome"`
	Session string    `json:"session,omitempty"` // the session's id, also in the log
	Account string    `json:"account,omitempty"` // never the raw name that a client typed
	Source  string    `json:"source,omitempty"`  // an IP address
	Program string    `json:"program,omitempty"` // what the client said of itself with ID, cut to 100 octets
	Factor  string    `json:"factor,omitempty"`  // "none", "code", "recovery", "grant", "app-password"
	Reason  string    `json:"reason,omitempty"`  // from a closed set, such as "wrong-password"
	Rule    string    `json:"rule,omitempty"`    // the limit or rule that decided
	Detail  string    `json:"detail,omitempty"`  // for people; of an administrator's change, who made it
	Hash    Hash      `json:"hash,omitzero"`     // set by the store: chains it to the event before, see Chain
}

// A Sink keeps events.
type Sink interface {
	// Append writes all events durably, or none and says why. It chains them (see Chain), and
	// sets ID, Time as it is kept, and Hash of each in place.
	Append(ctx context.Context, events []Event) error
}

// A Filter chooses events; zero fields choose all.
type Filter struct {
	After   int64 // events with a greater ID
	Before  int64 // events with a smaller ID; 0 chooses all
	Kind    string
	Account string
	Source  netip.Prefix
	Since   time.Time
	Limit   int  // at most so many, the newest where there are more; 0 means 1,000
	Oldest  bool // the oldest where there are more, for who reads all of them in parts
}

// A Way is how an account signed in: one row for each factor and program.
type Way struct {
	Account string    `json:"-"`
	Factor  string    `json:"factor"`
	Program string    `json:"program,omitempty"`
	Count   int64     `json:"count"`
	Last    time.Time `json:"last"`   // the newest
	Source  string    `json:"source"` // where from, that time
}
