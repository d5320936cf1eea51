package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"imapwarden/bench/internal/rig"
)

// A conn is a mail program's.
type conn struct {
	net.Conn
	in *bufio.Reader
}

// dial makes a full handshake, for there is no session to resume, and reads the greeting.
func (w *warden) dial() (*conn, error) {
	tcp, err := net.DialTimeout("tcp", w.address, rig.Patience)
	if err != nil {
		return nil, err
	}
	tcp.SetDeadline(time.Now().Add(rig.Patience))
	secure := tls.Client(tcp, w.believe)
	c := &conn{secure, bufio.NewReader(secure)}
	line, err := c.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "* OK ") {
		err = fmt.Errorf("greeting: %q", line)
	}
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return c, nil
}

// signIn signs in and out, and returns when the proxy has closed the connection.
func (w *warden) signIn(name, secret string) error {
	c, err := w.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.do("a1", "LOGIN "+name+" "+secret); err != nil {
		return fmt.Errorf("signing in as %s: %w", name, err)
	}
	if err := c.do("a2", "LOGOUT"); err != nil {
		return fmt.Errorf("signing out %s: %w", name, err)
	}
	if _, err := io.Copy(io.Discard, c.in); err != nil {
		return fmt.Errorf("waiting for the end of %s's session: %w", name, err)
	}
	return nil
}

// do sends a command and wants OK.
func (c *conn) do(tag, command string) error {
	if _, err := io.WriteString(c, tag+" "+command+"\r\n"); err != nil {
		return err
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		if reply, ok := strings.CutPrefix(line, tag+" "); ok {
			if !strings.HasPrefix(reply, "OK ") {
				return errors.New("the answer is " + strings.TrimSpace(reply))
			}
			return nil
		}
	}
}
