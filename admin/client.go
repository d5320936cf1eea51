package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
)

// patience is how long an answer may take, and where the whole of it takes its time, how
// long the server may be silent before.
const patience = time.Minute

var errSilent = fmt.Errorf("it has said nothing for %v: is it stopped, or busy with its disk?", patience)

// Client asks a running server. Its methods are those of auth.Directory and Events, and
// what only a server can answer.
type Client struct {
	path string
	http *http.Client
}

// Dial returns a client of the server at the socket, once that has been seen to
// accept connections. The error wraps the system's: syscall.ENOENT or
// ECONNREFUSED where nothing listens, EACCES where we may not ask.
func Dial(ctx context.Context, path string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	conn, err := dial(ctx, "", "")
	if err != nil {
		return nil, fmt.Errorf("admin: connecting to the server: %w", err)
	}
	conn.Close()
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// Close lets go of the connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// List returns at most limit accounts, and at most 1,000, whose names come after
// the given one, by name.
func (c *Client) List(ctx context.Context, after string, limit int) (accounts []auth.Summary, err error) {
	err = c.ask(ctx, "/account/list", request{After: after, Limit: limit}, &accounts)
	return accounts, err
}

// Show returns one account.
func (c *Client) Show(ctx context.Context, name string) (account auth.Summary, err error) {
	err = c.ask(ctx, "/account/show", request{Account: name}, &account)
	return account, err
}

// Enroll gives the account a new authenticator, which counts
// once Confirm saw a code of it, or at once where confirmed is set.
func (c *Client) Enroll(ctx context.Context, name string, confirmed bool) (e auth.Enrolment, err error) {
	err = c.ask(ctx, "/account/enroll", request{Account: name, Confirmed: confirmed}, &e)
	return e, err
}

// Confirm completes an enrolment with a first code.
func (c *Client) Confirm(ctx context.Context, name, code string) error {
	return c.ask(ctx, "/account/confirm", request{Account: name, Code: code}, nil)
}

// RenewRecovery gives the account's authenticator new recovery codes; the old ones don't
// count any more.
func (c *Client) RenewRecovery(ctx context.Context, name string) (codes []string, err error) {
	err = c.ask(ctx, "/account/recovery", request{Account: name}, &codes)
	return codes, err
}

// Reset takes the account's authenticator and grants away, and keeps the account.
func (c *Client) Reset(ctx context.Context, name string) error {
	return c.ask(ctx, "/account/reset", request{Account: name}, nil)
}

// Remove forgets the account and all that belongs to it.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.ask(ctx, "/account/remove", request{Account: name}, nil)
}

// CreateAppPassword issues an app password.
func (c *Client) CreateAppPassword(ctx context.Context, wanted auth.NewAppPassword) (issued auth.IssuedAppPassword, err error) {
	err = c.ask(ctx, "/app-password/create", request{
		Account: wanted.Account, Label: wanted.Label, Expires: wanted.Expires,
		Networks: wanted.Networks, ReadOnly: wanted.ReadOnly, Password: wanted.Password,
	}, &issued)
	return issued, err
}

// AppPasswords returns what may be shown of the account's app passwords, oldest first.
func (c *Client) AppPasswords(ctx context.Context, name string) (list []auth.AppPasswordSummary, err error) {
	err = c.ask(ctx, "/app-password/list", request{Account: name}, &list)
	return list, err
}

// RevokeAppPassword takes one app password away, and ends the sessions under it.
func (c *Client) RevokeAppPassword(ctx context.Context, name, id string) error {
	return c.ask(ctx, "/app-password/revoke", request{Account: name, IDs: []string{id}}, nil)
}

// RevokeAppPasswords takes all of the account's app passwords away, and says how many
// there were.
func (c *Client) RevokeAppPasswords(ctx context.Context, name string) (n int, err error) {
	err = c.ask(ctx, "/app-password/revoke", request{Account: name, All: true}, &n)
	return n, err
}

// Grants returns the account's grants that live, oldest first.
func (c *Client) Grants(ctx context.Context, name string) (list []auth.GrantSummary, err error) {
	err = c.ask(ctx, "/grant/list", request{Account: name}, &list)
	return list, err
}

// RevokeGrants ends the named grants of the account, or all where none is named, with the
// sessions under them, and says how many there were.
func (c *Client) RevokeGrants(ctx context.Context, name string, ids ...string) (n int, err error) {
	err = c.ask(ctx, "/grant/revoke", request{Account: name, IDs: ids, All: len(ids) == 0}, &n)
	return n, err
}

// Sessions returns those that are logged in, of one account unless it is "", oldest first.
func (c *Client) Sessions(ctx context.Context, account string) (list []Session, err error) {
	err = c.ask(ctx, "/session/list", request{Account: account}, &list)
	return list, err
}

// EndSession ends one session, and returns whose it was.
func (c *Client) EndSession(ctx context.Context, id string) (account string, err error) {
	var ended killed
	err = c.ask(ctx, "/session/kill", request{Session: id}, &ended)
	return ended.Account, err
}

// EndAccount ends all sessions of the account that the name means, and returns how many
// there were.
func (c *Client) EndAccount(ctx context.Context, name string) (account string, n int, err error) {
	var ended killed
	err = c.ask(ctx, "/session/kill", request{Account: name}, &ended)
	return ended.Account, ended.Sessions, err
}

// Explain says what would come of a login to the account, and why.
func (c *Client) Explain(ctx context.Context, account string, source netip.Addr) (e Explanation, err error) {
	err = c.ask(ctx, "/explain", request{Account: account, Source: source}, &e)
	return e, err
}

// Rotate makes a new key and seals all with it, which may take a while.
func (c *Client) Rotate(ctx context.Context) (r auth.Rotation, err error) {
	err = c.wait(ctx, "/key/rotate", request{}, &r)
	return r, err
}

// Events returns the events that the filter chooses, oldest first. A Limit over MaxEvents is refused.
func (c *Client) Events(ctx context.Context, f audit.Filter) (events []audit.Event, err error) {
	err = c.ask(ctx, "/events", request{Events: f}, &events)
	return events, err
}

// Ways returns how accounts signed in since then, for at most limit accounts, and at most
// 1,000, whose names come after the given one.
func (c *Client) Ways(ctx context.Context, since time.Time, after string, limit int) ([]audit.Way, error) {
	var named []way
	if err := c.wait(ctx, "/ways", request{Since: since, After: after, Limit: limit}, &named); err != nil {
		return nil, err
	}
	ways := make([]audit.Way, len(named))
	for i, w := range named {
		w.Way.Account = w.Account
		ways[i] = w.Way
	}
	return ways, nil
}

// Mark returns what the store has under audit.ChainMark; it shows no other mark.
func (c *Client) Mark(ctx context.Context, name string) (value string, err error) {
	err = c.ask(ctx, "/mark", request{Mark: name}, &value)
	return value, err
}

// ask sends one request that is soon answered.
func (c *Client) ask(ctx context.Context, path string, q request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.send(ctx, path, q, answer)
}

// wait sends one request whose answer takes its time. The server says at once that it is at work.
func (c *Client) wait(ctx context.Context, path string, q request, answer any) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	silence := time.AfterFunc(patience, func() { giveUp(errSilent) })
	defer silence.Stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotFirstResponseByte: func() { silence.Stop() },
	})
	return c.send(ctx, path, q, answer)
}

// send sends one request. Its error is an *auth.Refusal where the server refused.
func (c *Client) send(ctx context.Context, path string, q request, answer any) error {
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("admin: writing the request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("admin: writing the request: %w", err)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("admin: asking the server at %s: %w", c.path, err)
	}
	defer response.Body.Close()
	reading := json.NewDecoder(response.Body)
	if response.StatusCode != http.StatusOK {
		var p problem
		if err := reading.Decode(&p); err != nil || p.Message == "" {
			return fmt.Errorf("admin: the server at %s answered %s to %s: are command and server of the same version?",
				c.path, response.Status, path)
		}
		if p.Refused != "" {
			return &auth.Refusal{Reason: p.Refused, Message: p.Message}
		}
		return errors.New(p.Message)
	}
	if answer == nil {
		return nil
	}
	if err := reading.Decode(answer); err != nil {
		return fmt.Errorf("admin: reading the answer of the server at %s: %w", c.path, err)
	}
	return nil
}
