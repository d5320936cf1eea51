// Package store opens the place where records live, by its URL. The folders
// below hold one engine each: sqlite, for one machine, and memory, for trying
// things out. Package storetest holds what all of them promise.
//
// Stores know the domain, the domain doesn't know stores: the records and their
// promises are described in packages auth, audit, certs and policy. A Store is safe for
// concurrent use, and a SQLite file by several processes as well.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/policy"
	"imapwarden/store/memory"
	"imapwarden/store/sqlite"
)

// An Engine is what each folder below implements.
type Engine interface {
	auth.Records
	audit.Sink
	policy.Memory
	certs.Records
	// Events returns those that the filter chooses, oldest first. Of more
	// than its limit, these are the newest, unless it asks for the oldest.
	Events(ctx context.Context, f audit.Filter) ([]audit.Event, error)
	// Ways returns how accounts signed in: of accepted logins (and of what sessions
	// said of themselves later, "session.program") since the given time, one row for
	// each account, factor and program, ordered by these, for at most limit accounts whose names
	// come after the given one. Events without an account don't count.
	Ways(ctx context.Context, since time.Time, after string, limit int) ([]audit.Way, error)
	// PurgeEvents removes the beginning of the chain: by ID, those before the first that
	// isn't older than the given time, and of the others all but the newest most, which must be at
	// least 1. The last one removed is noted in the mark audit.ChainMark, in the same transaction.
	// It returns how many it has removed, also where it then fails. Others may use the store
	// meanwhile.
	PurgeEvents(ctx context.Context, before time.Time, most int) (removed int64, err error)
	// Close ends all use of the store.
	Close() error
}

// A Store keeps records and audit events.
type Store struct{ Engine }

// Open opens the store at url: "sqlite:PATH", a file that is made on first use,
// or "memory:", which forgets everything at the end of the process.
func Open(ctx context.Context, url string) (*Store, error) {
	// Only the scheme may show up in errors: what follows it may hold a password.
	scheme, rest, found := strings.Cut(url, ":")
	if !found {
		return nil, errors.New("store: the URL has no scheme; sqlite:PATH and memory: are known")
	}
	var engine Engine
	var err error
	switch scheme {
	case "sqlite":
		engine, err = sqlite.Open(ctx, rest)
	case "memory":
		if rest != "" {
			return nil, errors.New("store: memory: takes nothing after the colon")
		}
		engine = memory.New()
	default:
		return nil, fmt.Errorf("store: unknown scheme %q; sqlite:PATH and memory: are known", scheme)
	}
	if err != nil {
		return nil, err
	}
	return &Store{engine}, nil
}
