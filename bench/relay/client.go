package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"imapwarden/bench/internal/rig"
)

// longest is how long one command may take.
const longest = 2 * time.Minute

// message is what clients append. What it says doesn't matter.
var message = make([]byte, 64<<10)

// A client is a mail program's connection.
type client struct {
	net.Conn
	in     *bufio.Reader
	tags   int
	idling string // the tag of IDLE
}

// dial connects, in plaintext where config is nil, and reads the greeting.
func dial(address string, config *tls.Config) (*client, error) {
	tcp, err := net.DialTimeout("tcp", address, rig.Patience)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: tcp}
	if config != nil {
		c.Conn = tls.Client(tcp, config)
	}
	c.in = bufio.NewReaderSize(c.Conn, 1<<10)
	c.SetDeadline(time.Now().Add(longest))
	line, err := c.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "* OK") {
		err = fmt.Errorf("greeting: %q", line)
	}
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) login(name string) error { return c.do("LOGIN " + name + " " + rig.Password) }

// logout returns when the proxy has closed the connection.
func (c *client) logout() error {
	if err := c.do("LOGOUT"); err != nil {
		return err
	}
	// A proxy may close TCP without close_notify.
	if _, err := io.Copy(io.Discard, c.in); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return c.Close()
}

// do sends a command and wants OK. Literals of the answer lead nowhere.
func (c *client) do(command string) error {
	tag, err := c.send(command)
	if err != nil {
		return err
	}
	return c.await(tag)
}

func (c *client) down(octets int64) error { return c.do("DOWN " + strconv.FormatInt(octets, 10)) }

// up appends a message of so many octets.
func (c *client) up(octets int64) error {
	tag, err := c.send(fmt.Sprintf("APPEND INBOX {%d}", octets))
	if err != nil {
		return err
	}
	if err := c.invited(); err != nil {
		return err
	}
	for octets > 0 {
		n, err := c.Write(message[:min(octets, int64(len(message)))])
		if err != nil {
			return err
		}
		octets -= int64(n)
	}
	if _, err := io.WriteString(c, "\r\n"); err != nil {
		return err
	}
	return c.await(tag)
}

// idle begins IDLE.
func (c *client) idle() (err error) {
	if c.idling, err = c.send("IDLE"); err != nil {
		return err
	}
	return c.invited()
}

// done ends IDLE.
func (c *client) done() error {
	c.SetDeadline(time.Now().Add(longest))
	if _, err := io.WriteString(c, "DONE\r\n"); err != nil {
		return err
	}
	return c.await(c.idling)
}

func (c *client) send(command string) (tag string, err error) {
	c.SetDeadline(time.Now().Add(longest))
	c.tags++
	tag = "a" + strconv.Itoa(c.tags)
	_, err = io.WriteString(c, tag+" "+command+"\r\n")
	return tag, err
}

// invited reads a continuation request.
func (c *client) invited() error {
	line, err := c.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+") {
		err = fmt.Errorf("the answer is %q, not a continuation request", line)
	}
	return err
}

// await reads until the tagged answer.
func (c *client) await(tag string) error {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		if reply, ok := strings.CutPrefix(line, tag+" "); ok {
			if !strings.HasPrefix(reply, "OK") {
				return fmt.Errorf("the answer is %q", reply)
			}
			return nil
		}
		if size, ok := literal(line); ok {
			if err := rig.Discard(c.in, size); err != nil {
				return err
			}
		}
	}
}

// literal reads the end of a response's line.
func literal(line string) (size int64, ok bool) {
	rest, found := strings.CutSuffix(line, "}\r\n")
	if !found {
		return 0, false
	}
	size, err := strconv.ParseInt(rest[strings.LastIndexByte(rest, '{')+1:], 10, 64)
	return size, err == nil
}
