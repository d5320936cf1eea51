package imap

import (
	"bytes"
	"slices"
	"strings"
)

// Upstream takes what the upstream sent and returns what goes to the client: all of it,
// less the invitations that the client doesn't expect. out is valid until the next call.
func (g *Guard) Upstream(p []byte) (out []byte) {
	if len(g.start) > 0 {
		p = append(g.start, p...)
		g.start = nil
	}
	passed := 0 // p before it has been dealt with
	for i := 0; i < len(p); {
		if g.data > 0 {
			n := min(g.data, uint64(len(p)-i))
			g.data -= n
			i += int(n)
			continue
		}
		if !g.midLine && !g.goesOn {
			ours, unclear := g.answersUs(p[i:])
			if unclear {
				g.start = bytes.Clone(p[i:])
				return append(out, p[passed:i]...)
			}
			g.swallow = ours || p[i] == '+' && g.awaited != nil && g.awaited.nonSync
		} else if !g.midLine {
			g.swallow = false
		}
		n := g.response(p[i:])
		if g.swallow {
			out = append(out, p[passed:i]...)
			passed = i + n
		}
		i += n
	}
	if passed == 0 {
		return p
	}
	return append(out, p[passed:]...)
}

// answersUs says whether a line answers our own command; unclear: not enough of it is there.
func (g *Guard) answersUs(line []byte) (ours, unclear bool) {
	if g.barrier == "" {
		return false, false
	}
	for _, prefix := range []string{g.barrier + " ", barrierData} {
		if n := min(len(line), len(prefix)); string(line[:n]) == prefix[:n] {
			return n == len(prefix), n < len(prefix)
		}
	}
	return false, false
}

// response takes a line of p, or the part of one.
func (g *Guard) response(p []byte) int {
	end := bytes.IndexByte(p, '\n')
	if end >= 0 && !g.midLine {
		if p[0] == '*' && !g.goesOn && !endsInBrace(p[:end]) { // nearly every line: data, and no literal
			return end + 1
		}
		g.answer(p[:min(end+1, responseHead)], p[max(0, end+1-responseTail):end+1])
		return end + 1
	}
	n := end + 1
	if end < 0 {
		n = len(p)
	}
	g.midLine = true
	g.head = append(g.head, p[:min(n, responseHead-len(g.head))]...)
	if n >= responseTail {
		copy(g.tail[:], p[n-responseTail:n])
	} else {
		copy(g.tail[:], g.tail[n:])
		copy(g.tail[responseTail-n:], p[:n])
	}
	if end >= 0 {
		g.answer(g.head, g.tail[:])
		g.head, g.tail, g.midLine = nil, [responseTail]byte{}, false
	}
	return n
}

func endsInBrace(line []byte) bool {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return len(line) > 0 && line[len(line)-1] == '}'
}

// answer takes one line by its first and its last octets.
func (g *Guard) answer(head, tail []byte) {
	first, rest, _ := bytes.Cut(bytes.TrimRight(head, "\r\n"), []byte(" "))
	switch {
	case g.goesOn || string(first) == "*" && !isStatus(rest): // the text of a status response has no literal
		header := headerAtEnd(bytes.TrimRight(tail, "\r\n"))
		g.goesOn = header.closed()
		if g.goesOn {
			g.data = header.size
		}
	case string(first) == "*":
	case len(first) > 0 && first[0] == '+':
		g.invited()
	case g.barrier != "" && string(first) == g.barrier:
		g.barrier, g.quiet = "", true
	default:
		if i := slices.Index(g.open, string(first)); i >= 0 {
			g.open = slices.Delete(g.open, i, i+1)
			g.answered(string(first))
		}
	}
}

// isStatus says whether an untagged response is a status response (RFC 9051, section 7.1).
func isStatus(rest []byte) bool {
	word, _, _ := bytes.Cut(rest, []byte(" "))
	switch strings.ToUpper(string(word)) {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return true
	}
	return false
}

// invited: the upstream wants the literal.
func (g *Guard) invited() {
	if g.awaited != nil {
		g.literal, g.awaited = g.awaited.size, nil
	}
}

// answered: the command is over. If its literal was awaited, the upstream doesn't want it.
func (g *Guard) answered(tag string) {
	a := g.awaited
	if a == nil || a.tag != tag {
		return
	}
	g.awaited, g.within = nil, false
	if a.nonSync {
		g.literal, g.dropping = a.size, true
	}
}
