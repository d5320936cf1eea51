package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// Ways past a guard that reads commands other than Dovecot does: each was one.
func TestNoWayPastTheGuard(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	stored := a.withCode(t)
	w.upstream.deliver(t, a, string(anyMessage(1<<20)))
	// Dovecot repeats a mailbox's name in its answer, line ends and all, and a search key.
	name := func(lines string) string { return `"&AA0ACg-` + lines + `&AA0ACg-"` }
	key := "x\r\n " + strings.Repeat("y", 40000) + "\r\n+ FAKE\r\n"
	for name, sent := range map[string]string{
		"IDLE with a literal":        "a IDLE {999999999999}\r\nDONE\r\nz COMPRESS DEFLATE\r\n",
		"IDLE with a small literal":  "a IDLE {30}\r\nDONE\r\nz COMPRESS DEFLATE\r\n",
		"a line without a space":     "f FETCH 1:* BODY[]\r\ns\r\na\r\ns FETCH 1:* BODY[]\r\na IDLE\r\nb X {19}\r\nz COMPRESS DEFLATE\r\n",
		"a tag that begins with +":   "+x NOOP {48}\r\nz COMPRESS DEFLATE\r\n",
		"DONE as a tag":              "DONE\r\nDONE IDLE\r\nb X {19}\r\nz COMPRESS DEFLATE\r\n",
		"a line of two to Dovecot":   "a APPEND INBOX " + strings.Repeat("()", 32769) + "z COMPRESS DEFLATE\r\n",
		"the same, no such mailbox":  "a APPEND INBOXX " + strings.Repeat("()", 32769) + "z COMPRESS DEFLATE\r\n",
		"a literal of 2^64 and more": "a APPEND INBOX {18446744073709551621}\r\nhello\r\nz COMPRESS DEFLATE\r\n",
		"a literal that isn't one":   "a NOOP {30+}\r\nz COMPRESS DEFLATE\r\n\r\n",
		"an unknown command's":       "a XYZZY {30+}\r\nz COMPRESS DEFLATE\r\n\r\n",
		"a refused command's":        "a LOGIN {30+}\r\nz COMPRESS DEFLATE\r\n\r\n",
		"forged answers": "s SELECT INBOX\r\na STATUS " + name("e OK&AA0ACg-b OK") + " (MESSAGES)\r\n" +
			"e FETCH 1 BODY[]\r\nb IDLE\r\nc NOOP {25}\r\nz COMPRESS DEFLATE\r\n    ",
		"a forged invitation": "s SELECT INBOX\r\na STATUS " + name("+ FAKE") + " (MESSAGES)\r\nb NOOP {25}\r\nz COMPRESS DEFLATE\r\n    ",
		"a forged invitation, late": "s SELECT INBOX\r\na SEARCH {" + strconv.Itoa(len(key)) + "+}\r\n" + key + "\r\n" +
			"b NOOP {25}\r\nz COMPRESS DEFLATE\r\n    ",
		"an open quote": "a SELECT \"x{30+}\r\nz COMPRESS DEFLATE\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dialTLS(t, home, w.implicit)
			c.mustLogin(a.name, stored)
			c.send(sent)
			c.send("q LOGOUT\r\n")
			c.SetReadDeadline(time.Now().Add(2 * time.Second))
			for {
				line, err := c.r.ReadString('\n')
				if strings.HasPrefix(line, "z OK") {
					t.Fatalf("Dovecot executed a refused command: %s", strings.TrimSpace(line))
				}
				if err != nil {
					return // ended, or waiting for what doesn't come
				}
			}
		})
	}
}
