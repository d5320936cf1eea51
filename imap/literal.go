package imap

import "math"

// literalHeader watches a line octet by octet and knows whether it ends in {n} or
// {n+}, the size of a literal that follows. Whoever reads or skips a command asks it
// at the line's end, so that what a client sends as a literal is never taken for a
// command, even where the command itself was broken.
type literalHeader struct {
	size  uint64 // saturates: a size that doesn't fit is a size too large
	state headerState
}

type headerState uint8

const (
	noHeader     headerState = iota
	afterBrace               // {
	inDigits                 // {12
	afterPlus                // {12+
	closedSync               // {12}
	closedNoSync             // {12+}
)

// next takes the line's next octet. The line's own end leaves a closed header as it is.
func (h *literalHeader) next(c byte) {
	switch {
	case (c == '\r' || c == '\n') && h.closed():
	case c == '{':
		*h = literalHeader{state: afterBrace}
	case isDigit(c) && (h.state == afterBrace || h.state == inDigits):
		h.state = inDigits
		if h.size > (math.MaxUint64-9)/10 {
			h.size = math.MaxUint64
		} else {
			h.size = h.size*10 + uint64(c-'0')
		}
	case c == '+' && h.state == inDigits:
		h.state = afterPlus
	case c == '}' && h.state == inDigits:
		h.state = closedSync
	case c == '}' && h.state == afterPlus:
		h.state = closedNoSync
	default:
		h.state = noHeader
	}
}

// open says whether the header may still become one, at least with one more octet.
func (h *literalHeader) open() bool { return afterBrace <= h.state && h.state <= afterPlus }

func (h *literalHeader) closed() bool { return h.state >= closedSync }

// nonSync says whether the literal comes without being invited (RFC 7888).
func (h *literalHeader) nonSync() bool { return h.state == closedNoSync }
