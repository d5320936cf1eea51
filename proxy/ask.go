package proxy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-sasl"

	"imapwarden/imap"
)

// Bounds of a session before login.
const (
	maxCommands = 100
	maxBad      = 3
)

// mechanisms are offered and understood over TLS.
var mechanisms = []string{sasl.Plain, sasl.Login}

// wantedID is what we keep of a client's ID: it goes into the audit and on to the upstream.
var wantedID = []string{"name", "version", "os", "os-version", "vendor"}

// ask talks with the client until it presents credentials, as s.attempt.
func (s *session) ask() error {
	for {
		if s.in == nil { // at first, and after STARTTLS
			s.in = imap.NewDecoder(s.words())
			s.in.Continue = func() error { return s.write("+ OK\r\n") }
		}
		wait := s.server.Timeouts.Unauthenticated
		if s.commands == 0 { // who never says a word doesn't get to hold a place for long
			wait = s.server.Timeouts.Command
		}
		s.deadline(wait)
		if err := s.in.Await(); err != nil {
			return s.lost(err)
		}
		s.deadline(s.server.Timeouts.Command)
		if s.commands++; s.commands > maxCommands {
			return s.bye(endBadCommands, "Too many commands before login")
		}
		a, err := s.command()
		if err != nil {
			return err
		}
		if a != nil {
			s.attempt = a
			return nil
		}
	}
}

// words is what the client says, as far as it has a claim on our memory.
func (s *session) words() io.Reader {
	if s.secure {
		return &plaintext{s.tls, s.below}
	}
	return s.conn
}

// command reads and answers one command. LOGIN and AUTHENTICATE give an attempt.
func (s *session) command() (*attempt, error) {
	tag, name, err := s.in.Begin()
	if speaksOther[tag] && !isCommand[name] {
		return nil, s.bye(endForeign, "This is an IMAP server")
	}
	if err != nil {
		return nil, s.complain(tag, err)
	}
	switch name {
	case "CAPABILITY":
		return nil, s.simple(tag, fmt.Sprintf("* CAPABILITY %s\r\n%s OK CAPABILITY completed\r\n", s.capabilities(), tag))
	case "NOOP":
		return nil, s.simple(tag, tag+" OK NOOP completed\r\n")
	case "LOGOUT":
		if err := s.simple(tag, fmt.Sprintf("* BYE Logging out\r\n%s OK LOGOUT completed\r\n", tag)); err != nil {
			return nil, err
		}
		return nil, endLogout
	case "ID":
		return nil, s.identify(tag)
	case "STARTTLS":
		return nil, s.upgrade(tag)
	case "LOGIN", "AUTHENTICATE":
		if !s.secure {
			return nil, s.demandTLS(tag)
		}
		if name == "LOGIN" {
			return s.plainLogin(tag)
		}
		return s.authenticate(tag)
	}
	if tag == "PROXY" && len(s.listener.TrustedProxies) > 0 {
		return nil, endProxyHeader // somebody who isn't trusted claims an address
	}
	return nil, s.complain(tag, &imap.SyntaxError{Text: "Unknown command, or not before login"})
}

// isCommand has what command knows.
var isCommand = map[string]bool{
	"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "ID": true, "STARTTLS": true, "LOGIN": true, "AUTHENTICATE": true,
}

// speaksOther has the first words of protocols that a browser can be made to speak here
// (ALPACA): they get no echo and no second line.
var speaksOther = map[string]bool{
	"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "OPTIONS": true,
	"CONNECT": true, "TRACE": true, "PATCH": true, "PRI": true, "EHLO": true, "HELO": true,
	"Host:": true,
}

// simple answers a command without arguments.
func (s *session) simple(tag, answer string) error {
	if err := s.in.CRLF(); err != nil {
		return s.complain(tag, err)
	}
	return s.write(answer)
}

// complain answers what could not be understood, and ends the session with the third.
func (s *session) complain(tag string, err error) error {
	var broken *imap.SyntaxError
	if !errors.As(err, &broken) {
		return s.lost(err)
	}
	if err := s.in.Discard(); err != nil {
		return s.lost(err)
	}
	if tag == "" {
		tag = "*"
	}
	if err := s.write(fmt.Sprintf("%s BAD %s\r\n", tag, broken.Text)); err != nil {
		return err
	}
	if s.bad++; s.bad >= maxBad {
		return s.bye(endBadCommands, "Too many bad commands")
	}
	return nil
}

// lost ends a session whose input has ended or can't be followed.
func (s *session) lost(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, imap.ErrTooLong):
		return s.bye(endTooLong, "Command too long")
	case s.ctx.Err() != nil:
		return s.bye(endDrained, "Server shutting down, please reconnect")
	case errors.As(err, &timeout) && timeout.Timeout():
		return s.bye(endTimeout, "Login took too long")
	}
	return err
}

func (s *session) capabilities() imap.Capabilities {
	if s.secure {
		return imap.BeforeLogin(mechanisms...)
	}
	return imap.BeforeTLS()
}

// identify answers ID (RFC 2971). A mail program that fails here may stop syncing for a
// day (iOS), so whatever is well-formed is taken.
func (s *session) identify(tag string) error {
	wanted := wantedID
	if s.server.isWebmail(s.peer.Addr()) {
		wanted = slices.Concat(wantedID, originID)
	}
	fields, err := s.in.ID(100, wanted...)
	if err != nil {
		return s.complain(tag, err)
	}
	s.clientID = fields
	s.follow(fields)
	s.says(fields)
	return s.write(fmt.Sprintf("* ID (\"name\" \"imapwarden\")\r\n%s OK ID completed\r\n", tag))
}

// upgrade is STARTTLS (RFC 9051, section 6.2.1). What the client sent behind it is the
// handshake's: plaintext there makes it fail, and is never a command.
func (s *session) upgrade(tag string) error {
	if s.secure {
		return s.complain(tag, &imap.SyntaxError{Text: "TLS is already active"})
	}
	if err := s.in.CRLF(); err != nil {
		return s.complain(tag, err)
	}
	if err := s.write(tag + " OK Begin TLS negotiation now\r\n"); err != nil {
		return err
	}
	return s.secureOver(&preread{Conn: s.conn, first: s.in.Buffered()})
}

// demandTLS refuses credentials in plaintext at once: no continuation invites more of
// them, and what came is dropped unread (RFC 5530, PRIVACYREQUIRED).
func (s *session) demandTLS(tag string) error {
	if err := s.in.Discard(); err != nil {
		return s.lost(err)
	}
	return s.write(fmt.Sprintf("%s NO [%s] Send STARTTLS first\r\n", tag, goimap.ResponseCodePrivacyRequired))
}

func (s *session) plainLogin(tag string) (*attempt, error) {
	user, password, err := s.in.Login()
	if err != nil {
		return nil, s.complain(tag, err)
	}
	return s.newAttempt(tag, imap.Credentials{Username: string(user), Password: password}), nil
}

// authenticate runs a SASL exchange (RFC 9051, section 6.2.2), which only captures.
func (s *session) authenticate(tag string) (*attempt, error) {
	name, initial, err := s.in.Authenticate()
	if err != nil {
		return nil, s.complain(tag, err)
	}
	var c imap.Credentials
	mechanism, ok := imap.NewSASL(name, &c)
	if !ok || !slices.Contains(mechanisms, name) {
		return nil, s.write(fmt.Sprintf("%s NO [%s] Mechanism not offered\r\n", tag, goimap.ResponseCodeCannot))
	}
	var response []byte // nil: the client waits for the first challenge
	if initial != "" {
		if response, err = imap.DecodeInitial(initial); err != nil {
			return nil, s.complain(tag, &imap.SyntaxError{Text: "Broken base64"})
		}
	}
	for {
		challenge, done, err := mechanism.Next(response)
		if err != nil {
			return nil, s.complain(tag, &imap.SyntaxError{Text: "Broken " + name + " response"})
		}
		if done {
			return s.newAttempt(tag, c), nil
		}
		if response, err = s.challenge(challenge); err != nil {
			return nil, s.complain(tag, err)
		}
	}
}

// challenge sends one and reads the client's answer.
func (s *session) challenge(challenge []byte) ([]byte, error) {
	if err := s.write("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n"); err != nil {
		return nil, err
	}
	line, err := s.in.Line()
	switch {
	case err != nil:
		return nil, err
	case line == "*":
		return nil, &imap.SyntaxError{Text: "Authentication cancelled"}
	}
	response, err := imap.DecodeBase64(line)
	if err != nil {
		return nil, &imap.SyntaxError{Text: "Broken base64"}
	}
	return response, nil
}
