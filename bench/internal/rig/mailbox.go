package rig

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// Password is every account's own. It doesn't end in a code.
const Password = "correct.horse.battery"

const (
	beforeLogin = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN"
	afterLogin  = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES THREAD=REFS " +
		"THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED I18NLEVEL=1 " +
		"CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY " +
		"PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE"

	chunk      = 64 << 10
	mostInHand = 1 << 10 // octets of a literal that isn't a message
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// ServeMailboxes is the upstream: as much of an IMAP server as a benchmark needs, which takes
// Password with any name. It says what Dovecot says, for proxies read it. "DOWN n" is a
// command of its own, answered with n octets in a literal. It returns when the listener is
// closed.
func ServeMailboxes(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			m := &mailbox{in: bufio.NewReaderSize(c, 1<<10), out: c}
			m.serve() // its error is the end of the connection
		}()
	}
}

// A mailbox is one connection.
type mailbox struct {
	in  *bufio.Reader
	out io.Writer
}

func (m *mailbox) serve() error {
	if err := m.say("* OK [CAPABILITY " + beforeLogin + "] Dovecot ready."); err != nil {
		return err
	}
	for {
		line, err := m.command()
		if err != nil {
			return err
		}
		tag, rest, _ := strings.Cut(line, " ")
		name, argument, _ := strings.Cut(rest, " ")
		if name = strings.ToUpper(name); name == "LOGOUT" {
			return m.say("* BYE Logging out\r\n" + tag + " OK Logout completed.")
		}
		if err := m.answer(tag, name, argument); err != nil {
			return err
		}
	}
}

func (m *mailbox) answer(tag, name, argument string) error {
	switch name {
	case "CAPABILITY":
		return m.say("* CAPABILITY " + afterLogin + "\r\n" + tag + " OK Capability completed.")
	case "ID":
		return m.say("* ID (\"name\" \"Dovecot\")\r\n" + tag + " OK ID completed.")
	case "LOGIN":
		return m.login(tag, strings.Contains(argument, Password))
	case "AUTHENTICATE":
		return m.authenticate(tag, argument)
	case "NOOP", "APPEND":
		return m.say(tag + " OK " + name + " completed.")
	case "IDLE":
		return m.idle(tag)
	case "DOWN":
		return m.down(tag, argument)
	}
	return m.say(tag + " BAD Unknown command.")
}

// command reads one with its literals: those of APPEND lead nowhere, those of LOGIN are its
// arguments.
func (m *mailbox) command() (string, error) {
	whole := ""
	for {
		line, err := m.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		whole += line
		size, sync, ok := literal(line)
		if !ok {
			return whole, nil
		}
		if sync {
			if err := m.say("+ OK"); err != nil {
				return "", err
			}
		}
		if size > mostInHand {
			if err := Discard(m.in, size); err != nil {
				return "", err
			}
			continue
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(m.in, text); err != nil {
			return "", err
		}
		whole += string(text)
	}
}

// literal reads the end of a line (RFC 9051, section 4.3).
func literal(line string) (size int64, sync, ok bool) {
	open := strings.LastIndexByte(line, '{')
	if open < 0 || !strings.HasSuffix(line, "}") {
		return 0, false, false
	}
	digits, nonSync := strings.CutSuffix(line[open+1:len(line)-1], "+")
	size, err := strconv.ParseInt(digits, 10, 64)
	return size, !nonSync, err == nil
}

// authenticate is PLAIN (RFC 4616), with the initial response or without.
func (m *mailbox) authenticate(tag, argument string) error {
	_, message, initial := strings.Cut(argument, " ")
	if !initial {
		if err := m.say("+ "); err != nil {
			return err
		}
		line, err := m.in.ReadString('\n')
		if err != nil {
			return err
		}
		message = strings.TrimSpace(line)
	}
	plain, err := base64.StdEncoding.DecodeString(message)
	return m.login(tag, err == nil && strings.HasSuffix(string(plain), "\x00"+Password))
}

func (m *mailbox) login(tag string, ok bool) error {
	if !ok {
		return m.say(tag + " NO [AUTHENTICATIONFAILED] Authentication failed.")
	}
	return m.say(tag + " OK [CAPABILITY " + afterLogin + "] Logged in")
}

func (m *mailbox) idle(tag string) error {
	if err := m.say("+ idling"); err != nil {
		return err
	}
	if _, err := m.in.ReadString('\n'); err != nil {
		return err
	}
	return m.say(tag + " OK Idle completed.")
}

func (m *mailbox) down(tag, argument string) error {
	left, err := strconv.ParseInt(argument, 10, 64)
	if err != nil {
		return m.say(tag + " BAD DOWN wants a number.")
	}
	if err := m.say(fmt.Sprintf("* 1 FETCH (BODY[] {%d}", left)); err != nil {
		return err
	}
	b := chunks.Get().(*[]byte)
	defer chunks.Put(b)
	for left > 0 {
		n := min(left, chunk)
		if _, err := m.out.Write((*b)[:n]); err != nil {
			return err
		}
		left -= n
	}
	return m.say(")\r\n" + tag + " OK Fetch completed.")
}

func (m *mailbox) say(text string) error {
	_, err := io.WriteString(m.out, text+"\r\n")
	return err
}

// Discard reads n octets, in large pieces.
func Discard(r io.Reader, n int64) error {
	b := chunks.Get().(*[]byte)
	defer chunks.Put(b)
	for n > 0 {
		got, err := r.Read((*b)[:min(n, chunk)])
		n -= int64(got)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}
