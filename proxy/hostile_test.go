package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/auth"
	"imapwarden/imap"
	"imapwarden/metrics"
	"imapwarden/policy"
)

// The rules of PROTOCOL.md, "Towards the upstream". All that a hostile upstream says to
// people has the word poison, and what the client reads is compared octet by octet.

// A result is what has to come of an attempt.
type result int

const (
	unavailable   result = iota // nobody's fault: not counted
	wrongPassword               // counted as a guess
	accepted
)

const (
	readsUnavailable = "l NO [UNAVAILABLE] Service temporarily unavailable, try again later"
	readsLimited     = "l NO [UNAVAILABLE] Too many failed logins, try again later"
	readsAccepted    = "l OK [CAPABILITY IMAP4rev1 IDLE] Logged in"
)

// A hostileRow is one login with a dialog of the upstream.
type hostileRow struct {
	name     string
	tls      UpstreamTLS // "": none
	password string      // "": secret
	talk     dialog
	want     result
	reads    []string      // for accepted, "": readsAccepted; the tag of our login reads TAG
	sent     int           // how often the password was sent
	took     time.Duration // 0: at once, or with the delay of refusals
}

// Steps that most dialogs have.
var (
	greeting   = say("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] poison")
	withoutIR  = say("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] poison")
	loginOnly  = say("* OK [CAPABILITY IMAP4rev1] poison")
	offersTLS  = say("* OK [CAPABILITY IMAP4rev1 STARTTLS SASL-IR AUTH=PLAIN ID] poison")
	login      = hear("AUTHENTICATE PLAIN $PLAIN")
	accepts    = say("TAG OK [CAPABILITY IMAP4rev1 IDLE] Logged in")
	noop       = hear("NOOP") // the client's, which shows that the relay works
	done       = say("TAG OK done")
	startTLS   = hear("STARTTLS")
	beginTLS   = say("TAG OK begin")
	goodTLS    = secureWith("good")
	capability = hear("CAPABILITY")
	tells      = say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN", "TAG OK poison")
)

// goodDialogs are what a login is by rights; their every step may go wrong.
var goodDialogs = map[UpstreamTLS]dialog{
	UpstreamPlain: {greeting, login, accepts, noop, done},
	UpstreamStartTLS: {
		offersTLS, startTLS, beginTLS, goodTLS, capability, tells, login, accepts, noop, done,
	},
	UpstreamImplicit: {goodTLS, greeting, login, accepts, noop, done},
}

// A session in which everything that can be asked for is asked for.
var longDialog = dialog{
	say("* OK poison"), capability, say("* CAPABILITY IMAP4rev1 AUTH=PLAIN ID", "TAG OK poison"),
	hear("ID (..."), say("* ID NIL", "TAG OK poison"),
	hear("AUTHENTICATE PLAIN"), say("+ poison"), hearMore("$PLAIN"), say("TAG OK Logged in"),
	capability, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK poison"), noop, done,
}

// literalDialog is for a password that no quoted string may have.
var literalDialog = dialog{
	loginOnly, hear(`LOGIN "alice" {7}`), say("+ poison"), hearMore("$PASSWORD"), accepts, noop, done,
}

// "PREAUTH, BYE, a tagged or HTTP greeting, a greeting over 8 KiB or later than the
// deadline: no credentials sent, client gets UNAVAILABLE and keeps its connection."
func TestHostileGreeting(t *testing.T) {
	var rows []hostileRow
	for name, line := range map[string]string{
		"PREAUTH":                  "* PREAUTH [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] poison",
		"PREAUTH with REFERRAL":    "* PREAUTH [REFERRAL imap://poison.example/] poison",
		"BYE":                      "* BYE [ALERT] poison",
		"BYE with REFERRAL":        "* BYE [REFERRAL imap://poison.example/] poison",
		"tagged":                   "a1 OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] poison",
		"continuation":             "+ OK poison",
		"HTTP":                     "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\npoison",
		"POP3":                     "+OK poison",
		"SMTP":                     "220 poison ESMTP",
		"NO":                       "* NO [ALERT] poison",
		"BAD":                      "* BAD poison",
		"untagged CAPABILITY":      "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN",
		"with a literal":           "* LIST () poison " + literal("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] poison"),
		"empty":                    "",
		"over 8 KiB":               "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] " + strings.Repeat("poison", 8<<10/6),
		"over 8 KiB of capability": "* OK [CAPABILITY" + strings.Repeat(" AUTH=PLAIN", 1000) + "] poison",
	} {
		rows = append(rows, hostileRow{name: name, talk: dialog{say(line)}})
	}
	exactly := "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] "
	exactly += strings.Repeat("x", 8<<10-len("\r\n")-len(exactly))
	rows = append(
		rows,
		hostileRow{name: "endless without line end", talk: dialog{sayForEver(strings.Repeat("x", 1000), 0)}},
		hostileRow{name: "endless, an octet a second", talk: dialog{sayForEver("x", time.Second)}, took: 15 * time.Second},
		hostileRow{name: "later than the deadline", talk: dialog{wait(20 * time.Second), greeting}, took: 15 * time.Second},
		hostileRow{
			name: "just before the deadline", want: accepted, sent: 1, took: 14 * time.Second,
			talk: dialog{wait(14 * time.Second), greeting, login, accepts, noop, done},
		},
		hostileRow{name: "of 8 KiB", want: accepted, sent: 1, talk: dialog{say(exactly), login, accepts, noop, done}},
		hostileRow{
			name: "with ALERT", want: accepted, sent: 1,
			talk: dialog{say("* OK [ALERT] poison"), capability, tells, login, accepts, noop, done},
		},
	)
	playRows(t, rows)
}

// "Answer a login within 15 s": at each step of each dialog the upstream falls silent, or
// closes, with half a line or none.
func TestHostileSilenceAndClose(t *testing.T) {
	var rows []hostileRow
	add := func(name, password string, way UpstreamTLS, d dialog) {
		sent := 0
		for i, s := range d[:len(d)-2] { // but for the NOOP of the session
			if strings.Contains(s.text, "$P") {
				sent++
			}
			if !s.turns {
				continue
			}
			before := slices.Clone(d[:i])
			at := fmt.Sprintf("%s/step %d, %s", name, i+1, s.text)
			rows = append(
				rows,
				hostileRow{name: at + "/silence", password: password, tls: way, talk: before, sent: sent, took: 15 * time.Second},
				hostileRow{name: at + "/close", password: password, tls: way, talk: append(before, hangUp), sent: sent},
				hostileRow{
					name: at + "/half a line, then close", password: password, tls: way, sent: sent,
					talk: append(slices.Clone(before), sayRaw("TAG OK"), hangUp),
				},
				hostileRow{
					name: at + "/half a line, then silence", password: password, tls: way, sent: sent, took: 15 * time.Second,
					talk: append(slices.Clone(before), sayRaw("\x16")),
				},
			)
		}
	}
	for way, d := range goodDialogs {
		add(string(way), "", way, d)
	}
	add("all steps", "", "", longDialog)
	add("literals", "sécret", "", literalDialog)
	playRows(t, rows)
}

// "Required but not offered or stripped: no credentials leave. Nothing that arrived before
// TLS counts, and bytes buffered at the STARTTLS OK end the attempt. Capabilities are
// asked for again afterwards."
func TestHostileStartTLS(t *testing.T) {
	var rows []hostileRow
	add := func(name string, talk ...step) {
		rows = append(rows, hostileRow{name: name, tls: UpstreamStartTLS, talk: talk})
	}
	add("not offered", greeting)
	add("stripped from CAPABILITY", say("* OK poison"), capability, tells)
	for _, answer := range []string{
		"TAG NO [ALERT] poison", "TAG BAD poison", "TAG BYE poison", "TAG PREAUTH poison", "* BYE poison", "+ poison",
		"a1 OK wrong tag", "TAGx OK wrong tag", "TAG poison",
	} {
		add("answered with "+answer, offersTLS, startTLS, say(answer))
	}
	add("plaintext with the OK", offersTLS, startTLS,
		say("TAG OK begin", "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN"), goodTLS)
	add("one octet with the OK", offersTLS, startTLS, sayRaw("TAG OK begin\r\n\r"), goodTLS)
	add("plaintext behind the OK", offersTLS, startTLS, beginTLS, wait(0),
		say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN", "* OK poison"), goodTLS)
	add("capabilities from before TLS", offersTLS, startTLS,
		say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN", "TAG OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] begin"), goodTLS,
		capability, say("* CAPABILITY IMAP4rev1 LOGINDISABLED", "TAG OK poison"))
	add("no capabilities after TLS", offersTLS, startTLS, beginTLS, goodTLS, capability, say("TAG OK poison"))
	add("a greeting after TLS", offersTLS, startTLS, beginTLS, goodTLS, capability,
		say("* OK poison", "* PREAUTH poison", "* BYE poison"))
	rows = append(rows, hostileRow{
		name: "SASL-IR and ID from before TLS", tls: UpstreamStartTLS, want: accepted, sent: 1,
		talk: dialog{
			offersTLS, startTLS, beginTLS, goodTLS, capability, say("* CAPABILITY IMAP4rev1 AUTH=PLAIN", "TAG OK poison"),
			hear("AUTHENTICATE PLAIN"), say("+ "), hearMore("$PLAIN"), accepts, noop, done,
		},
	})
	playRows(t, rows)
}

// "TLS by configured name, no common-name fallback, private CA."
func TestHostileCertificate(t *testing.T) {
	var rows []hostileRow
	for name := range authority().pairs {
		if name == "good" {
			continue
		}
		bad := secureWith(name)
		rows = append(
			rows,
			hostileRow{name: "implicit/" + name, tls: UpstreamImplicit, talk: dialog{bad}},
			hostileRow{name: "starttls/" + name, tls: UpstreamStartTLS, talk: dialog{offersTLS, startTLS, beginTLS, bad}},
		)
	}
	rows = append(
		rows,
		hostileRow{name: "implicit/plaintext", tls: UpstreamImplicit, talk: dialog{greeting, hangUp}},
		hostileRow{name: "implicit/HTTP", tls: UpstreamImplicit, talk: dialog{say("HTTP/1.1 400 Bad Request", "", "poison"), hangUp}},
		hostileRow{name: "implicit/a TLS alert", tls: UpstreamImplicit, talk: dialog{sayRaw("\x15\x03\x03\x00\x02\x02\x28"), hangUp}},
	)
	playRows(t, rows)
}

// What the upstream offers before the login, and what it makes of our questions.
func TestHostileCapabilities(t *testing.T) {
	playRows(t, []hostileRow{
		{name: "LOGINDISABLED and no AUTH=PLAIN", talk: dialog{say("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=CRAM-MD5] poison")}},
		{name: "logindisabled in lower case", talk: dialog{say("* OK [CAPABILITY IMAP4rev1 logindisabled] poison")}},
		{name: "none told", talk: dialog{say("* OK poison"), capability, say("TAG OK poison")}},
		{name: "an empty list", talk: dialog{say("* OK [CAPABILITY] poison"), capability, say("* CAPABILITY", "TAG OK poison")}},
		{name: "NO to CAPABILITY", talk: dialog{say("* OK poison"), capability, say("* CAPABILITY IMAP4rev1 AUTH=PLAIN", "TAG NO [ALERT] poison")}},
		{name: "BAD to CAPABILITY", talk: dialog{say("* OK poison"), capability, say("TAG BAD poison")}},
		{name: "BYE to CAPABILITY", talk: dialog{say("* OK poison"), capability, say("* BYE poison")}},
		{name: "continuation to CAPABILITY", talk: dialog{say("* OK poison"), capability, say("+ poison")}},
		{
			name: "NO to ID is no matter", want: accepted, sent: 1,
			talk: dialog{
				say("* OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] poison"), hear(`ID ("x-originating-ip" "198.51.100.7" ...`),
				say("TAG NO [ALERT] poison"), login, accepts, noop, done,
			},
		},
		{
			name: "LOGINDISABLED by the answer to ID", talk: dialog{
				say("* OK [CAPABILITY IMAP4rev1 ID] poison"), hear("ID (..."), say("* CAPABILITY IMAP4rev1 LOGINDISABLED", "TAG OK poison"),
			},
		},
	})
}

// "`* OK Waiting…` is normal. Tags are unguessable. Tagged BAD is our trouble, not the
// user's." One answer to a login, and what may stand around it.
func TestHostileAnswer(t *testing.T) {
	var rows []hostileRow
	// add has the answer in one segment to the login with initial response.
	add := func(name string, want result, answer string) {
		row := hostileRow{name: name, want: want, sent: 1, talk: dialog{greeting, login, sayRaw(answer)}}
		if want == accepted {
			row.talk = append(row.talk, noop, done)
		}
		rows = append(rows, row)
	}
	const ok = "TAG OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n"
	add("tagged BAD", unavailable, "TAG BAD [ALERT] poison\r\n")
	add("tagged BYE", unavailable, "TAG BYE poison\r\n")
	add("tagged PREAUTH", unavailable, "TAG PREAUTH poison\r\n")
	add("wrong tag", unavailable, "a1 OK [CAPABILITY IMAP4rev1] poison\r\n"+ok)
	add("tag too long", unavailable, "TAG0 OK [CAPABILITY IMAP4rev1] poison\r\n"+ok)
	add("tag of another case", unavailable, "tAg OK [CAPABILITY IMAP4rev1] poison\r\n")
	add("tag in front of ours", unavailable, "* TAG OK poison\r\na1 OK poison\r\n")
	add("untagged BYE, then NO", unavailable, "* BYE [ALERT] poison\r\nTAG NO poison\r\n")
	add("untagged BYE, then OK", unavailable, "* BYE poison\r\n"+ok)
	add("continuation that nobody waits for", unavailable, "+ poison\r\n"+ok)
	add("NO, then OK", wrongPassword, "TAG NO poison\r\n"+ok)
	add("untagged OK, NO, BAD, PREAUTH", wrongPassword,
		"* OK [ALERT] poison\r\n* NO poison\r\n* BAD poison\r\n* PREAUTH poison\r\nTAG NO poison\r\n")
	add("* OK Waiting for authentication process to respond..", accepted,
		"* OK Waiting for authentication process to respond..\r\n"+ok)
	add("untagged CAPABILITY instead of a code", accepted, "* CAPABILITY IMAP4rev1 IDLE\r\nTAG OK Logged in\r\n")
	add("bare line feeds", accepted, "* OK poison\n* CAPABILITY IMAP4rev1 IDLE\nTAG ok Logged in\n")
	add("an untagged status that ends like a literal", accepted, "* OK poison {5}\r\n"+ok)
	rows = append(
		rows,
		hostileRow{
			name: "* OK Waiting, for five seconds", want: accepted, sent: 1, took: 5 * time.Second,
			talk: dialog{greeting, login, say("* OK Waiting for authentication process to respond.."), wait(5 * time.Second), accepts, noop, done},
		},
		hostileRow{
			name: "capabilities nowhere: asked for again", want: accepted, sent: 1,
			talk: dialog{
				greeting, login, say("TAG OK Logged in"),
				capability, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK poison"), noop, done,
			},
		},
		hostileRow{
			name: "capabilities nowhere, and not told when asked", sent: 1,
			talk: dialog{greeting, login, say("TAG OK Logged in"), capability, say("TAG OK poison")},
		},
	)
	playRows(t, rows)
}

// "Tagged NO is a wrong password unless its code says UNAVAILABLE, INUSE, LIMIT, SERVERBUG
// or CONTACTADMIN": every response code of RFC 5530, and some others.
func TestHostileNoCodes(t *testing.T) {
	codes := map[string]result{
		"UNAVAILABLE": unavailable, "INUSE": unavailable, "LIMIT": unavailable,
		"SERVERBUG": unavailable, "CONTACTADMIN": unavailable, "unavailable": unavailable,
		"": wrongPassword, "ALERT": wrongPassword, "X-UNKNOWN poison": wrongPassword, "REFERRAL imap://poison.example/": wrongPassword,
	}
	for _, code := range []string{
		"AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "PRIVACYREQUIRED", "NOPERM", "EXPUNGEISSUED",
		"CORRUPTION", "CLIENTBUG", "CANNOT", "OVERQUOTA", "ALREADYEXISTS", "NONEXISTENT",
	} {
		codes[code] = wrongPassword
	}
	var rows []hostileRow
	for code, want := range codes {
		answer := "TAG NO poison"
		if code != "" {
			answer = "TAG NO [" + code + "] poison"
		}
		rows = append(rows, hostileRow{name: answer, want: want, sent: 1, talk: dialog{greeting, login, say(answer)}})
	}
	playRows(t, rows)
}

// "At most 64 untagged lines or 64 KiB, literals in them parsed, everything dropped except
// CAPABILITY." The lines that we count are all lines, ours among them, so it is a few less.
func TestHostileFlood(t *testing.T) {
	line := "* 1 EXISTS poison\r\n"
	big := "* poison " + literal(strings.Repeat("x", 4000)) + "\r\n"
	playRows(t, []hostileRow{
		{name: "60 lines", want: accepted, sent: 1, talk: dialog{greeting, login, sayAll(60, line), accepts, noop, done}},
		{name: "65 lines", sent: 1, talk: dialog{greeting, login, sayAll(65, line), accepts}},
		{name: "65 lines in few segments", sent: 1, talk: dialog{greeting, login, sayRaw(strings.Repeat(line, 65)), accepts}},
		{name: "65 lines before our first command", talk: dialog{say("* OK poison"), capability, sayAll(65, line), tells}},
		{name: "65 lines over several answers", talk: dialog{
			say("* OK poison"), capability, sayAll(30, line), say("* CAPABILITY IMAP4rev1 ID AUTH=PLAIN", "TAG OK poison"),
			hear("ID (..."), sayAll(35, line), say("TAG OK poison"),
		}},
		{name: "65 lines after the OK, before its capabilities", sent: 1, talk: dialog{
			greeting, login, say("TAG OK Logged in"), capability, sayAll(65, line),
			say("* CAPABILITY IMAP4rev1", "TAG OK poison"),
		}},
		{name: "endless lines", sent: 1, talk: dialog{greeting, login, sayForEver(line, 0)}},
		{name: "endless lines, one a second", sent: 1, took: 15 * time.Second, talk: dialog{greeting, login, sayForEver(line, time.Second)}},
		{name: "endless * OK Waiting", sent: 1, took: 15 * time.Second, talk: dialog{greeting, login, sayForEver("* OK Waiting\r\n", time.Second)}},
		{name: "a line without end", sent: 1, talk: dialog{greeting, login, sayForEver(strings.Repeat("x", 1000), 0)}},
		{name: "an untagged line without end", sent: 1, talk: dialog{greeting, login, sayRaw("* OK "), sayForEver(strings.Repeat("x", 1000), 0)}},
		{name: "an octet a second", sent: 1, took: 15 * time.Second, talk: dialog{greeting, login, sayForEver("*", time.Second)}},
		{name: "60 KiB of literals", want: accepted, sent: 1, talk: dialog{greeting, login, sayAll(15, big), accepts, noop, done}},
		{name: "over 64 KiB of literals", sent: 1, talk: dialog{greeting, login, sayAll(17, big), accepts}},
		{name: "a literal over 64 KiB", sent: 1, talk: dialog{greeting, login, sayRaw("* poison {65537}\r\n")}},
		{name: "a literal of 2^64", sent: 1, talk: dialog{greeting, login, sayRaw("* poison {18446744073709551616}\r\n")}},
		{name: "a literal of 2^63", sent: 1, talk: dialog{greeting, login, sayRaw("* poison {9223372036854775808}\r\n")}},
		{name: "a literal like our OK", want: wrongPassword, sent: 1, talk: dialog{
			greeting, login, say("* LIST () \"/\" "+literal("TAG OK [CAPABILITY IMAP4rev1] poison")+" ()", "TAG NO poison"),
		}},
		{name: "a literal like our NO", want: accepted, sent: 1, talk: dialog{
			greeting, login, sayRaw("* LIST () \"/\" " + literal("TAG NO poison") + "\r\n"), accepts, noop, done,
		}},
		{name: "two literals in one response", want: wrongPassword, sent: 1, talk: dialog{
			greeting, login, say("* X " + literal("TAG OK poison") + " " + literal("TAG OK poison") + ")"), say("TAG NO poison"),
		}},
		{name: "a literal that doesn't come", sent: 1, took: 15 * time.Second, talk: dialog{greeting, login, say("* X {100}", "TAG OK poison")}},
	})
}

// "REFERRAL and ALERT texts are not relayed. Bytes after the tagged OK are the session's:
// relayed, in order." And capabilities are not passed on as they come.
func TestHostileAcceptance(t *testing.T) {
	kilobyte := "* 1 FETCH (X " + strings.Repeat("0", 1000) + ")"
	playRows(t, []hostileRow{
		{
			name: "octets behind the OK", want: accepted, sent: 1,
			reads: []string{readsAccepted, "* 1 EXISTS", "* OK [ALERT] of the session", "", "+ "},
			talk: dialog{
				greeting, login, say("TAG OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "* 1 EXISTS", "* OK [ALERT] of the session", "", "+ "), noop, done,
			},
		},
		{
			name: "4 KiB behind the OK", want: accepted, sent: 1,
			reads: append([]string{readsAccepted}, slices.Repeat([]string{"* 1 FETCH (X 0123456789)"}, 1000)...),
			talk: dialog{
				greeting, login, say(append([]string{"TAG OK [CAPABILITY IMAP4rev1 IDLE] Logged in"}, slices.Repeat([]string{"* 1 FETCH (X 0123456789)"}, 1000)...)...), noop, done,
			},
		},
		{
			name: "two tagged answers", want: accepted, sent: 1, reads: []string{readsAccepted, "TAG NO the session's"},
			talk: dialog{greeting, login, say("TAG OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "TAG NO the session's"), noop, done},
		},
		{
			name: "octets behind an OK without capabilities", want: accepted, sent: 1, reads: []string{readsAccepted, "* 1 EXISTS"},
			talk: dialog{
				greeting, login, say("TAG OK Logged in", "* 1 EXISTS"),
				capability, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK poison"), noop, done,
			},
		},
		{
			name: "40 KiB behind an OK without capabilities", want: accepted, sent: 1,
			reads: append([]string{readsAccepted}, slices.Repeat([]string{kilobyte}, 40)...),
			talk: dialog{
				greeting, login, say(append([]string{"TAG OK Logged in"}, slices.Repeat([]string{kilobyte}, 40)...)...),
				capability, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK poison"), noop, done,
			},
		},
		{
			name: "octets behind the capabilities asked for again", want: accepted, sent: 1, reads: []string{readsAccepted, "* 1 EXISTS"},
			talk: dialog{
				greeting, login, say("TAG OK Logged in"),
				capability, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK poison", "* 1 EXISTS"), noop, done,
			},
		},
		{
			name: "OK with ALERT", want: accepted, sent: 1,
			talk: dialog{
				greeting, login, say("TAG OK [ALERT] poison"),
				capability, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK poison"), noop, done,
			},
		},
		{
			name: "OK with ALERT, capabilities before", want: accepted, sent: 1,
			talk: dialog{greeting, login, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK [alert] poison"), noop, done},
		},
		{
			name: "OK with REFERRAL", want: accepted, sent: 1,
			talk: dialog{greeting, login, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK [REFERRAL imap://poison.example/] poison"), noop, done},
		},
		{
			name: "OK with half a code", want: accepted, sent: 1,
			talk: dialog{greeting, login, say("* CAPABILITY IMAP4rev1 IDLE", "TAG OK [ALERT poison"), noop, done},
		},
		{
			name: "a text that isn't printable", want: accepted, sent: 1,
			talk: dialog{greeting, login, say("TAG OK [CAPABILITY IMAP4rev1 IDLE] poi\x1b[2Json"), noop, done},
		},
		{
			name: "a text of 8-bit characters", want: accepted, sent: 1,
			talk: dialog{greeting, login, say("TAG OK [CAPABILITY IMAP4rev1 IDLE] poisön"), noop, done},
		},
		{
			name: "a text that is too long", want: accepted, sent: 1,
			talk: dialog{greeting, login, say("TAG OK [CAPABILITY IMAP4rev1 IDLE] " + strings.Repeat("poison", 100)), noop, done},
		},
		{
			name: "capabilities that no client may see", want: accepted, sent: 1,
			talk: dialog{greeting, login, say(
				"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=PLAIN auth=X SASL-IR UNAUTHENTICATE COMPRESS=DEFLATE IDLE", "TAG OK Logged in",
			), noop, done},
		},
		{
			name: "capabilities with brackets and control characters", want: accepted, sent: 1,
			talk: dialog{greeting, login, say(
				"* CAPABILITY IMAP4rev1 poi]son poi[son [ALERT] [ poi\x01son poi\x00son poi\x7fson poisön \"poison\" poi{5} (poison) poi\\son IDLE", "TAG OK Logged in",
			), noop, done},
		},
	})
}

// "Everything else is encoded anew (AUTHENTICATE PLAIN, or literals), never pasted." No word
// about a password that wasn't sent is an answer.
func TestHostileMechanisms(t *testing.T) {
	playRows(t, []hostileRow{
		{
			name: "without SASL-IR", want: accepted, sent: 1,
			talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("+ "), hearMore("$PLAIN"), accepts, noop, done},
		},
		{
			name: "without SASL-IR, a bare plus", want: accepted, sent: 1,
			talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("+"), hearMore("$PLAIN"), accepts, noop, done},
		},
		{
			name: "without SASL-IR, wrong password", want: wrongPassword, sent: 1,
			talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("+ poison"), hearMore("$PLAIN"), say("TAG NO poison")},
		},
		{
			name: "without SASL-IR, asked twice", sent: 1,
			talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("+ "), hearMore("$PLAIN"), say("+ poison")},
		},
		{name: "NO instead of a continuation", talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("TAG NO poison")}},
		{
			name: "NO [AUTHENTICATIONFAILED] before the password",
			talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("TAG NO [AUTHENTICATIONFAILED] poison")},
		},
		{name: "BAD instead of a continuation", talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("TAG BAD poison")}},
		{
			name: "OK before the password",
			talk: dialog{withoutIR, hear("AUTHENTICATE PLAIN"), say("TAG OK [CAPABILITY IMAP4rev1] poison")},
		},
		{
			name: "LOGIN, quoted", want: accepted, sent: 1,
			talk: dialog{loginOnly, hear(`LOGIN "alice" "$PASSWORD"`), accepts, noop, done},
		},
		{
			name: "LOGIN, quote and backslash", want: accepted, sent: 1, password: `se"c\ret`,
			talk: dialog{loginOnly, hear(`LOGIN "alice" "se\"c\\ret"`), accepts, noop, done},
		},
		{
			name: "LOGIN, wrong password", want: wrongPassword, sent: 1,
			talk: dialog{loginOnly, hear(`LOGIN "alice" "$PASSWORD"`), say("TAG NO poison")},
		},
		{name: "LOGIN, a literal", want: accepted, sent: 1, password: "sécret", talk: literalDialog},
		{
			name: "LOGIN, a literal, an untagged line before the continuation", want: accepted, sent: 1, password: "sécret",
			talk: dialog{loginOnly, hear(`LOGIN "alice" {7}`), say("* OK poison", "+ poison"), hearMore("$PASSWORD"), accepts, noop, done},
		},
		{
			name: "LOGIN, a literal, wrong password", want: wrongPassword, sent: 1, password: "sécret",
			talk: dialog{loginOnly, hear(`LOGIN "alice" {7}`), say("+ "), hearMore("$PASSWORD"), say("TAG NO poison")},
		},
		{name: "LOGIN, the literal refused with BAD", password: "sécret", talk: dialog{loginOnly, hear(`LOGIN "alice" {7}`), say("TAG BAD poison")}},
		{name: "LOGIN, the literal refused with NO", password: "sécret", talk: dialog{loginOnly, hear(`LOGIN "alice" {7}`), say("TAG NO poison")}},
		{name: "LOGIN, OK before the literal", password: "sécret", talk: dialog{loginOnly, hear(`LOGIN "alice" {7}`), say("TAG OK [CAPABILITY IMAP4rev1] poison")}},
		{name: "PLAIN, quote and backslash", want: accepted, sent: 1, password: `se"c\ret`, talk: goodDialogs[UpstreamPlain]},
		{name: "PLAIN, UTF-8", want: accepted, sent: 1, password: "sécret", talk: goodDialogs[UpstreamPlain]},
	})
}

// "SNI sent", with the configured name; and each way of TLS works with a private CA.
func TestUpstreamTLS(t *testing.T) {
	for way, d := range goodDialogs {
		t.Run(string(way), func(t *testing.T) {
			upstreams := playRow(t, hostileRow{tls: way, talk: d, want: accepted, sent: 1})
			want := upstreamName
			if way == UpstreamPlain {
				want = ""
			}
			if got := upstreams[0].serverName; got != want {
				t.Errorf("SNI is %q, want %q", got, want)
			}
		})
	}
}

func playRows(t *testing.T, rows []hostileRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { playRow(t, row) })
	}
}

// playRow makes one attempt, and behind one that failed a good login on the same connection.
func playRow(t *testing.T, row hostileRow) (upstreams []*hostile) {
	in(t, func(r *rig) {
		if row.tls == "" {
			row.tls = UpstreamPlain
		}
		if row.password == "" {
			row.password = "secret"
		}
		r.Policy = &policy.Gate{Limits: policy.Limits{AddressPerMinute: 1}} // one guess, and no more
		upstream := r.Route("alice")
		upstream.TLS = row.tls
		upstream.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: upstreamName, RootCAs: authority().pool}
		var mu sync.Mutex
		r.upstream.script = func(conn net.Conn) {
			h := &hostile{t: t, password: row.password}
			mu.Lock()
			upstreams = append(upstreams, h)
			d := row.talk
			if len(upstreams) > 1 {
				d = goodDialogs[row.tls]
			}
			mu.Unlock()
			h.play(conn, d)
		}
		secret := r.enroll("alice")
		pair := row.password + r.code(secret)
		p := r.connectTLS(home)

		began := time.Now()
		got := p.login("alice", pair)
		if !row.check(t, r, p, got, time.Since(began)) {
			p.hangUp()
			return
		}
		switch row.want {
		case accepted:
			p.hangUp()
			r.checkLogs(row.password)
			return
		case wrongPassword: // the one guess was counted
			if got := p.login("alice", pair); got != readsLimited {
				t.Errorf("after a wrong password the client reads %q", got)
			}
			time.Sleep(time.Minute)
			pair = row.password + r.code(secret)
		}
		if dials, _ := r.upstream.count(); dials != 1 {
			t.Errorf("one attempt of the client was %d upstream", dials)
		}
		synctest.Wait() // the upstream has heard all
		if got := upstreams[0].credentials(); got != row.sent {
			t.Errorf("credentials were sent %d times, want %d", got, row.sent)
		}
		// Not counted, the code not spent, and the connection kept.
		began = time.Now()
		again := hostileRow{want: accepted, password: row.password}
		again.check(t, r, p, p.login("alice", pair), time.Since(began))
		p.hangUp()
		r.checkLogs(row.password)
		if dials, _ := r.upstream.count(); dials != 2 {
			t.Errorf("two attempts of the client were %d upstream", dials)
		}
	})
	for i, h := range upstreams {
		want := 1
		if i == 0 {
			want = row.sent
		}
		if got := h.credentials(); got != want {
			t.Errorf("connection %d: credentials were sent %d times, want %d", i+1, got, want)
		}
	}
	return upstreams
}

// check compares what the client read, when, and what the audit says.
func (row hostileRow) check(t *testing.T, r *rig, p *peer, got string, took time.Duration) bool {
	t.Helper()
	wantTook, event := row.took, ""
	want := []string{map[result]string{unavailable: readsUnavailable, wrongPassword: failed, accepted: readsAccepted}[row.want]}
	switch row.want {
	case unavailable:
		event = "failed upstream-unavailable"
	case wrongPassword:
		event = "refused wrong-password none"
	case accepted:
		event = "accepted  code"
		if row.reads != nil {
			want = row.reads
		}
	}
	if row.want != accepted {
		wantTook = max(row.took, r.RefusalDelay)
	}
	if took != wantTook || took > r.Timeouts.Login {
		t.Errorf("answered after %v, want %v", took, wantTook)
	}
	lines := []string{got}
	if strings.HasPrefix(got, "l OK") {
		p.send("x NOOP\r\n")
		for {
			line, err := p.line()
			if err != nil {
				t.Errorf("the session: %v", err)
				return false
			}
			if line == "x OK done" {
				break
			}
			lines = append(lines, tagged.ReplaceAllString(line, "TAG "))
		}
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the client read %.300q, want %.300q", lines, want)
	}
	if events := r.events(); len(events) == 0 || events[len(events)-1] != event {
		t.Errorf("audit says %q, want %q", events, event)
	}
	return slices.Equal(lines, want)
}

// tagged finds the tag that we gave to a command of our own.
var tagged = regexp.MustCompile(`^[A-Z2-7]{8}\d+ `)

// checkLogs says whether the password is in a log line, and whether a session broke.
func (r *rig) checkLogs(password string) {
	r.t.Helper()
	synctest.Wait()
	for _, entry := range r.logs.All() {
		line := fmt.Sprint(entry.Message, entry.ContextMap())
		if strings.Contains(line, password) || strings.Contains(line, encode("\x00alice\x00"+password)) {
			r.t.Errorf("a secret is in the log: %s", entry.Message)
		}
		if strings.Contains(line, "bug") {
			r.t.Errorf("logged: %s", line)
		}
	}
}

// Random octets as the upstream's side of a login never log anybody in: the tag can't be
// guessed. Where the upstream may say our tag (TAG), only its OK does, and not before the
// password was sent. It never panics, and reads and sends no more than its bounds.
func FuzzUpstreamLogin(f *testing.F) {
	const (
		greets = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] x\r\n"
		ok     = "TAG OK [CAPABILITY IMAP4rev1 IDLE] x\r\n"
	)
	for _, seed := range []string{
		"",
		"\x16\x03\x01",
		"* PREAUTH x\r\n",
		"* BYE x\r\n",
		"HTTP/1.1 400 Bad Request\r\n\r\n",
		greets,
		greets + ok,
		greets + "TAG NO [UNAVAILABLE] x\r\n",
		greets + "TAG NO x\r\n" + ok,
		greets + "TAG BAD x\r\n",
		greets + "* OK Waiting\r\n" + ok + "* 1 EXISTS\r\n",
		greets + "* LIST () \"/\" {4}\r\nx\r\n\r\n" + ok,
		greets + "* X {99999}\r\n" + ok,
		greets + strings.Repeat("* x\r\n", 70) + ok,
		greets + "TAG OK x\r\n* CAPABILITY IMAP4rev1 x]y\r\nTAG OK x\r\n",
		"* OK x\r\n* CAPABILITY IMAP4rev1 ID AUTH=PLAIN\r\nTAG OK x\r\nTAG OK x\r\n+ \r\n" + ok,
		"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\r\n" + ok, // an OK before the password
		"* OK [CAPABILITY IMAP4rev1] x\r\n" + ok,
		"* OK [CAPABILITY IMAP4rev1] x\r\n+ \r\n+ \r\n" + ok,
		"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] x\r\n" + ok,
	} {
		for _, knowsTag := range []bool{false, true} {
			f.Add([]byte(seed), knowsTag, "secret")
			f.Add([]byte(seed), knowsTag, "sécret")
		}
	}
	counters := metrics.New()
	f.Fuzz(func(t *testing.T, says []byte, knowsTag bool, password string) {
		if malformed("alice", []byte(password)) != "" {
			return // refused before
		}
		conn := &talker{says: says, knowsTag: knowsTag}
		u := &Upstream{Name: "fuzz", Address: "upstream:143", TLS: UpstreamPlain, Dial: func(context.Context, string, string) (net.Conn, error) {
			return conn, nil
		}}
		who := identity{account: "alice", password: auth.Secret(password), session: "x", id: map[string]string{"name": "Mailprog"}}
		b, answer, err := u.login(context.Background(), who, counters)

		heard := conn.heard.String()
		sent := strings.Count(heard, " AUTHENTICATE PLAIN ") + strings.Count(heard, encode("\x00alice\x00"+password)+"\r\n") -
			min(1, strings.Count(heard, " AUTHENTICATE PLAIN ")) // with an initial response
		switch {
		case (answer == answerYes) != (b != nil) || (answer == answerUnknown) != (err != nil):
			t.Errorf("answer %v with %v, %v", answer, b, err)
		case answer == answerYes && !knowsTag, answer == answerNo && !knowsTag:
			t.Errorf("answer %v without our tag", answer)
		case answer == answerYes && !regexp.MustCompile(`(?i)TAG OK`).Match(says):
			t.Error("accepted without an OK")
		case answer != answerUnknown && !strings.Contains(heard, " LOGIN ") && sent != 1,
			answer != answerUnknown && strings.Contains(heard, " LOGIN ") && !strings.Contains(heard, string(quoted(password))):
			t.Errorf("answer %v, but the password was not sent: %q", answer, heard)
		case sent > 1:
			t.Errorf("the password was sent %d times", sent)
		case answer != answerYes && !conn.closed:
			t.Error("the connection was left open")
		case conn.taken > imap.MaxGreeting+imap.MaxUntaggedOctets+3*4096:
			t.Errorf("%d octets were read", conn.taken)
		case len(heard) > 4096 || strings.Count(heard, "\r\n") > 8:
			t.Errorf("%d octets were sent", len(heard))
		}
		if b != nil {
			for _, c := range b.capabilities.AfterLogin() {
				if strings.ContainsAny(string(c), "[] \r\n\x00") {
					t.Errorf("a capability that can't be passed on: %q", c)
				}
			}
			if strings.ContainsAny(b.text, "\r\n\x00") || strings.HasPrefix(b.text, "[") {
				t.Errorf("a text that can't be passed on: %q", b.text)
			}
		}
	})
}

// quoted is how the password is sent with LOGIN: quoted, or as it is in a literal.
func quoted(password string) []byte {
	if q, ok := imap.Quote([]byte(password)); ok {
		return q
	}
	return []byte(password)
}

// A talker is a connection whose other side says what it has to say, and then ends.
type talker struct {
	net.Conn // nil: what isn't here isn't used
	says     []byte
	knowsTag bool // TAG is the tag of the last command
	taken    int
	closed   bool
	heard    strings.Builder
	tag      string
}

var errClosedTalker = errors.New("used after Close")

// Read hands out a line at a time, so that TAG is the tag of the command before.
func (c *talker) Read(p []byte) (int, error) {
	if c.closed {
		return 0, errClosedTalker
	}
	if len(c.says) == 0 {
		return 0, io.EOF
	}
	if c.knowsTag && len(c.tag) > 0 && strings.HasPrefix(string(c.says), "TAG") {
		c.says = append([]byte(c.tag), c.says[len("TAG"):]...)
	}
	end := slices.Index(c.says, '\n') + 1
	if end == 0 {
		end = len(c.says)
	}
	n := copy(p, c.says[:end])
	c.says = c.says[n:]
	c.taken += n
	return n, nil
}

func (c *talker) Write(p []byte) (int, error) {
	if c.closed {
		return 0, errClosedTalker
	}
	c.heard.Write(p)
	if tag, _, found := strings.Cut(string(p), " "); found && tagged.MatchString(tag+" ") {
		c.tag = tag
	}
	return len(p), nil
}

func (c *talker) Close() error {
	c.closed = true
	return nil
}

func (c *talker) SetDeadline(time.Time) error { return nil }
