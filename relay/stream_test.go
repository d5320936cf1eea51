package relay

import (
	"crypto/tls"
	"fmt"
	"io"
	randv2 "math/rand/v2"
	"runtime"
	"testing"
)

var versions = map[uint16]string{0: "plaintext", tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"}

// A pace is how the far ends write and read.
type pace struct {
	name        string
	size        int               // octets each way
	write, read func(int) (n int) // of so many octets that are left or fit
	small       bool
}

func whole(n int) int { return n }
func one(int) int     { return 1 }
func few(n int) int   { return min(n, 1+randv2.IntN(40)) }
func some(n int) int  { return min(n, 1<<randv2.IntN(18)) }

var paces = []pace{
	{"large", 1 << 20, whole, whole, false},
	{"large to slow readers", 100 << 10, whole, few, true},
	{"of any size", 256 << 10, some, some, true},
	{"tiny", 50 << 10, few, whole, false},
	{"one by one", 3 << 10, one, one, false},
}

func (p pace) send(to io.Writer, octets []byte) error {
	for len(octets) > 0 {
		n := p.write(len(octets))
		if _, err := to.Write(octets[:n]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		octets = octets[n:]
	}
	return nil
}

// receive reads to the end, which has to be a good one.
func (p pace) receive(from *far, want []byte) error {
	var got []byte
	b := make([]byte, 128<<10)
	for {
		n, err := from.Read(b[:p.read(len(b))])
		got = append(got, b[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read after %d octets: %w", len(got), err)
		}
		if p.small {
			runtime.Gosched()
		}
	}
	if _, ok := from.stream.(*tls.Conn); ok && from.gate.fin.Load() {
		return fmt.Errorf("FIN without close_notify after %d octets", len(got))
	}
	return same(got, want)
}

// TestStream sends random octets both ways at once, behind those that were read before the hand-over.
func TestStream(t *testing.T) {
	for _, transport := range transports {
		for _, client := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			for _, upstream := range []uint16{0, tls.VersionTLS13} {
				for _, pace := range paces {
					t.Run(fmt.Sprintf("%s/%s/%s/%s", transport.name, versions[client], versions[upstream], pace.name), func(t *testing.T) {
						up, down := noise(1, pace.size+5000), noise(2, pace.size+3000)
						r := relayed(t, plan{
							wrap: transport.wrap, client: client, upstream: upstream, small: pace.small,
							firstClient: up[:5000], firstUpstream: down[:3000],
						})
						failed := make(chan error, 4)
						heard := make(chan struct{})
						go func() {
							err := pace.send(r.client, up[5000:])
							r.client.half()
							failed <- err
						}()
						go func() {
							defer close(heard)
							failed <- pace.receive(r.upstream, up)
						}()
						go func() { // an upstream's end is the end also for what the client still says
							err := pace.send(r.upstream, down[3000:])
							<-heard
							r.upstream.half()
							failed <- err
						}()
						go func() { failed <- pace.receive(r.client, down) }()
						for range cap(failed) {
							if err := <-failed; err != nil {
								t.Fatal(err)
							}
						}
						r.ending(t, ClientEnded, false)
						if a, b := r.FromClient.Load(), r.ToClient.Load(); a != int64(len(up)) || b != int64(len(down)) {
							t.Errorf("counted %d from the client and %d to it; want %d and %d", a, b, len(up), len(down))
						}
					})
				}
			}
		}
	}
}
