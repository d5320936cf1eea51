package imap

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// harmless is what may reach an upstream in a read-only session.
const harmless = " CAPABILITY; NOOP; LOGOUT; ID; ENABLE; IDLE; NAMESPACE; LIST; LSUB; XLIST; RLIST; RLSUB; STATUS;" +
	" EXAMINE; CHECK; CLOSE; UNSELECT; FETCH; SEARCH; SORT; THREAD; UID FETCH; UID SEARCH; UID SORT; UID THREAD;" +
	" ESEARCH; CANCELUPDATE; NOTIFY; GETQUOTA; GETQUOTAROOT; GETMETADATA; GETANNOTATION; MYRIGHTS; GETACL;" +
	" LISTRIGHTS; LANGUAGE; COMPARATOR; REFUSED-BY-IMAPWARDEN; REFUSED-BY-IMAPWARDEN-READ-ONLY;"

func TestReadOnlyPassesOn(t *testing.T) {
	s := guarded{g: Guard{ReadOnly: true}}
	for i, command := range []string{
		"CAPABILITY", "NOOP", "ID NIL", "ENABLE CONDSTORE UTF8=ACCEPT", "NAMESPACE", `LIST "" *`, "noop",
		`LIST (SUBSCRIBED) "" ("INBOX" "a/%") RETURN (CHILDREN STATUS (MESSAGES))`, `LSUB "" *`, `XLIST "" *`,
		`RLIST "" *`, `RLSUB "" *`, "STATUS STORE (MESSAGES UNSEEN)", "EXAMINE INBOX", "examine x (CONDSTORE)",
		"FETCH 1:* (FLAGS BODY[]) (CHANGEDSINCE 1)", "SEARCH RETURN (SAVE) UNSEEN", "SORT (DATE) UTF-8 ALL",
		"THREAD REFERENCES UTF-8 ALL", "UID FETCH 1 BODY[]", "uid fetch 1 FLAGS", "UID SEARCH ALL", "Uid Sort (DATE) UTF-8 ALL",
		"UID THREAD REFERENCES UTF-8 ALL", "UID  FETCH 1 FLAGS", `ESEARCH IN (mailboxes "STORE") ALL`, "CANCELUPDATE \"x\"",
		"CHECK", "IDLE", "CLOSE", "UNSELECT", `GETQUOTA ""`, "GETQUOTAROOT INBOX", `GETMETADATA "" /shared/comment`,
		`GETANNOTATION INBOX "/comment" "value.priv"`, "MYRIGHTS INBOX", "GETACL INBOX", "LISTRIGHTS INBOX alice",
		"NOTIFY SET (SELECTED (MessageNew (BODY[]) MessageExpunge))", "NOTIFY NONE", "LANGUAGE DE", "COMPARATOR", "LOGOUT",
		"FETCH", "SEARCH SUBJECT \"UID STORE\"", " NOOP",
	} {
		tag := string(rune('a'+i%26)) + string(rune('a'+i/26))
		s.client(tag + " " + command + "\r\n")
		s.wants(t, tag+" "+command+"\r\n", "")
	}
	s.client("DONE\r\n\r\n")
	s.wants(t, "DONE\r\n\r\n", "")
}

func TestReadOnlyRefuses(t *testing.T) {
	for _, command := range []string{
		`STORE 1 +FLAGS (\Seen)`, "store 1 FLAGS ()", "EXPUNGE", "APPEND x {5}", "COPY 1 x", "MOVE 1 x", "REPLACE 1 x {5}",
		`UID STORE 1 FLAGS ()`, "UID EXPUNGE 1", "UID COPY 1 x", "UID MOVE 1 x", "UID REPLACE 1 x {5}", "uid store 1 FLAGS ()",
		"CREATE x", "DELETE x", "RENAME x y", "SUBSCRIBE x", "UNSUBSCRIBE x", "SETACL x bob lr", "DELETEACL x bob",
		`SETQUOTA "" (STORAGE 1)`, `SETMETADATA "" (/shared/comment "x")`, `SETANNOTATION x "/comment" ("value.priv" "x")`,
		"XAPPLEPUSHSERVICE x", "GENURLAUTH x INTERNAL", "RESETKEY", "URLFETCH x", "CONVERT 1 x", "UID CONVERT 1 x",
		"XYZZY", "FETCHX 1", "X-NOOP", "DONE", "UID", "UID ", "UID DONE", "UID UID STORE 1 FLAGS ()", "UID SELECT x", "UID EXAMINE x",

		// Words that some server may read as others.
		" STORE 1 FLAGS ()", "  EXPUNGE", "UID  STORE 1 FLAGS ()", "UID    EXPUNGE 1", "UID \tSTORE 1 FLAGS ()", "UID \tFETCH 1 FLAGS", "UID FETCH\t1 FLAGS",
		"UID \"FETCH\" 1 FLAGS", "UID \"STORE\" 1 FLAGS ()", "UID (STORE) 1", "UID {5}", "{5}", "{6}", "\"NOOP\"", "(NOOP)",
		"SELECT{5}", "SELECT(CONDSTORE)", "SELECTED x", "UID \u017fEARCH ALL", "UID \u00a0STORE 1 FLAGS ()", "UID FETCH\u00a01 FLAGS",
	} {
		s := guarded{g: Guard{ReadOnly: true}}
		s.client("a " + command + "\r\nb NOOP\r\n")
		s.wants(t, "a REFUSED-BY-IMAPWARDEN-READ-ONLY\r\nb NOOP\r\n", "")
		if s.err != nil {
			t.Errorf("%q: %v", command, s.err)
		}
	}
	t.Run("with literals", func(t *testing.T) {
		s := guarded{g: Guard{ReadOnly: true}}
		s.client("a APPEND {1+}\r\nx (\\Seen) {18+}\r\nb UID EXPUNGE 1\r\n\r\nc UID {5+}\r\nSTORE 1 FLAGS ()\r\nd NOOP\r\n")
		s.wants(t, "a REFUSED-BY-IMAPWARDEN-READ-ONLY\r\nc REFUSED-BY-IMAPWARDEN-READ-ONLY\r\nd NOOP\r\n", "")
		s.client("e {6}\r\nf NOOP\r\n") // uninvited, the literal doesn't come
		s.wants(t, "e REFUSED-BY-IMAPWARDEN-READ-ONLY\r\nf NOOP\r\n", "")
	})
	t.Run("always refused", func(t *testing.T) {
		s := guarded{g: Guard{ReadOnly: true}}
		s.client("a LOGIN {1+}\r\nx y\r\nb unauthenticate\r\n")
		s.wants(t, "a REFUSED-BY-IMAPWARDEN\r\nb REFUSED-BY-IMAPWARDEN\r\n", "")
	})
	t.Run("unfollowable", func(t *testing.T) {
		for _, sent := range []string{"a UID\tSTORE 1 FLAGS ()\r\n", "a STORE\x01\r\n", "a UID FETCH 1\rb STORE 1 FLAGS ()\r\n", "a SELECT x {1099511627777}\r\n"} {
			s := guarded{g: Guard{ReadOnly: true}}
			s.client(sent)
			if !errors.Is(s.err, ErrUnfollowable) || len(s.up) > 0 {
				t.Errorf("%q: %v, upstream got %q", sent, s.err, s.up)
			}
		}
	})
}

// SELECT goes on as EXAMINE, whatever stands behind it and around it.
func TestReadOnlyExamines(t *testing.T) {
	for sent, want := range map[string]string{
		"a SELECT INBOX":                           "a EXAMINE INBOX",
		"a select SELECT":                          "a EXAMINE SELECT",
		"SELECT Select \"SELECT x\"":               "SELECT EXAMINE \"SELECT x\"",
		"a  SELECT  INBOX":                         "a  EXAMINE  INBOX",
		"a SELECT INBOX (CONDSTORE)":               "a EXAMINE INBOX (CONDSTORE)",
		"a SELECT x (QRESYNC (1 2 1:3 (1,3 1,3)))": "a EXAMINE x (QRESYNC (1 2 1:3 (1,3 1,3)))",
		"a SELECT":                                 "a EXAMINE",
		"a SELECT ":                                "a EXAMINE ",
	} {
		for _, end := range []string{"\r\n", "\n"} {
			p := []byte(sent + end)
			s := guarded{g: Guard{ReadOnly: true}}
			s.client(sent + end)
			s.wants(t, want+end, "")
			g := Guard{ReadOnly: true}
			if _, _, err := g.Client(p); err != nil || string(p) != sent+end {
				t.Errorf("%q: %v, the caller's octets became %q", sent, err, p)
			}
		}
	}
	t.Run("literals", func(t *testing.T) {
		for plus, invitation := range map[string]string{"": "+ go on\r\n", "+": ""} {
			s := guarded{g: Guard{ReadOnly: true}}
			s.client("z NOOP\r\na SELECT {5" + plus + "}\r\n")
			s.wants(t, "z NOOP\r\n", "")
			s.upstream("z OK\r\n")
			s.wants(t, "a EXAMINE {5}\r\n", "z OK\r\n")
			s.client("a UID") // waits
			s.wants(t, "", "")
			s.upstream("+ go on\r\n")
			s.client(" (CONDSTORE)\r\nb STORE 1 FLAGS ()\r\n")
			s.wants(t, "a UID (CONDSTORE)\r\nb REFUSED-BY-IMAPWARDEN-READ-ONLY\r\n", invitation)
		}
	})
	t.Run("a refused literal", func(t *testing.T) {
		s := guarded{g: Guard{ReadOnly: true}}
		s.client("a SELECT {18+}\r\nb UID EXPUNGE 1\r\n\r\nc NOOP\r\n")
		s.upstream("a BAD x\r\n")
		s.wants(t, "a EXAMINE {18}\r\nc NOOP\r\n", "a BAD x\r\n")
	})
	t.Run("the longest", func(t *testing.T) {
		name := strings.Repeat("x", maxGuardedLines-len("a SELECT \r\n"))
		s := guarded{g: Guard{ReadOnly: true}}
		s.client("a SELECT " + name + "\r\n")
		s.wants(t, "a EXAMINE "+name+"\r\n", "")
		s.client("b SELECT x" + name + "\r\n")
		if !errors.Is(s.err, ErrTooLong) {
			t.Error(s.err)
		}
	})
}

// The same octets come out however both directions are cut.
func TestReadOnlySplits(t *testing.T) {
	client := "a SELECT {5+}\r\nINBOX (CONDSTORE)\r\nb uid  store 1 FLAGS {2+}\r\nhi\r\nc UID FETCH 1 BODY[]\r\nd APPEND \"x{3+}\" {9+}\r\ne EXPUNGE\r\nf select x\r\ng CLOSE\r\n"
	answers := []string{"* 1 FETCH (X {4}\r\n+ \r\n)\r\n+ one\r\n", "a OK\r\nb BAD\r\n* 1 FETCH (BODY[] {3}\r\na\r\n)\r\nc OK\r\n", "d BAD\r\nf OK [READ-ONLY]\r\ng OK\r\n"}
	whole := guarded{g: Guard{ReadOnly: true}}
	whole.converse(client, answers, len(client), 1000)
	want := "a EXAMINE {5}\r\nINBOX (CONDSTORE)\r\nb REFUSED-BY-IMAPWARDEN-READ-ONLY\r\nc UID FETCH 1 BODY[]\r\n" +
		"d REFUSED-BY-IMAPWARDEN-READ-ONLY\r\nf EXAMINE x\r\ng CLOSE\r\n"
	if string(whole.up) != want || whole.err != nil || len(whole.sent) > 0 {
		t.Fatalf("upstream got %q, %v, left %q", whole.up, whole.err, whole.sent)
	}
	for size := 1; size < len(client); size++ {
		for _, upstreamSize := range []int{1, 2, 5, 1000} {
			got := guarded{g: Guard{ReadOnly: true}}
			got.converse(client, answers, size, upstreamSize)
			if !bytes.Equal(got.up, whole.up) || !bytes.Equal(got.down, whole.down) || got.err != nil {
				t.Fatalf("cut at %d and %d: upstream got %q, client got %q, %v", size, upstreamSize, got.up, got.down, got.err)
			}
		}
	}
	for at := 1; at < len(client); at++ { // one cut, anywhere
		got := guarded{g: Guard{ReadOnly: true}}
		got.client(client[:at])
		got.converse(client[at:], answers, len(client), 1000)
		if !bytes.Equal(got.up, whole.up) || !bytes.Equal(got.down, whole.down) || got.err != nil {
			t.Fatalf("cut before %d: upstream got %q, client got %q, %v", at, got.up, got.down, got.err)
		}
	}
}
