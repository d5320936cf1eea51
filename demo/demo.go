// Package demo is a mailbox server for trying imapwarden out: one account, a
// few folders and realistic messages, all in memory and gone with the process.
//
// It plays the upstream, so it speaks plaintext IMAP and listens on loopback
// alone. It knows nothing of the proxy, and what it is made of (go-imap's
// imapserver and imapmemserver) is never what a client of the proxy talks to.
package demo

import (
	"fmt"
	"io"
	"log"
	"net"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// A Mailbox is a running server with one account.
type Mailbox struct {
	listener *listener
	served   chan error // what Serve returned
}

// Start opens a port on loopback and serves an account of that name and
// password there until Close.
func Start(user, password string) (*Mailbox, error) {
	account := imapmemserver.NewUser(user, password)
	if err := fill(account, user); err != nil {
		return nil, fmt.Errorf("demo: making the mailbox: %w", err)
	}
	accounts := imapmemserver.New()
	accounts.AddUser(account)

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: opening a port on loopback: %w", err)
	}
	m := &Mailbox{
		listener: &listener{Listener: tcp, conns: map[*conn]struct{}{}},
		served:   make(chan error, 1),
	}
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return accounts.NewSession(), nil, nil
		},
		Caps:         capabilities(),
		InsecureAuth: true, // loopback; TLS is the proxy's part of the demo
		// It reports each client that hangs up, between the lines of the demo.
		Logger: log.New(io.Discard, "", 0),
	})
	go func() { m.served <- server.Serve(m.listener) }()
	return m, nil
}

// capabilities are those of IMAP4rev2, which imapmemserver has, under the names
// by which clients of IMAP4rev1 find them (RFC 9051, appendix E).
func capabilities() imap.CapSet {
	return imap.CapSet{
		imap.CapIMAP4rev1:  {},
		imap.CapIMAP4rev2:  {},
		imap.CapNamespace:  {},
		imap.CapUIDPlus:    {},
		imap.CapESearch:    {},
		imap.CapListStatus: {},
		imap.CapMove:       {},
		imap.CapStatusSize: {},
	}
}

// Addr is where it listens, as host:port.
func (m *Mailbox) Addr() string { return m.listener.Addr().String() }

// Close ends the server and all its sessions and waits for them.
func (m *Mailbox) Close() error {
	m.listener.end()
	if err := <-m.served; err != nil {
		return fmt.Errorf("demo: serving the mailbox: %w", err)
	}
	return nil
}

// A listener knows the connections that it has accepted. imapserver's own Close
// misses those accepted in the same moment, and waits for none (v2.0.0-beta.8).
type listener struct {
	net.Listener

	open sync.WaitGroup // the connections

	mu    sync.Mutex
	ended bool
	conns map[*conn]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	tcp, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		tcp.Close()
		return nil, net.ErrClosed
	}
	c := &conn{Conn: tcp, listener: l}
	l.conns[c] = struct{}{}
	l.open.Add(1)
	return c, nil
}

// end cuts all connections and waits until their sessions have closed them too.
func (l *listener) end() {
	l.mu.Lock()
	l.ended = true
	for c := range l.conns {
		c.Conn.Close()
	}
	l.mu.Unlock()
	l.Listener.Close()
	l.open.Wait()
}

// A conn tells its listener when its session closes it, which is the last thing
// that a session does.
type conn struct {
	net.Conn
	listener *listener
}

func (c *conn) Close() error {
	l := c.listener
	l.mu.Lock()
	_, open := l.conns[c]
	delete(l.conns, c)
	l.mu.Unlock()
	err := c.Conn.Close()
	if open {
		l.open.Done()
	}
	return err
}
