package imap

import (
	"bytes"
	"slices"
)

// lookOnly are the commands of a read-only session. None of them changes a mailbox, what is
// in it or what is known about it, where the mailbox was opened by EXAMINE (RFC 9051, section
// 6.3.3: FETCH sets no \Seen, CLOSE expunges nothing; RFC 3501, section 6.3.2: \Recent stays).
// What isn't here is refused, also what may only look: URLFETCH (RFC 4467) and CONVERT (RFC
// 5259) read messages in a way of their own, and GENURLAUTH gives others a way in.
//
// ENABLE, NOTIFY, LANGUAGE, COMPARATOR and RETURN (SAVE) change the session only. DONE has no
// tag and comes by another way (see begin).
var lookOnly = map[string]bool{
	"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "ID": true, "ENABLE": true, "IDLE": true,
	"NAMESPACE": true, "LIST": true, "LSUB": true, "XLIST": true, "STATUS": true,
	"RLIST": true, "RLSUB": true, // RFC 2193: LIST and LSUB, with referrals
	"SELECT":  true, // goes on as EXAMINE
	"EXAMINE": true, "CHECK": true, "CLOSE": true, "UNSELECT": true,
	"FETCH": true, "SEARCH": true, "SORT": true, "THREAD": true,
	"ESEARCH": true, "CANCELUPDATE": true, "NOTIFY": true, // RFC 7377, 5267, 5465
	"GETQUOTA": true, "GETQUOTAROOT": true, // RFC 9208
	"GETMETADATA": true, "GETANNOTATION": true, // RFC 5464, and a draft of it
	"MYRIGHTS": true, "GETACL": true, "LISTRIGHTS": true, // RFC 4314
	"LANGUAGE": true, "COMPARATOR": true, // RFC 5255
}

// lookOnlyByUID are those that may follow UID.
var lookOnlyByUID = map[string]bool{"FETCH": true, "SEARCH": true, "SORT": true, "THREAD": true}

// changesNothing says whether a read-only session has this command. Where a name isn't a word
// that ends at a space or the line's end, a server may yet find a command in it: in a literal,
// in quotes, before a tab. So it is none of those that we know.
func changesNothing(name, arguments []byte) bool {
	command := capitals(name)
	if command != "UID" {
		return lookOnly[command]
	}
	name, _, _ = bytes.Cut(bytes.TrimLeft(arguments, " "), []byte(" "))
	return lookOnlyByUID[capitals(name)]
}

// capitals is name in capitals, of ASCII only. bytes.ToUpper makes an "S" of a "ſ", and so a
// command that we know of one that nobody knows.
func capitals(name []byte) string {
	upper := bytes.Clone(name)
	for i, c := range upper {
		if 'a' <= c && c <= 'z' {
			upper[i] -= 'a' - 'A'
		}
	}
	return string(upper)
}

// examine is line with EXAMINE where SELECT stands. Both take the same arguments, literals and
// parameters among them (RFC 4466, section 2.1; RFC 7162, section 3.2.5).
func examine(line []byte, at int) []byte {
	return slices.Concat(line[:at], []byte("EXAMINE"), line[at+len("SELECT"):])
}
