package relay

import (
	"crypto/tls"
	"io"
	"sync/atomic"
	"testing"
)

// A full transport takes nothing until it is let.
type full struct {
	transport
	open atomic.Bool
}

func (f *full) write(p []byte) (int, error) {
	if !f.open.Load() {
		return 0, errWouldBlock
	}
	return f.transport.write(p)
}

// TestLastWords has the client end TLS without close_notify while the upstream's last octets, which came
// with its end, still wait for it.
func TestLastWords(t *testing.T) {
	each(t, some3[1:], some3[1:], func(t *testing.T, p plan) {
		r := relayed(t, p)
		f := new(full)
		inspect(t, r, func() {
			f.transport = r.Session.Client.Socket.raw
			r.Session.Client.Socket.raw = f
			write(t, r.upstream, []byte("last words"))
			r.upstream.half()
			r.client.gate.only(3)
			write(t, r.client, []byte("half a record"))
			r.client.tcp.CloseWrite()
		})
		eventually(t, "the pump ends", func() bool { return r.state.Load() == idle || r.state.Load() == closed })
		f.open.Store(true)
		r.kick()
		if got, err := io.ReadAll(r.client); err != nil || string(got) != "last words" {
			t.Errorf("the client got %q, %v", got, err)
		}
	})
}

// TestBye has an upstream say BYE in the middle of an upload and go, so that writing to it fails. The client still
// has to be told why.
func TestBye(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			lost := 0
			for range 30 {
				r := relayed(t, plan{wrap: transport.wrap, client: tls.VersionTLS13})
				go r.client.Write(make([]byte, 2<<20))
				read(t, r.upstream, 200<<10)
				write(t, r.upstream, []byte("* BYE too much"))
				r.upstream.tcp.Close() // with octets unread: RST
				got := make([]byte, 14)
				if _, err := io.ReadFull(r.client, got); err != nil {
					lost++
				}
				r.client.tcp.Close()
				r.wait(t)
			}
			if lost > 0 {
				t.Errorf("of 30 clients %d never read the BYE", lost)
			}
		})
	}
}

// A flood is a transport on which octets always wait.
type flood struct {
	transport
	reads int
	at    func(reads int)
}

func (f *flood) read(p []byte) (int, error) {
	f.reads++
	f.at(f.reads)
	if f.reads > 5000 {
		return 0, io.EOF
	}
	return len(p), nil
}

// TestFloodAfterEnd has a client send without end when the upstream has ended: the pump still has to see that it is cut,
// and its deadline.
func TestFloodAfterEnd(t *testing.T) {
	r := relayed(t, plan{wrap: transports[1].wrap})
	f := &flood{at: func(reads int) {
		if reads == 10 {
			r.Cut()
		}
	}}
	inspect(t, r, func() {
		f.transport = r.Session.Client.Socket.raw
		r.Session.Client.Socket.raw = f
	})
	r.upstream.half()
	if got := r.wait(t); got.end != Cut || f.reads > 1000 {
		t.Errorf("end %d after %d reads; want to be cut after 10", got.end, f.reads)
	}
}
