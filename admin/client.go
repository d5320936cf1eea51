package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
)

// Client asks a running server. Its methods are those of auth.Directory, and Events.
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
	return &Client{path: path, http: &http.Client{
		Transport: &http.Transport{DialContext: dial},
		Timeout:   time.Minute,
	}}, nil
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

// Reset takes the account's authenticator and grants away, and keeps the account.
func (c *Client) Reset(ctx context.Context, name string) error {
	return c.ask(ctx, "/account/reset", request{Account: name}, nil)
}

// Remove forgets the account and all that belongs to it.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.ask(ctx, "/account/remove", request{Account: name}, nil)
}

// Events returns the events that the filter chooses, oldest first.
func (c *Client) Events(ctx context.Context, f audit.Filter) (events []audit.Event, err error) {
	err = c.ask(ctx, "/events", request{Events: f}, &events)
	return events, err
}

// ask sends one request. Its error is an *auth.Refusal where the server refused.
func (c *Client) ask(ctx context.Context, path string, q request, answer any) error {
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
