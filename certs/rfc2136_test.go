package certs_test

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"imapwarden/certs"
)

const (
	tsigKey    = "warden."
	tsigSecret = "d2FyZGVuJ3Mgc2VjcmV0"
)

// A nameServer is the primary of some zones, whose TXT records who has the key may change.
type nameServer struct {
	address   string
	zones     []string
	secret    string // of the key as the server knows it; "": as we do
	truncates bool   // its answers over UDP are cut
	silent    bool   // it doesn't answer over UDP
	unsigned  bool   // it signs no answer
	missigns  bool   // it signs answers with another secret
	refuses   bool   // it takes no updates
	isLate    bool   // its clock is another

	mu       sync.Mutex
	texts    map[string][]string // by name
	networks []string            // of the messages that came, in order
}

// newNameServer serves the zones on one port, over UDP and TCP.
func newNameServer(t *testing.T, s *nameServer, zones ...string) *nameServer {
	t.Helper()
	s.zones, s.texts = zones, make(map[string][]string)
	packets, listener := listenTwice(t)
	s.address = listener.Addr().String()
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: listener}} {
		server.TsigProvider = serverKey{s}
		server.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		server.Handler = s
		started, ended := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			server.Shutdown()
			<-ended
		})
	}
	return s
}

// listenTwice returns one port of UDP and TCP.
func listenTwice(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 { // what is free for the one may be taken for the other
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, listener
		}
		packets.Close()
	}
	t.Fatal("no port is free")
	return nil, nil
}

// serverKey signs as the server does.
type serverKey struct{ *nameServer }

func (k serverKey) mac(msg []byte, t *dns.TSIG) ([]byte, error) {
	newHash, ok := map[string]func() hash.Hash{
		dns.HmacSHA1: sha1.New, dns.HmacSHA224: sha256.New224, dns.HmacSHA256: sha256.New, dns.HmacSHA384: sha512.New384, dns.HmacSHA512: sha512.New,
	}[dns.CanonicalName(t.Algorithm)]
	if !ok {
		return nil, dns.ErrKeyAlg
	}
	secret, err := base64.StdEncoding.DecodeString(cmp.Or(k.secret, tsigSecret))
	mac := hmac.New(newHash, secret)
	mac.Write(msg)
	return mac.Sum(nil), err
}

func (k serverKey) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	mac, err := k.mac(msg, t)
	if err == nil && k.missigns {
		mac[0] ^= 1
	}
	return mac, err
}

func (k serverKey) Verify(msg []byte, t *dns.TSIG) error {
	if t.Hdr.Name != tsigKey {
		return dns.ErrSecret
	}
	mac, err := k.mac(msg, t)
	if err == nil && fmt.Sprintf("%x", mac) != t.MAC {
		err = dns.ErrSig
	}
	return err
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	network := w.LocalAddr().Network()
	s.networks = append(s.networks, network)
	if s.silent && network == "udp" {
		return
	}
	answer := new(dns.Msg).SetReply(request)
	tsig := request.IsTsig()
	switch err := w.TsigStatus(); {
	case tsig == nil:
		answer.Rcode = dns.RcodeRefused
	case errors.Is(err, dns.ErrSecret):
		s.complain(w, answer, tsig, dns.RcodeBadKey)
		return
	case err != nil:
		s.complain(w, answer, tsig, dns.RcodeBadSig)
		return
	case s.isLate:
		s.complain(w, answer, tsig, dns.RcodeBadTime)
		return
	case s.truncates && network == "udp":
		answer.Truncated = true
	case request.Opcode == dns.OpcodeUpdate:
		answer.Rcode = s.update(request)
	default:
		s.soa(request.Question[0].Name, answer)
	}
	if tsig != nil && !s.unsigned {
		answer.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, time.Now().Unix())
	}
	w.WriteMsg(answer)
}

// complain answers without a signature (RFC 8945, section 5.3.2).
func (s *nameServer) complain(w dns.ResponseWriter, answer *dns.Msg, tsig *dns.TSIG, code uint16) {
	answer.Rcode = dns.RcodeNotAuth
	answer.Extra = append(answer.Extra, &dns.TSIG{
		Hdr:       dns.RR_Header{Name: tsig.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: tsig.Algorithm, TimeSigned: uint64(time.Now().Unix()), Fudge: 300, OrigId: answer.Id, Error: code,
	})
	packed, err := answer.Pack()
	if err == nil {
		w.Write(packed)
	}
}

func (s *nameServer) update(request *dns.Msg) int {
	switch zone := request.Question[0].Name; {
	case s.refuses:
		return dns.RcodeRefused
	case !slices.Contains(s.zones, zone):
		return dns.RcodeNotAuth
	}
	for _, rr := range request.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok || len(txt.Txt) != 1 {
			return dns.RcodeFormatError
		}
		name, value := txt.Hdr.Name, txt.Txt[0]
		s.texts[name] = slices.DeleteFunc(s.texts[name], func(v string) bool { return v == value })
		switch txt.Hdr.Class {
		case dns.ClassINET:
			s.texts[name] = append(s.texts[name], value)
		case dns.ClassNONE: // RFC 2136, section 2.5.4
			if txt.Hdr.Ttl != 0 {
				return dns.RcodeFormatError
			}
		default:
			return dns.RcodeFormatError
		}
	}
	return dns.RcodeSuccess
}

// soa answers as the primary of the zones does: the name may be one, or in one.
func (s *nameServer) soa(name string, answer *dns.Msg) {
	answer.Rcode = dns.RcodeRefused
	for _, zone := range s.zones {
		if !dns.IsSubDomain(zone, name) {
			continue
		}
		soa, _ := dns.NewRR(zone + " 60 IN SOA ns.example. postmaster.example. 1 60 60 60 60")
		answer.Authoritative, answer.Rcode = true, dns.RcodeSuccess
		if zone == name {
			answer.Answer, answer.Ns = []dns.RR{soa}, nil
			return
		}
		answer.Ns, answer.Rcode = []dns.RR{soa}, dns.RcodeNameError
	}
}

// now returns the values of a name, and how the last messages came.
func (s *nameServer) now(name string) (values, networks []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	networks, s.networks = s.networks, nil
	return slices.Clone(s.texts[name]), networks
}

func updates(t *testing.T, server, zone string) *certs.RFC2136 {
	t.Helper()
	p, err := certs.NewRFC2136(server, zone, tsigKey, "", tsigSecret)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestUpdatesWriteAndRemoveTheirOwnValues(t *testing.T) {
	server := newNameServer(t, &nameServer{}, "example.org.")
	p := updates(t, server.address, "Example.org")
	const name = "_acme-challenge.mail.example.org."
	expect := func(want ...string) {
		t.Helper()
		values, networks := server.now(name)
		if !slices.Equal(values, want) || !slices.Equal(networks, []string{"udp"}) {
			t.Errorf("values %q over %v, want %q over udp", values, networks, want)
		}
	}
	first, second := challengeOf("_acme-challenge.mail", challengeValue), challengeOf("_acme-challenge.mail", "-second_")
	done, err := p.AppendRecords(t.Context(), "example.org.", first)
	if err != nil {
		t.Fatal(err)
	}
	if txt, ok := done[0].(libdns.TXT); !ok || len(done) != 1 || txt.RR() != first[0].RR() {
		t.Errorf("returned %#v", done)
	}
	expect(challengeValue)
	// The zone by the resolver may be another than the one to be updated.
	if _, err := p.AppendRecords(t.Context(), "mail.example.org.", challengeOf("_acme-challenge", "-second_")); err != nil {
		t.Fatal(err)
	}
	expect(challengeValue, "-second_")
	if _, err := p.DeleteRecords(t.Context(), "example.org.", done); err != nil {
		t.Fatal(err)
	}
	expect("-second_")
	for range 2 { // the second time it isn't there any more
		if _, err := p.DeleteRecords(t.Context(), "example.org.", second); err != nil {
			t.Fatal(err)
		}
		expect()
	}
}

func TestUpdatesKnowAlgorithms(t *testing.T) {
	server := newNameServer(t, &nameServer{}, "example.org.")
	for _, algorithm := range []string{"", "hmac-sha256", "HMAC-SHA512.", "hmac-sha384", "hmac-sha224", "hmac-sha1"} {
		p, err := certs.NewRFC2136(server.address, "", "Warden", algorithm, tsigSecret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendRecords(t.Context(), "example.org.", challengeOf("a", challengeValue)); err != nil {
			t.Errorf("%q: %v", algorithm, err)
		}
	}
}

func TestUpdatesFindTheZone(t *testing.T) {
	server := newNameServer(t, &nameServer{}, "org.", "example.org.", "mail.example.org.", "_acme-challenge.own.example.org.", "example.net.")
	p := updates(t, server.address, "")
	for name, want := range map[string]string{
		"_acme-challenge.example.org.":        "",
		"_acme-challenge.mail.example.org.":   "",
		"_acme-challenge.own.example.org.":    "",
		"_acme-challenge.a.b.c.example.net.":  "",
		"_acme-challenge.other.org.":          "",
		"_acme-challenge.mail.example.com.":   "it knows no zone of this name (REFUSED): name the zone",
		"_acme-challenge.mailexample.net.ch.": "it knows no zone of this name",
	} {
		_, err := p.AppendRecords(t.Context(), ".", challengeOf(name, challengeValue))
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
			continue
		}
		if values, _ := server.now(name); err != nil || !slices.Equal(values, []string{challengeValue}) {
			t.Errorf("%s: %v, the server has %q", name, err, values)
		}
	}
}

func TestUpdatesFallBackToTCP(t *testing.T) {
	const name = "_acme-challenge.example.org."
	for what, server := range map[string]*nameServer{
		"truncated": {truncates: true},
		"silent":    {silent: true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			newNameServer(t, server, "example.org.")
			_, err := updates(t, server.address, "example.org").AppendRecords(t.Context(), "example.org.", challengeOf("_acme-challenge", challengeValue))
			values, networks := server.now(name)
			if err != nil || !slices.Equal(values, []string{challengeValue}) || !slices.Equal(networks, []string{"udp", "tcp"}) {
				t.Errorf("got %v; the server has %q, asked over %v", err, values, networks)
			}
		})
	}
}

func TestUpdatesSayWhatIsWrong(t *testing.T) {
	for _, test := range []*struct {
		name   string
		server nameServer
		zone   string
		key    string
		secret string
		want   string
	}{
		{"a key of another name", nameServer{}, "example.org", "other", tsigSecret, "it doesn't know the key other. with this algorithm (BADKEY)"},
		{"another secret", nameServer{}, "example.org", tsigKey, "b3RoZXI=", "it has another secret for the key warden. (BADSIG)"},
		{"another secret, looking for the zone", nameServer{}, "", tsigKey, "b3RoZXI=", "looking for its zone: it has another secret"},
		{"another time", nameServer{isLate: true}, "example.org", tsigKey, tsigSecret, "its clock and ours differ"},
		{
			"refused",
			nameServer{refuses: true},
			"example.org", tsigKey, tsigSecret,
			"it refuses (REFUSED): its update policy for the zone example.org. must let the key warden. change TXT records",
		},
		{"refused without a signature", nameServer{refuses: true, unsigned: true}, "example.org", tsigKey, tsigSecret, "(REFUSED)"},
		{"an unsigned yes", nameServer{unsigned: true}, "example.org", tsigKey, tsigSecret, "its answer isn't signed with the key warden."},
		{"a server with another secret", nameServer{secret: "b3RoZXI="}, "example.org", tsigKey, tsigSecret, "(BADSIG)"},
		{"a yes that somebody else signed", nameServer{missigns: true}, "example.org", tsigKey, tsigSecret, "its answer isn't signed with our secret of the key warden."},
		{"not its zone", nameServer{}, "org", tsigKey, tsigSecret, "it is not the primary server of the zone org. (NOTAUTH)"},
		{"not in the zone", nameServer{}, "example.com", tsigKey, tsigSecret, "it is not in the zone example.com."},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := newNameServer(t, &test.server, "example.org.")
			p, err := certs.NewRFC2136(server.address, test.zone, test.key, "", test.secret)
			if err != nil {
				t.Fatal(err)
			}
			done, err := p.AppendRecords(t.Context(), "example.org.", challengeOf("_acme-challenge", challengeValue))
			if err == nil || done != nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, %v; want %q", done, err, test.want)
			}
			if !strings.Contains(err.Error(), "_acme-challenge.example.org. by the DNS server "+server.address) || strings.Contains(err.Error(), test.secret) {
				t.Errorf("says %v", err)
			}
		})
	}
}

func TestUpdatesWithoutServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	p := updates(t, listener.Addr().String(), "example.org")
	if _, err := p.AppendRecords(t.Context(), "example.org.", challengeOf("a", challengeValue)); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestUpdatesEndWithTheirContext(t *testing.T) {
	server := newNameServer(t, &nameServer{silent: true}, "example.org.")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := updates(t, server.address, "example.org").AppendRecords(ctx, "example.org.", challengeOf("a", challengeValue))
		failed <- err
	}()
	for networks := []string(nil); len(networks) == 0; _, networks = server.now("") {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestUpdatesAreRefusedInTheConfiguration(t *testing.T) {
	for _, test := range []struct{ server, zone, key, algorithm, secret, want string }{
		{"", "", "k", "", tsigSecret, "not the host"},
		{"ns.example.org:", "", "k", "", tsigSecret, "not the host"},
		{"ns.example.org", "a..b", "k", "", tsigSecret, `"a..b." is not the name of a zone`},
		{"ns.example.org", "", "", "", tsigSecret, `"." is not the name of a key`},
		{"ns.example.org", "", "k", "hmac-md5", tsigSecret, `unknown algorithm "hmac-md5"`},
		{"ns.example.org", "", "k", "", "", "the secret of DNS key k. is not in base64"},
		{"ns.example.org", "", "k", "", "?secret?", "the secret of DNS key k. is not in base64"},
	} {
		_, err := certs.NewRFC2136(test.server, test.zone, test.key, test.algorithm, test.secret)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "?secret?") {
			t.Errorf("%+v: got %v", test, err)
		}
	}
	for server, want := range map[string]string{
		"ns.example.org": "ns.example.org:53", "ns.example.org:5353": "ns.example.org:5353",
		"192.0.2.1": "192.0.2.1:53", "2001:db8::1": "[2001:db8::1]:53", "[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:54": "[2001:db8::1]:54",
	} {
		p := updates(t, server, "")
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if got := fmt.Sprintf(verb, p); got != "RFC 2136 at "+want {
				t.Errorf("%s prints as %s", server, got)
			}
		}
	}
}
