// Package admin is the administrator's way in: an HTTP API on a Unix socket,
// and its client, which the command line uses.
//
// The socket is the whole of its access control: mode 0600, and only root and
// the user that the server runs as are answered. Every change, and every
// attempt at one, leaves an audit event that names who made it; Signed sees to
// that for the server and for commands that open the store themselves alike.
// Requests are bounded, names and codes travel in bodies, never in URLs, and a
// refusal arrives at the client as the *auth.Refusal that it left as.
//
// The package knows no store, no session, and no file but its socket. All its types may be
// used by any number of goroutines at once.
package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
)

// Signed returns the directory as one administrator uses it: each change to an
// account, done or not, leaves an event that says by whom, as in "uid 0 by
// command line". Where the event can't be written, lost is told: a change that
// nobody can see later must not pass for a success.
func Signed(d *auth.Directory, sink audit.Sink, by string, lost func(error)) *auth.Directory {
	signed := *d
	signed.Audit = func(ctx context.Context, c auth.Change) {
		if err := Record(ctx, sink, by, audit.Event{Kind: c.Kind, Account: c.Account}, c.Err); err != nil {
			lost(err)
		}
	}
	return &signed
}

// Record leaves the event of what an administrator did or was to do: err says
// what came of it, as in auth.Change. It returns an error where the event can't
// be written.
func Record(ctx context.Context, sink audit.Sink, by string, event audit.Event, err error) error {
	event.Time, event.Outcome, event.Detail = time.Now(), audit.Accepted, by
	if refusal, ok := errors.AsType[*auth.Refusal](err); ok {
		event.Outcome, event.Reason = audit.Refused, string(refusal.Reason)
	} else if err != nil {
		event.Outcome = audit.Failed
	}
	// The change is made; that its maker is gone by now doesn't undo it.
	if err := sink.Append(context.WithoutCancel(ctx), []audit.Event{event}); err != nil {
		what := event.Kind
		if event.Account != "" {
			what += " of " + event.Account
		}
		return fmt.Errorf("admin: recording in the audit that %s was %s: %w", what, event.Outcome, err)
	}
	return nil
}
