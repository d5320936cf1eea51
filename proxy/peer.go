package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
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
	in := bufio.NewReaderSize(s.socket, 512)
	header, err := proxyproto.Read(in)
	if err == nil && !header.Command.IsLocal() && header.SourceAddr != nil {
		s.client, s.local = address(header.SourceAddr), address(header.DestinationAddr)
		if s.peer = s.client; !s.client.IsValid() {
			err = fmt.Errorf("its source is no IP address")
		}
	}
	if err != nil {
		s.server.Log.Warn("no usable PROXY header from a trusted proxy", zap.String("session", s.id),
			zap.Stringer("proxy", address(s.socket.RemoteAddr())), zap.Error(err))
		return endProxyHeader
	}
	first, _ := in.Peek(in.Buffered())
	s.conn = &preread{Conn: s.socket, first: append([]byte(nil), first...)}
	return nil
}

// trusts says whether a PROXY header of that peer is believed.
func (l Listener) trusts(peer netip.Addr) bool {
	return contains(l.TrustedProxies, peer)
}

// isWebmail says whether that peer is believed where its users are. They share its
// connections and its TLS sessions.
func (s *Server) isWebmail(peer netip.Addr) bool { return contains(s.Webmail, peer) }

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// originID are the ID fields in which webmail hosts say where a user is, as Dovecot has them
// for its login_trusted_networks.
var originID = []string{"x-originating-ip", "x-originating-port"}

// follow takes a webmail host's word for where its user is: from here on that is the
// client's address, for rules, limits, grants, the audit and the upstream. It is one for all
// attempts of a connection, so from the first on it stays. Without a usable address the
// client is where the host is.
func (s *session) follow(said map[string]string) {
	text, ok := said["x-originating-ip"]
	if !ok || !s.secure || s.attempt != nil { // what came before TLS anybody may have put there
		return
	}
	addr, err := netip.ParseAddr(text)
	if addr = addr.Unmap(); err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
		s.server.Log.Debug("no usable address from a webmail host", zap.String("session", s.id),
			zap.Stringer("peer", s.peer.Addr()), zap.String("said", printable(text)))
		return
	}
	port, err := strconv.ParseUint(said["x-originating-port"], 10, 16)
	if err != nil {
		port = 0 // nothing hangs on it
	}
	s.client = netip.AddrPortFrom(addr, uint16(port))
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
