package imap

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
)

// Bounds of what a Guard keeps of a session.
const (
	// All lines of a command, literals not counted. It must be less than what the upstream
	// takes (Dovecot: imap_max_line_length, 64 KiB): of a longer APPEND, Dovecot 2.3.19 refuses
	// what it has read and takes the rest of the same line for the next command. What we make
	// longer, a SELECT by the octet that EXAMINE has more, still fits.
	maxGuardedLines   = 60 << 10
	maxGuardedLiteral = 1 << 40 // no mailbox has more; a server's arithmetic may overflow
	maxGuardedTag     = 128
	maxOpen           = 64 // commands that the upstream has not answered
	responseHead      = 256
	responseTail      = len("{18446744073709551615+}\r\n")
)

// ErrUnfollowable says that a client sent what servers read in more than one way. The
// session has to end, for we could not tell its next command any more.
var ErrUnfollowable = errors.New("imap: ambiguous command")

// A Guard follows a session after login without understanding it: it finds the
// commands in what the client sends, and the answers to them in what the upstream
// sends, and passes all octets on but a few. It refuses commands that would undo the
// login or blind it (see refused), and cleans ID. In a read-only session it refuses all that
// might change the mailboxes (see changesNothing).
//
// The hard part is to never take a command for the inside of a literal, while the upstream
// reads a command there. Whether {n} is followed by a literal is the upstream's decision,
// and of {n+} it depends on the server and on the command whether a refused one is
// swallowed. So a literal is sent on only when the upstream has asked for it: {n+} becomes
// {n}, and the upstream's "+" is kept from the client, who doesn't expect one.
//
// For that "+" to be the literal's, all commands before must have been answered. Tagged
// lines don't prove it: Dovecot 2.3.19 repeats what a client sent in its answers, line ends
// and all, so a client can forge them. So before a command with a literal we send a command
// of our own, whose tag the client can't guess, and wait for its answer; the client sees
// neither.
//
// It holds at most one command line. A Guard is not safe for concurrent use.
type Guard struct {
	ReadOnly bool // the client may look at everything and change nothing; set before the first call

	open []string // tags of the commands that were sent on and not answered

	// The client's direction.
	line     []byte   // the beginning of a line whose end hasn't come
	lines    int      // octets of the command's lines before this one
	held     []byte   // a whole line that waits for the upstream
	within   bool     // the next line goes on with the command of the last tag in open
	dropping bool     // what is left of the command goes nowhere
	literal  uint64   // octets of a literal still to come
	awaited  *awaited // a literal that the upstream hasn't asked for yet
	barrier  string   // tag of our own command that hasn't been answered
	quiet    bool     // it has been: nothing is under way but what is held
	newTag   func() string
	said     map[string]string // with ID

	// The upstream's direction.
	head    []byte             // the line's first octets, where it comes in parts
	tail    [responseTail]byte // and its last
	midLine bool
	start   []byte // the line's first octets, while they may be those of an answer to us
	swallow bool   // this line is kept from the client
	goesOn  bool   // this line goes on with a response, behind a literal
	data    uint64 // octets of a literal still to come
}

type awaited struct {
	tag     string
	size    uint64
	nonSync bool
}

// refused are the commands that the upstream never gets: they would let the client log
// in again past the second factor (RFC 8437, RFC 9051 section 6.2), or hide commands
// from us (RFC 4978).
var refused = map[string]bool{
	"UNAUTHENTICATE": true, "STARTTLS": true, "LOGIN": true, "AUTHENTICATE": true, "COMPRESS": true,
}

// These stand for a refused command: no server knows them, so their BAD comes in order with
// all other answers, and says to people what happened.
const (
	refusedAlways   = " REFUSED-BY-IMAPWARDEN\r\n"
	refusedReadOnly = " REFUSED-BY-IMAPWARDEN-READ-ONLY\r\n"
)

const (
	barrierCommand = " CAPABILITY\r\n"
	barrierData    = "* CAPABILITY "
)

// Client takes n octets of what the client sent and returns what goes to the upstream
// for them; out is valid until the next call. Where it takes and returns nothing although
// there is something, the client has to wait: call it again when Upstream has been
// called. It may then return octets that it held, also for an empty p.
func (g *Guard) Client(p []byte) (out []byte, n int, err error) {
	switch {
	case g.awaited != nil, g.barrier != "":
		return nil, 0, nil
	case g.held != nil:
		line := g.held
		g.held, g.lines = nil, 0 // it begins a command
		out, err = g.take(line)
		return out, 0, err
	case g.literal > 0:
		n = int(min(g.literal, uint64(len(p))))
		g.literal -= uint64(n)
		if g.dropping {
			return nil, n, nil
		}
		return p[:n], n, nil
	}
	end := bytes.IndexByte(p, '\n')
	if n = end + 1; end < 0 {
		n = len(p)
	}
	if !g.within && !g.dropping {
		g.lines = 0 // a command begins
	}
	if g.lines+len(g.line)+n > maxGuardedLines {
		return nil, 0, ErrTooLong
	}
	if end < 0 {
		g.line = append(g.line, p...)
		return nil, n, nil
	}
	line := p[:n]
	if len(g.line) > 0 {
		line = append(g.line, line...)
		g.line = nil
	}
	out, err = g.take(line)
	return out, n, err
}

// Introduced returns what the client has said of itself with ID since the last call, as far as
// it is its "name" and "version"; nil where it has said nothing.
func (g *Guard) Introduced() map[string]string {
	said := g.said
	g.said = nil
	return said
}

// Holding says whether Client holds a whole line or waits for the upstream.
func (g *Guard) Holding() bool { return g.held != nil || g.awaited != nil || g.barrier != "" }

// take decides about one whole line.
func (g *Guard) take(line []byte) ([]byte, error) {
	body := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(body, "\r\x00") {
		return nil, ErrUnfollowable
	}
	header := headerAtEnd(body)
	if header.size > maxGuardedLiteral {
		return nil, ErrUnfollowable
	}
	g.lines += len(line)
	switch {
	case g.dropping:
		g.drop(header)
		return nil, nil
	case g.within:
		return g.proceed(line, body, header)
	}
	return g.begin(line, body, header)
}

// drop goes on with a command that goes nowhere. A synchronizing literal isn't invited,
// so it doesn't come.
func (g *Guard) drop(header literalHeader) {
	g.dropping = header.nonSync()
	if g.dropping {
		g.literal = header.size
	}
}

// begin decides about a command by its first line.
func (g *Guard) begin(line, body []byte, header literalHeader) ([]byte, error) {
	tag, rest, found := bytes.Cut(body, []byte(" "))
	if !found {
		// Only DONE (RFC 2177) and nothing at all come without a space. A server may answer either
		// as if it were a command, so no command may have that tag: see isTag.
		if len(body) > 0 && !bytes.EqualFold(body, []byte("DONE")) {
			return nil, ErrUnfollowable
		}
		return line, nil
	}
	words := bytes.TrimLeft(rest, " ")
	name, arguments, _ := bytes.Cut(words, []byte(" "))
	if !isTag(tag) || isUnclear(name) {
		return nil, ErrUnfollowable
	}
	// IDLE's "+" invites DONE (RFC 2177). Dovecot sends it whatever stands behind IDLE, and
	// there it would pass for a literal's.
	if bytes.EqualFold(name, []byte("IDLE")) && !bytes.HasSuffix(body, name) {
		return nil, ErrUnfollowable
	}
	command := strings.ToUpper(string(name))
	if !g.mayBegin(string(tag)) {
		g.held = bytes.Clone(line)
		return nil, nil
	}
	refusal := g.refusal(name, arguments)
	if header.closed() && !g.quiet && refusal == "" && command != "ID" {
		g.held = bytes.Clone(line)
		return g.askQuiet(), nil
	}
	g.quiet = false
	g.open = append(g.open, string(tag))
	switch {
	case refusal != "":
		g.drop(header)
		return append(bytes.Clone(tag), refusal...), nil
	case command == "ID":
		fields, said, ok := cleanID(body[len(tag)+len(" ID"):])
		g.said = said
		if !ok {
			g.drop(header)
		}
		return slices.Concat(tag, []byte(" ID "), fields, []byte("\r\n")), nil
	case g.ReadOnly && command == "SELECT":
		line = examine(line, len(body)-len(words))
	}
	return g.pass(line, string(tag), header), nil
}

// refusal is what stands for a command that the upstream never gets; "" where it gets it.
func (g *Guard) refusal(name, arguments []byte) string {
	switch {
	case refused[strings.ToUpper(string(name))]:
		return refusedAlways
	case g.ReadOnly && !changesNothing(name, arguments):
		return refusedReadOnly
	}
	return ""
}

// isTag says whether tag is one (RFC 9051, section 9) and can't be taken for anything else:
// an answer that began with "+" would look like an invitation.
func isTag(tag []byte) bool {
	return len(tag) > 0 && len(tag) <= maxGuardedTag && !bytes.EqualFold(tag, []byte("DONE")) &&
		!bytes.ContainsFunc(tag, func(r rune) bool { return r >= 0x80 || !isTagChar(byte(r)) })
}

// isUnclear says whether a name holds what some server might take for a space or a line end,
// or fold to an ASCII letter (LOGİN).
func isUnclear(name []byte) bool {
	return bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// mayBegin says whether a command can be sent on now: a tag names one open command at a time.
func (g *Guard) mayBegin(tag string) bool {
	return len(g.open) < maxOpen && !slices.Contains(g.open, tag)
}

// askQuiet is a command of ours, to be sent before one with a literal. CAPABILITY has no
// effect, and no server reports changes of the mailbox with it (RFC 9051, section 7.5.1,
// forbids some of them while the client waits for a SEARCH).
func (g *Guard) askQuiet() []byte {
	if len(g.open) > 0 {
		return nil // wait for these first; then this is asked again
	}
	if g.newTag == nil {
		g.newTag = func() string { return rand.Text()[:20] }
	}
	g.barrier = g.newTag()
	return []byte(g.barrier + barrierCommand)
}

// proceed goes on with a command behind a literal. RFC 9051's grammar has a space, a
// closing parenthesis or the line's end there; anything else might be a command to a server
// that thinks it is through with this one.
func (g *Guard) proceed(line, body []byte, header literalHeader) ([]byte, error) {
	if len(body) > 0 && body[0] != ' ' && body[0] != ')' {
		return nil, ErrUnfollowable
	}
	if len(g.open) == 0 { // answered before its end came: what is left of it is nobody's
		g.within = false
		g.drop(header)
		return []byte("\r\n"), nil
	}
	return g.pass(line, g.open[len(g.open)-1], header), nil
}

// pass sends a line on, and waits where a literal follows.
func (g *Guard) pass(line []byte, tag string, header literalHeader) []byte {
	g.within = header.closed()
	if !g.within {
		return line
	}
	g.awaited = &awaited{tag, header.size, header.nonSync()}
	if header.nonSync() {
		plus := bytes.LastIndexByte(line, '+')
		line = slices.Concat(line[:plus], line[plus+1:])
	}
	return line
}
