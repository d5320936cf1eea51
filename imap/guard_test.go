package imap

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A guarded session for tests: what the client sends goes through a Guard to a scripted
// upstream, whose answers go back through it.
type guarded struct {
	g    Guard
	sent []byte // by the client, not yet taken
	up   []byte // what reached the upstream
	down []byte // what reached the client
	err  error

	silent bool // the test answers barriers itself
}

func (s *guarded) client(p string) {
	s.sent = append(s.sent, p...)
	s.run()
}

func (s *guarded) run() {
	s.g.newTag = func() string { return "BARRIER" }
	for s.err == nil {
		out, n, err := s.g.Client(s.sent)
		s.sent, s.err = s.sent[n:], err
		if string(out) == "BARRIER CAPABILITY\r\n" && !s.silent { // an upstream that is quiet says so
			s.down = append(s.down, s.g.Upstream([]byte("* CAPABILITY IMAP4rev1\r\nBARRIER OK done\r\n"))...)
			continue
		}
		s.up = append(s.up, out...)
		if n == 0 && len(out) == 0 || len(s.sent) == 0 && !s.g.Holding() {
			return
		}
	}
}

func (s *guarded) upstream(p string) {
	s.down = append(s.down, s.g.Upstream([]byte(p))...)
	s.run()
}

// wants compares what came through since the last time.
func (s *guarded) wants(t *testing.T, up, down string) {
	t.Helper()
	if string(s.up) != up || string(s.down) != down {
		t.Errorf("upstream got %q, want %q; client got %q, want %q", s.up, up, s.down, down)
	}
	s.up, s.down = nil, nil
}

func TestGuardPassesOn(t *testing.T) {
	var s guarded
	for _, text := range []string{
		"a SELECT INBOX\r\n", "b UID FETCH 1:* (FLAGS)\r\n", "c IDLE\r\n", "DONE\r\n", "\r\n", "d LOGOUT\n",
		"e SEARCH SUBJECT \"UNAUTHENTICATE\"\r\n", "f XLOGIN x\r\n", "login NOOP\r\n", "g idle\r\n", "done\r\n",
	} {
		s.client(text)
		s.wants(t, text, "")
	}
}

func TestGuardRefuses(t *testing.T) {
	for _, command := range []string{
		"UNAUTHENTICATE", "unauthenticate", "STARTTLS", "LOGIN alice secret", "Login \"a\" \"b\"",
		"AUTHENTICATE PLAIN AGEAYg==", "COMPRESS DEFLATE", " UNAUTHENTICATE",
	} {
		var s guarded
		s.client("a " + command + "\r\nb NOOP\r\n")
		s.wants(t, "a REFUSED-BY-IMAPWARDEN\r\nb NOOP\r\n", "")
	}
	t.Run("with literals", func(t *testing.T) {
		var s guarded
		s.client("a LOGIN {5+}\r\nalice {6+}\r\nsecret\r\nb NOOP\r\n")
		s.wants(t, "a REFUSED-BY-IMAPWARDEN\r\nb NOOP\r\n", "")
		s.upstream("a BAD no\r\nb OK\r\n")
		s.client("c LOGIN {5}\r\n")
		s.wants(t, "c REFUSED-BY-IMAPWARDEN\r\n", "a BAD no\r\nb OK\r\n")
		s.client("d NOOP\r\n") // uninvited, the literal doesn't come
		s.wants(t, "d NOOP\r\n", "")
	})
}

func TestGuardSendsLiteralsWhenAskedFor(t *testing.T) {
	var s guarded
	s.client("a APPEND x (\\Seen) {5}\r\n")
	s.wants(t, "a APPEND x (\\Seen) {5}\r\n", "")
	s.upstream("+ OK\r\n")
	s.client("b UNA\r\nb NOOP\r\n")
	s.wants(t, "b UNA\r\nb NOOP\r\n", "+ OK\r\n")

	s = guarded{}
	s.client("a APPEND x {5+}\r\nhello {3+}\r\nyou\r\nb NOOP\r\n")
	s.wants(t, "a APPEND x {5}\r\n", "")
	s.upstream("* 1 EXISTS\r\n+ go on\r\n* 2 EXISTS\r\n")
	s.wants(t, "hello {3}\r\n", "* 1 EXISTS\r\n* 2 EXISTS\r\n")
	s.upstream("+ go")
	s.upstream(" on\r")
	s.upstream("\na")
	s.wants(t, "you\r\nb NOOP\r\n", "a")
	s.upstream(" OK done\r\nb OK done\r\n")
	s.wants(t, "", " OK done\r\nb OK done\r\n")
}

// A literal that the upstream doesn't want never becomes commands.
func TestGuardRefusedLiteral(t *testing.T) {
	for _, answer := range []string{"a NO [TRYCREATE]\r\n", "a BAD x\r\n", "a OK\r\n"} {
		var s guarded
		s.client("a NOOP {18+}\r\nb UNAUTHENTICATE\r\n {4+}\r\nc X\n\r\nd NOOP\r\n")
		s.wants(t, "a NOOP {18}\r\n", "")
		s.upstream(answer)
		s.wants(t, "d NOOP\r\n", answer)

		s = guarded{}
		s.client("a NOOP {18}\r\nb UNAUTHENTICATE\r\n")
		s.wants(t, "a NOOP {18}\r\n", "")
		s.upstream(answer)
		s.wants(t, "b REFUSED-BY-IMAPWARDEN\r\n", answer)
	}
}

// A "+" that may belong to an earlier command, or an answer to one with the same tag,
// isn't taken for the literal's.
func TestGuardWaitsForEarlierCommands(t *testing.T) {
	var s guarded
	s.client("a IDLE\r\nb APPEND x {20}\r\n")
	s.wants(t, "a IDLE\r\n", "")
	s.upstream("+ idling\r\n")
	s.client("c UNAUTHENTICATE\r\n  ")
	s.wants(t, "", "+ idling\r\n")
	s.upstream("a BAD expected DONE\r\n")
	s.wants(t, "b APPEND x {20}\r\n", "a BAD expected DONE\r\n")

	s = guarded{}
	s.client("a FETCH 1 BODY[]\r\na NOOP\r\n")
	s.wants(t, "a FETCH 1 BODY[]\r\n", "")
	s.upstream("* 1 FETCH (BODY[] {6}\r\na OK\r\n)\r\n")
	s.wants(t, "", "* 1 FETCH (BODY[] {6}\r\na OK\r\n)\r\n")
	s.upstream("a OK done\r\n")
	s.wants(t, "a NOOP\r\n", "a OK done\r\n")
}

// What stands in a literal or a text of the upstream's is no answer.
func TestGuardUpstreamData(t *testing.T) {
	var s guarded
	s.client("a APPEND x {3+}\r\nabc\r\n")
	data := "* 1 FETCH (BODY[1] {9}\r\n+ go on\r\n BODY[2] {6}\r\na OK\r\n)\r\n* OK look {99}\r\n* LIST () \"/\" {4}\r\n+ \r\n\r\n"
	s.upstream(data)
	s.wants(t, "a APPEND x {3}\r\n", data)
	s.upstream("+ OK\r\n")
	s.wants(t, "abc\r\n", "")
}

func TestGuardID(t *testing.T) {
	for sent, want := range map[string]string{
		`a ID NIL`:                        `a ID NIL`,
		`a id ("name" "x" "version" NIL)`: `a ID ("name" "x" "version" NIL)`,
		`a ID ("x-originating-ip" "1.2.3.4" "name" "x")`:         `a ID ("name" "x")`,
		`a ID ("X-Originating-IP" "1.2.3.4")`:                    `a ID NIL`,
		`a ID ("x-forward-foo" "1" "x-multiplex" "1" "os" "\"")`: `a ID ("os" "\"")`,
		`a ID`:                           `a ID NIL`,
		`a ID nonsense`:                  `a ID NIL`,
		`a ID ("name" "x"`:               `a ID NIL`,
		`a  ID ("x-originating-ip" "1")`: `a ID NIL`,
		"a ID (\"x-originating-ip\" {7+}\r\n1.2.3.4)": `a ID NIL`,
		"a ID ({16+}\r\nx-originating-ip \"1\")":      `a ID NIL`,
	} {
		var s guarded
		s.client(sent + "\r\nb NOOP\r\n")
		s.wants(t, want+"\r\nb NOOP\r\n", "")
	}
}

func TestGuardUnfollowable(t *testing.T) {
	for _, sent := range []string{
		" NOOP\r\n", " \r\n", "a\tUNAUTHENTICATE\r\n", "a UNAUTHENTICATE\tx\r\n", "a NO\x00OP\r\n",
		"a NOOP\rb UNAUTHENTICATE\r\n", "DONE{5+}\r\n", strings.Repeat("x", 129) + " NOOP\r\n",
		// Servers answer these as if they were commands, or invite what is no literal.
		"foo\r\n", "DONE NOOP\r\n", "done IDLE\r\n", "+x NOOP {48}\r\n", "+ NOOP\r\n", "* NOOP\r\n", "\"a NOOP\r\n", "\xe4 NOOP\r\n",
		"a IDLE {9}\r\n", "a idle {9+}\r\n", "a IDLE \r\n", "a IDLE x\r\n", "a IDLEX\x01\r\n",
		// A server may fold these to names that are refused, or see a space in them.
		"a LOG\u0130N x y\r\n", "a \u017fTARTTLS\r\n", "a \u0131DLE\r\n", "a UID\u00a0STORE 1 FLAGS ()\r\n", "a UID\u0085STORE 1 FLAGS ()\r\n", "a NOOP\x80\r\n", "a NOOP\xff\r\n",
		"a APPEND x {18446744073709551621}\r\n", "a APPEND x {1099511627777+}\r\n",
	} {
		var s guarded
		s.client(sent)
		if !errors.Is(s.err, ErrUnfollowable) || len(s.up) > 0 {
			t.Errorf("%.40q: %v, upstream got %q", sent, s.err, s.up)
		}
	}
}

// A command that is too long for the upstream could be two to it. All its lines count.
func TestGuardLongCommands(t *testing.T) {
	for name, sent := range map[string]string{
		"a line without end":  "a SEARCH " + strings.Repeat("x", maxGuardedLines),
		"a long APPEND":       "a APPEND INBOX " + strings.Repeat("()", 32769) + "z COMPRESS DEFLATE\r\n",
		"lines that are long": "a SEARCH " + strings.Repeat("x", maxGuardedLines/2) + " {1}\r\n",
	} {
		var s guarded
		s.client(sent)
		s.upstream("+ \r\n")
		if s.err == nil {
			s.client("x" + strings.Repeat(" ", maxGuardedLines/2))
		}
		if !errors.Is(s.err, ErrTooLong) {
			t.Errorf("%s: %v", name, s.err)
		}
	}
	var s guarded
	for range 3 {
		line := "a UID FETCH " + strings.Repeat("1,", 30000) + "1 FLAGS\r\n"
		s.client(line)
		s.wants(t, line, "")
		s.upstream("a OK\r\n")
		s.wants(t, "", "a OK\r\n")
	}
	if s.err != nil {
		t.Error(s.err)
	}
}

// A server that answers a great literal before its end doesn't get the rest as commands.
func TestGuardAnsweredEarly(t *testing.T) {
	var s guarded
	s.client("a APPEND x {5}\r\n")
	s.upstream("+ OK\r\n")
	s.client("hel")
	s.upstream("a NO [OVERQUOTA]\r\n")
	s.client("lo {3+}\r\nabc UNAUTHENTICATE\r\nb NOOP\r\n")
	s.wants(t, "a APPEND x {5}\r\nhello\r\nb NOOP\r\n", "+ OK\r\na NO [OVERQUOTA]\r\n")
}

// The same octets come out however both directions are cut.
func TestGuardSplits(t *testing.T) {
	client := "a APPEND \"x{3+}\" {5+}\r\nhello {2}\r\nhi\r\nb ID (\"x-session-id\" \"1\")\r\nc UNAUTHENTICATE\r\nd LOGIN {1+}\r\nx y\r\ne NOOP\r\n"
	answers := []string{"* 1 FETCH (X {4}\r\n+ \r\n)\r\n+ one\r\n", "+ two\r\n", "a OK\r\nb OK\r\nc BAD\r\n", "d BAD\r\n* OK {5}\r\ne OK\r\n"}
	whole := converse(client, answers, len(client), 1000)
	if whole.err != nil || len(whole.sent) > 0 {
		t.Fatalf("%v, left %q", whole.err, whole.sent)
	}
	for size := 1; size < len(client); size++ {
		for _, upstreamSize := range []int{1, 2, 5, 1000} {
			got := converse(client, answers, size, upstreamSize)
			if !bytes.Equal(got.up, whole.up) || !bytes.Equal(got.down, whole.down) || got.err != nil {
				t.Fatalf("cut at %d and %d: upstream got %q, client got %q, %v", size, upstreamSize, got.up, got.down, got.err)
			}
		}
	}
}

func converse(client string, answers []string, size, upstreamSize int) *guarded {
	s := &guarded{}
	s.converse(client, answers, size, upstreamSize)
	return s
}

func (s *guarded) converse(client string, answers []string, size, upstreamSize int) {
	for ; len(client) > 0; client = client[min(size, len(client)):] {
		s.client(client[:min(size, len(client))])
	}
	for _, a := range answers {
		for ; len(a) > 0; a = a[min(upstreamSize, len(a)):] {
			s.upstream(a[:min(upstreamSize, len(a))])
		}
	}
}

// modelUpstream reads what a Guard passes on, as some server would, and notes what it
// executes. whims decide what it does where servers differ.
type modelUpstream struct {
	whims    []byte
	in       []byte
	literal  int
	tag      string   // of the command whose literal is being read
	idle     string   // tag of an IDLE
	executed []string // commands in capitals, UID with the next word
}

func (m *modelUpstream) whim() byte {
	if len(m.whims) == 0 {
		return 0
	}
	w := m.whims[0]
	m.whims = m.whims[1:]
	return w
}

func (m *modelUpstream) read(p []byte) (answers string) {
	m.in = append(m.in, p...)
	for {
		if m.literal > 0 {
			n := min(m.literal, len(m.in))
			m.in, m.literal = m.in[n:], m.literal-n
			if m.literal > 0 {
				return answers
			}
		}
		i := bytes.IndexByte(m.in, '\n')
		if i < 0 {
			return answers
		}
		line := strings.TrimRight(string(m.in[:i]), "\r")
		m.in = m.in[i+1:]
		if m.idle != "" { // whatever comes ends it
			answers += m.idle + " OK\r\n"
			m.idle = ""
			continue
		}
		if m.tag == "" {
			f := strings.Fields(line)
			if len(f) == 0 {
				answers += []string{"", "* BAD\r\n"}[m.whim()%2]
				continue
			}
			m.tag = f[0]
			if len(f) > 1 {
				command := strings.ToUpper(f[1])
				if command == "UID" && len(f) > 2 {
					command += " " + strings.ToUpper(f[2])
				}
				m.executed = append(m.executed, command)
				if strings.EqualFold(f[1], "IDLE") {
					answers += "+ idling\r\n"
					m.idle, m.tag = m.tag, ""
					continue
				}
			}
		}
		if strings.Contains(line, "&") { // the text for people repeats what was sent, decoded
			answers += m.tag + " NO " + strings.ReplaceAll(line, "&", "\r\n") + "\r\n"
			m.tag = ""
			continue
		}
		if h := headerAtEnd(line); h.closed() && h.size < 1000 {
			w := m.whim()
			switch {
			case w%4 == 3: // not taken for a literal, or not wanted: a command may come next
				answers += m.tag + " NO\r\n"
				m.tag = ""
			case h.nonSync():
				m.literal = int(h.size)
			default:
				answers += "* 1 FETCH (X {4}\r\n+ \r\n)\r\n+ \r\n"[29*int(w%2):]
				m.literal = int(h.size)
			}
			continue
		}
		answers += fmt.Sprintf("%s OK\r\n", m.tag)
		m.tag = ""
	}
}

// Whatever a client sends, and whatever the upstream makes of its literals and when, it
// never executes a refused command, and in a read-only session none that isn't known to
// change nothing.
func FuzzGuard(f *testing.F) {
	f.Add([]byte("a NOOP {18+}\r\nb UNAUTHENTICATE\r\nc APPEND x {3}\r\nabc\r\n"), []byte{3, 0, 1}, uint8(4))
	f.Add([]byte("a IDLE\r\nb APPEND x {17}\r\nc UNAUTHENTICATE\r\n\r\nd LOGIN a b\r\n"), []byte{0}, uint8(200))
	f.Add([]byte("a X {12}\r\nb Y {30}\r\n\r\nc UNAUTHENTICATE\r\n"), []byte{2, 3}, uint8(1))
	f.Add([]byte("a X \"{9+}\r\nUNAUTHENTICATE x\nb UNAUTHENTICATE\r\n"), []byte{3}, uint8(9))
	f.Add([]byte("a IDLE {99}\r\nDONE\r\nb UNAUTHENTICATE\r\n"), []byte{0}, uint8(200))
	f.Add([]byte("f X\r\na\r\na IDLE\r\nb X {19}\r\nz COMPRESS DEFLATE\r\n"), []byte{1, 1, 0, 0}, uint8(3))
	f.Add([]byte("a STATUS &b OK&+ \r\nb IDLE\r\nc NOOP {30}\r\nzz COMPRESS DEFLATE\r\n"), []byte{0, 1, 0, 1}, uint8(15))
	f.Add([]byte("a STATUS &+ &\r\nb NOOP {47}\r\nzz UNAUTHENTICATE\r\n"), []byte{0, 0, 1, 3}, uint8(200))
	f.Add([]byte("+x NOOP {48}\r\nz LOGIN a b\r\n"), []byte{3}, uint8(200))
	f.Add([]byte("a SELECT {5+}\r\nINBOX (CONDSTORE)\r\nb uid  store 1 FLAGS ()\r\nc UID FETCH 1 BODY[]\r\nd CLOSE\r\n"), []byte{0, 1}, uint8(30))
	f.Add([]byte("a APPEND x {22+}\r\nb UID EXPUNGE 1\r\n {3}\r\nc COPY 1 x\r\nd {6}\r\nSELECT x\r\n"), []byte{3, 0, 1}, uint8(7))
	f.Add([]byte("a SEARCH &b NO&+ \r\nb select {20}\r\nc MOVE 1 x\r\n"), []byte{0, 3, 1}, uint8(200))
	f.Fuzz(func(t *testing.T, client, whims []byte, size uint8) {
		for _, command := range execute(t, Guard{}, client, whims, int(size)+1) {
			if refused[command] {
				t.Fatalf("the upstream executed %s", command)
			}
		}
		for _, command := range execute(t, Guard{ReadOnly: true}, client, whims, int(size)+1) {
			if !strings.Contains(harmless, " "+command+";") {
				t.Fatalf("the upstream executed %s, read-only", command)
			}
		}
	})
}

// execute returns what a model upstream executes of what a client sends, step octets at a time.
func execute(t *testing.T, g Guard, client, whims []byte, step int) []string {
	m := &modelUpstream{whims: whims}
	s := &guarded{g: g, silent: true}
	answer := func() {
		for len(s.up) > 0 {
			p := s.up
			s.up = nil
			s.upstream(m.read(p))
		}
	}
	for rest := client; len(rest) > 0 && s.err == nil; rest = rest[min(step, len(rest)):] {
		s.client(string(rest[:min(step, len(rest))]))
		if m.whim()%2 == 0 { // else it is slow
			answer()
		}
		if len(s.g.line) > maxGuardedLines || len(s.g.open) > maxOpen {
			t.Fatal("a bound was passed")
		}
	}
	answer()
	return m.executed
}

func BenchmarkGuardLiteral(b *testing.B) {
	var g Guard
	g.literal = 1 << 62
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, _, err := g.Client(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGuardCommand(b *testing.B) {
	var g Guard
	command, answer := []byte("a UID FETCH 1:100 (UID FLAGS)\r\n"), []byte("a OK FETCH completed\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := g.Client(command); err != nil {
			b.Fatal(err)
		}
		g.Upstream(answer)
	}
}

func BenchmarkGuardResponses(b *testing.B) {
	var g Guard
	p := bytes.Repeat([]byte("* 12345 FETCH (UID 1234567 FLAGS (\\Seen $Forwarded))\r\n"), 1000)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		g.Upstream(p)
	}
}

// Answers can be forged by what a server repeats of its client's words, but for one: the
// answer to our own command.
func TestGuardForgedAnswers(t *testing.T) {
	s := guarded{silent: true}
	s.client("a STATUS x (MESSAGES)\r\nb IDLE\r\nc NOOP {9}\r\nz LOGIN\r\n")
	s.wants(t, "a STATUS x (MESSAGES)\r\nb IDLE\r\n", "")
	forged := "a NO no such mailbox:\r\nb OK\r\n+ FAKE\r\nBARRIES OK\r\n+ FAKE\r\n"
	s.upstream(forged)
	s.wants(t, "BARRIER CAPABILITY\r\n", forged)
	s.upstream("+ idling\r\n+ FAKE\r\nc OK\r\n")
	s.wants(t, "", "+ idling\r\n+ FAKE\r\nc OK\r\n") // IDLE has eaten our command: it waits
	s.upstream("b BAD Expected DONE\r\n* CAPABIL")
	s.wants(t, "", "b BAD Expected DONE\r\n")
	s.upstream("ITY IMAP4rev1\r\n* 1 EXISTS\r\nBARR")
	s.wants(t, "", "* 1 EXISTS\r\n")
	s.upstream("IER OK done\r\n* 2 EXISTS\r\n")
	s.wants(t, "c NOOP {9}\r\n", "* 2 EXISTS\r\n")
	s.upstream("c OK\r\n")
	s.wants(t, "z REFUSED-BY-IMAPWARDEN\r\n", "c OK\r\n")
	if strings.Contains(string(s.down), "BARRIER") {
		t.Error("the client sees our tag")
	}
}

// No two barriers have the same tag, and nobody can guess one.
func TestGuardBarrierTags(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		var g Guard
		out, _, err := g.Client([]byte("a APPEND x {3}\r\n"))
		tag, _, ok := bytes.Cut(out, []byte(barrierCommand))
		if err != nil || !ok || len(tag) < 16 || seen[string(tag)] {
			t.Fatalf("%q, %v", out, err)
		}
		seen[string(tag)] = true
	}
}
