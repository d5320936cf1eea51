package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// A gatekeeper passes all through to the next "!", and holds what is behind it until the upstream has said a '.'.
type gatekeeper struct{ shut bool }

func (g *gatekeeper) Client(p []byte) ([]byte, int, error) {
	if g.shut {
		return nil, 0, nil
	}
	if i := bytes.IndexByte(p, '!'); i >= 0 {
		g.shut = true
		return p[:i+1], i + 1, nil
	}
	return p, len(p), nil
}

func (g *gatekeeper) Holding() bool { return g.shut }

func (g *gatekeeper) Upstream(p []byte) []byte {
	if bytes.IndexByte(p, '.') >= 0 {
		g.shut = false
	}
	return p
}

// TestFilterHolds has much more wait than a buffer takes.
func TestFilterHolds(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		p.filter = &gatekeeper{}
		r := relayed(t, p)
		rest := bytes.ReplaceAll(noise(1, 5*bufferSize), []byte{'!'}, nil)
		go func() {
			r.client.Write([]byte("one!"))
			r.client.Write(append([]byte("two!"), rest...))
			r.client.half()
		}()
		read(t, r.upstream, 4)
		write(t, r.upstream, []byte("not yet"))
		read(t, r.client, 7)
		write(t, r.upstream, []byte("."))
		if got := read(t, r.upstream, 4); string(got) != "two!" {
			t.Errorf("got %q", got)
		}
		if n := r.FromClient.Load(); n != 8 {
			t.Errorf("%d octets were passed while the filter holds", n)
		}
		write(t, r.upstream, []byte("."))
		if err := same(all(t, r.upstream), rest); err != nil {
			t.Error(err)
		}
		r.upstream.half()
		r.ending(t, ClientEnded, false)
	})
}

// A fake is a filter of functions.
type fake struct {
	client   func(p []byte) ([]byte, int, error)
	upstream func(p []byte) []byte
	holding  func() bool
}

func (f fake) Client(p []byte) ([]byte, int, error) {
	if f.client == nil {
		return p, len(p), nil
	}
	return f.client(p)
}

func (f fake) Upstream(p []byte) []byte {
	if f.upstream == nil {
		return p
	}
	return f.upstream(p)
}

func (f fake) Holding() bool { return f.holding != nil && f.holding() }

func TestFilterRefuses(t *testing.T) {
	no := errors.New("no")
	each(t, some2, some2, func(t *testing.T, p plan) {
		p.filter = fake{client: func([]byte) ([]byte, int, error) { return nil, 0, no }}
		r := relayed(t, p)
		write(t, r.client, []byte("x"))
		if got := r.ending(t, FilterRefused, true); got.err != no {
			t.Errorf("error %v; want the filter's", got.err)
		}
		if got, _ := io.ReadAll(r.upstream); len(got) > 0 {
			t.Errorf("the upstream got %q", got)
		}
	})
}

func TestFilterSwallows(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		p.filter = fake{
			client:   func(p []byte) ([]byte, int, error) { return bytes.ReplaceAll(p, []byte("x"), nil), len(p), nil },
			upstream: func(p []byte) []byte { return bytes.ReplaceAll(p, []byte("y"), nil) },
		}
		r := relayed(t, p)
		for range 100 {
			write(t, r.client, []byte("xxx"))
			write(t, r.upstream, []byte("yyy"))
		}
		write(t, r.client, []byte("axb"))
		write(t, r.upstream, []byte("cyd"))
		if got := read(t, r.upstream, 2); string(got) != "ab" {
			t.Errorf("the upstream got %q", got)
		}
		if got := read(t, r.client, 2); string(got) != "cd" {
			t.Errorf("the client got %q", got)
		}
	})
}

// TestFilterEmits has a filter take all, and give it on in pieces when it is called with nothing.
func TestFilterEmits(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		var kept []byte
		credit := 0
		p.filter = fake{
			client: func(p []byte) ([]byte, int, error) {
				kept = append(kept, p...)
				n := min(credit, len(kept), 100)
				out := kept[:n]
				kept, credit = kept[n:], credit-n
				return out, len(p), nil
			},
			upstream: func(p []byte) []byte { credit += 1000 * len(p); return p },
			holding:  func() bool { return len(kept) > 0 },
		}
		r := relayed(t, p)
		octets := noise(1, 100<<10)
		go r.client.Write(octets)
		var got []byte
		for len(got) < len(octets) {
			write(t, r.upstream, []byte("."))
			got = append(got, read(t, r.upstream, min(1000, len(octets)-len(got)))...)
		}
		if err := same(got, octets); err != nil {
			t.Error(err)
		}
	})
}

// TestFilterPanics has a bug end its session, and only that.
func TestFilterPanics(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		p.engine = &Engine{Limits: ample}
		defer p.engine.Close()
		t.Run("", func(t *testing.T) { // its cleanup comes before the engine's end
			other := relayed(t, p)
			for _, f := range []Filter{
				fake{client: func([]byte) ([]byte, int, error) { panic("bug") }},
				fake{upstream: func([]byte) []byte { panic("bug") }},
			} {
				p.filter = f
				r := relayed(t, p)
				write(t, r.client, []byte("x"))
				write(t, r.upstream, []byte("x"))
				var bug *PanicError
				if got := r.ending(t, Panicked, true); !errors.As(got.err, &bug) || bug.Value != "bug" || len(bug.Stack) == 0 {
					t.Errorf("error %v", got.err)
				}
				io.ReadAll(r.client)
				io.ReadAll(r.upstream)
			}
			write(t, other.client, []byte("x"))
			read(t, other.upstream, 1)
		})
	})
}
