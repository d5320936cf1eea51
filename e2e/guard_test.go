package e2e

import (
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
		"an open quote":              "a SELECT \"x{30+}\r\nz COMPRESS DEFLATE\r\n\r\n",
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
