package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
)

// An upstream is as much of an IMAP server as a login needs: it takes the password with any
// name. It says what Dovecot says, for the proxy reads it.
type upstream struct{ listener net.Listener }

const (
	beforeLogin = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN"
	afterLogin  = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES THREAD=REFS " +
		"THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED I18NLEVEL=1 " +
		"CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY " +
		"PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE"
)

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a port for the upstream: %w", err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveMailbox(c)
		}
	}()
	return &upstream{l}, nil
}

func (u *upstream) address() string { return u.listener.Addr().String() }

func (u *upstream) close() { u.listener.Close() }

func serveMailbox(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	io.WriteString(c, "* OK [CAPABILITY "+beforeLogin+"] Dovecot ready.\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, argument, _ := strings.Cut(command, " ")
		switch strings.ToUpper(name) {
		case "ID":
			fmt.Fprintf(c, "* ID (\"name\" \"Dovecot\")\r\n%s OK ID completed.\r\n", tag)
		case "AUTHENTICATE":
			if isPassword(argument) {
				fmt.Fprintf(c, "%s OK [CAPABILITY %s] Logged in\r\n", tag, afterLogin)
			} else {
				fmt.Fprintf(c, "%s NO [AUTHENTICATIONFAILED] Authentication failed.\r\n", tag)
			}
		case "LOGOUT":
			fmt.Fprintf(c, "* BYE Logging out\r\n%s OK Logout completed.\r\n", tag)
			return
		default:
			fmt.Fprintf(c, "%s BAD Unknown command.\r\n", tag)
		}
	}
}

// isPassword reads the argument "PLAIN message" (RFC 4616).
func isPassword(argument string) bool {
	_, initial, _ := strings.Cut(argument, " ")
	message, err := base64.StdEncoding.DecodeString(initial)
	return err == nil && strings.HasSuffix(string(message), "\x00"+password)
}
