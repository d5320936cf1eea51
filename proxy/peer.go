package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
)

// proxyHeaderTime is how long a trusted peer may take for its PROXY header. It sends it
// at once, for it is its first packet.
const proxyHeaderTime = 3 * time.Second

// locate learns where the client is. From a peer that this listener trusts, a PROXY header
// (v1 or v2) is required and believed; from nobody else is it even looked for, so that
// the address can't be forged.
func (s *session) locate() error {
	if !s.listener.trusts(s.client.Addr()) {
		return nil
	}
	s.deadline(proxyHeaderTime)
	in := bufio.NewReaderSize(s.tcp, 512)
	header, err := proxyproto.Read(in)
	if err == nil && !header.Command.IsLocal() && header.SourceAddr != nil {
		s.client, s.local = address(header.SourceAddr), address(header.DestinationAddr)
		if !s.client.IsValid() {
			err = fmt.Errorf("its source is no IP address")
		}
	}
	if err != nil {
		s.server.Log.Warn("no usable PROXY header from a trusted proxy", zap.String("session", s.id),
			zap.Stringer("proxy", address(s.tcp.RemoteAddr())), zap.Error(err))
		return endProxyHeader
	}
	first, _ := in.Peek(in.Buffered())
	s.conn = &preread{Conn: s.tcp, first: append([]byte(nil), first...)}
	return nil
}

// trusts says whether a PROXY header of that peer is believed.
func (l Listener) trusts(peer netip.Addr) bool {
	for _, prefix := range l.TrustedProxies {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// announce tells an upstream the client's address before anything else (PROXY v2).
func announce(conn net.Conn, client, local netip.AddrPort) error {
	header := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(local))
	if _, err := header.WriteTo(conn); err != nil {
		return fmt.Errorf("sending the PROXY header: %w", err)
	}
	return nil
}

// preread is a connection of which some octets have been read already.
type preread struct {
	net.Conn
	first []byte
}

func (p *preread) Read(b []byte) (int, error) {
	if len(p.first) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}
