package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/auth"
)

// pipes is a listener within the process, so that time there is the bubble's.
type pipes struct {
	conns chan net.Conn
	ended context.Context
	end   context.CancelFunc
}

func newPipes(t *testing.T) *pipes {
	p := &pipes{conns: make(chan net.Conn)}
	p.ended, p.end = context.WithCancel(t.Context())
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.ended.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.end(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// client connects to whatever accepts.
func (p *pipes) client() *Client {
	dial := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		p.conns <- theirs
		return ours, nil
	}
	return &Client{path: "pipes", http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// A server that was stopped takes connections and says nothing.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t)
		defer p.Close()
		client := p.client()
		defer client.Close()
		go func() {
			conn, err := p.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			for octets := make([]byte, 1024); err == nil; {
				_, err = conn.Read(octets)
			}
		}()
		began := time.Now()
		if _, err := client.Rotate(t.Context()); !errors.Is(err, errSilent) {
			t.Errorf("got %v, want that it is silent", err)
		}
		if took := time.Since(began); took != patience {
			t.Errorf("took %v, want %v", took, patience)
		}
	})
}

// One that is at work may take as long as it wants.
func TestBusyServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t)
		busy := func(answer any) http.HandlerFunc {
			return unhurried(t.Context(), func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(time.Hour)
				write(w, http.StatusOK, answer)
			})
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/key/rotate", busy(auth.Rotation{Key: "new"}))
		mux.HandleFunc("/ways", busy([]way{{Account: "alice"}}))
		server := &http.Server{Handler: mux, ReadTimeout: time.Second, WriteTimeout: time.Second}
		ended := make(chan error)
		go func() { ended <- server.Serve(p) }()
		client := p.client()
		if r, err := client.Rotate(t.Context()); err != nil || r.Key != "new" {
			t.Errorf("rotating: %+v, %v", r, err)
		}
		if ways, err := client.Ways(t.Context(), time.Time{}, "", 10); err != nil || len(ways) != 1 {
			t.Errorf("ways: %+v, %v", ways, err)
		}
		client.Close()
		server.Close()
		<-ended
	})
}

// Shutdown alone leaves a request that waits for its context to itself.
func TestShutdownWaitsForThoseThatGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes(t)
		requests, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		begun, recorded := make(chan bool), false
		server := &http.Server{
			BaseContext: func(net.Listener) context.Context { return requests },
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(begun)
				<-r.Context().Done()
				recorded = true
			}),
		}
		ended := make(chan error)
		go func() { ended <- server.Serve(p) }()
		client := p.client()
		asked := make(chan error)
		go func() { asked <- client.Reset(t.Context(), "alice") }()
		<-begun
		began := time.Now()
		if err := shutdown(server, giveUp); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < grace || took > 2*grace || !recorded {
			t.Errorf("took %v, recorded: %v", took, recorded)
		}
		<-asked
		<-ended
		client.Close()
	})
}
