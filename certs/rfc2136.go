package certs

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

const (
	udpPatience = 5 * time.Second // then TCP is tried
	tcpPatience = 15 * time.Second
	tsigFudge   = 300 // seconds that the clocks may differ (RFC 8945, section 10)
)

// An RFC2136 writes the records of DNS-01 challenges by dynamic updates (RFC 2136), signed with
// a key that the server knows (RFC 8945). It is safe for concurrent use, and keeps to the names
// and values that it is told: other values of the same name stay. certmagic uses it as a
// libdns provider.
type RFC2136 struct {
	server    string // host:port
	zone      string // "": the server is asked
	key       string
	algorithm string
	secrets   map[string]string // by key, as miekg/dns asks for it
}

// NewRFC2136 returns a provider for the server at host or host:port, that knows the key with the
// secret, in base64, under keyName. The algorithm is "hmac-sha256", if it is "", or another
// of hmac-sha1, -sha224, -sha384, -sha512. With zone "", each name's is asked for at the server.
func NewRFC2136(server, zone, keyName, algorithm, secret string) (*RFC2136, error) {
	p := &RFC2136{
		server:    withPort(server),
		key:       dns.CanonicalName(keyName),
		algorithm: dns.CanonicalName(cmp.Or(algorithm, "hmac-sha256")),
	}
	if zone != "" {
		p.zone = dns.CanonicalName(zone)
	}
	if host, port, err := net.SplitHostPort(p.server); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("certs: %q is not the host, or host:port, of a DNS server", server)
	}
	for what, name := range map[string]string{"zone": cmp.Or(p.zone, "."), "key": p.key} {
		if _, ok := dns.IsDomainName(name); !ok || what == "key" && name == "." {
			return nil, fmt.Errorf("certs: %q is not the name of a %s", name, what)
		}
	}
	switch p.algorithm {
	case dns.HmacSHA1, dns.HmacSHA224, dns.HmacSHA256, dns.HmacSHA384, dns.HmacSHA512:
	default:
		return nil, fmt.Errorf("certs: unknown algorithm %q for signing DNS updates: "+
			"hmac-sha256 is the usual one; hmac-sha1, hmac-sha224, hmac-sha384 and hmac-sha512 are known too", algorithm)
	}
	if raw, err := base64.StdEncoding.DecodeString(secret); err != nil || len(raw) == 0 {
		return nil, fmt.Errorf("certs: the secret of DNS key %s is not in base64: it must be what the server's configuration has as its secret", p.key)
	}
	p.secrets = map[string]string{p.key: secret}
	return p, nil
}

func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "53")
}

// Format tells all but the secret: fmt looks into private fields.
func (p *RFC2136) Format(f fmt.State, _ rune) { io.WriteString(f, "RFC 2136 at "+p.server) }

// AppendRecords adds the records, and returns them.
func (p *RFC2136) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, zone, records, (*dns.Msg).Insert)
}

// DeleteRecords removes the records with these values; those that aren't there are no error. It
// returns all that it was told, for the server doesn't say which there were.
func (p *RFC2136) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, zone, records, (*dns.Msg).Remove)
}

func (p *RFC2136) change(ctx context.Context, zone string, records []libdns.Record, how func(*dns.Msg, []dns.RR)) ([]libdns.Record, error) {
	list, err := challengeRecords(zone, records)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if err := p.update(ctx, r, how); err != nil {
			return nil, fmt.Errorf("certs: updating %s by the DNS server %s: %w", r.name, p.server, err)
		}
	}
	return texts(records), nil
}

func (p *RFC2136) update(ctx context.Context, r challengeRecord, how func(*dns.Msg, []dns.RR)) error {
	zone := p.zone
	if zone == "" {
		var err error
		if zone, err = p.findZone(ctx, r.name); err != nil {
			return err
		}
	}
	if !dns.IsSubDomain(zone, r.name) {
		return fmt.Errorf("it is not in the zone %s", zone)
	}
	m := new(dns.Msg).SetUpdate(zone)
	how(m, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: r.name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.ttl / time.Second)},
		Txt: []string{r.value},
	}})
	answer, err := p.ask(ctx, m)
	if err != nil {
		return err
	}
	switch answer.Rcode {
	case dns.RcodeSuccess:
		return nil
	case dns.RcodeRefused:
		return fmt.Errorf("it refuses (REFUSED): its update policy for the zone %s must let the key %s change TXT records of this name", zone, p.key)
	case dns.RcodeNotAuth, dns.RcodeNotZone:
		return fmt.Errorf("it is not the primary server of the zone %s (%s)", zone, dns.RcodeToString[answer.Rcode])
	}
	return fmt.Errorf("it answers %s", rcode(answer.Rcode))
}

// findZone asks for the SOA record of the name, and of the names above it, until one is told.
func (p *RFC2136) findZone(ctx context.Context, name string) (string, error) {
	last := 0
	for offset, end := 0, false; !end; offset, end = dns.NextLabel(name, offset) {
		m := new(dns.Msg).SetQuestion(name[offset:], dns.TypeSOA)
		m.RecursionDesired = false // only what it is the server of is of use
		answer, err := p.ask(ctx, m)
		if err != nil {
			return "", fmt.Errorf("looking for its zone: %w", err)
		}
		// In the authority section it is that of the zone in which the name isn't (RFC 2308, section 3).
		for _, rr := range append(answer.Answer, answer.Ns...) {
			if soa, ok := rr.(*dns.SOA); ok && answer.Authoritative && dns.IsSubDomain(soa.Hdr.Name, name) {
				return dns.CanonicalName(soa.Hdr.Name), nil
			}
		}
		last = answer.Rcode
	}
	return "", fmt.Errorf("it knows no zone of this name (%s): name the zone in the configuration", rcode(last))
}

// ask sends m over UDP, and over TCP where that brings no whole answer: what m asks for may be
// done twice. It believes a yes only if the key signed it.
func (p *RFC2136) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	answer, err := p.exchange(ctx, m, "udp", udpPatience)
	if _, isNet := errors.AsType[net.Error](err); isNet || err == nil && answer.Truncated {
		answer, err = p.exchange(ctx, m, "tcp", tcpPatience)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return answer, p.explain(answer, err)
}

func (p *RFC2136) exchange(ctx context.Context, m *dns.Msg, network string, patience time.Duration) (*dns.Msg, error) {
	client := &dns.Client{Net: network, Timeout: patience, TsigSecret: p.secrets}
	conn, err := client.DialContext(ctx, p.server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // miekg/dns knows the deadline of ctx, not its end
	defer stop()
	signed := m.Copy()
	signed.Id = dns.Id()
	signed.SetTsig(p.key, p.algorithm, tsigFudge, time.Now().Unix())
	answer, _, err := client.ExchangeWithConnContext(ctx, signed, conn)
	return answer, err
}

// explain says what was wrong with signatures. The server's own complaint of ours
// isn't signed (RFC 8945, section 5.3.2), so that it fails the check as well.
func (p *RFC2136) explain(answer *dns.Msg, err error) error {
	if answer == nil {
		return err
	}
	tsig := answer.IsTsig()
	switch {
	case tsig == nil && err == nil && answer.Rcode == dns.RcodeSuccess:
		return fmt.Errorf("its answer isn't signed with the key %s, so it may be somebody else's", p.key)
	case tsig == nil && err == nil:
		return nil // an unsigned no
	case tsig == nil:
		return err
	case tsig.Error == dns.RcodeBadKey:
		return fmt.Errorf("it doesn't know the key %s with this algorithm (BADKEY)", p.key)
	case tsig.Error == dns.RcodeBadSig:
		return fmt.Errorf("it has another secret for the key %s (BADSIG)", p.key)
	case tsig.Error == dns.RcodeBadTime || errors.Is(err, dns.ErrTime):
		return errors.New("its clock and ours differ by more than five minutes (BADTIME)")
	case errors.Is(err, dns.ErrAuth): // miekg/dns checks nothing where the answer is NOTAUTH, which is no yes
		return nil
	case err != nil:
		return fmt.Errorf("its answer isn't signed with our secret of the key %s: %w", p.key, err)
	}
	return nil
}

func rcode(code int) string {
	return cmp.Or(dns.RcodeToString[code], fmt.Sprint("code ", code))
}
