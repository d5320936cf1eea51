package relay

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// A recorder writes a client's TLS 1.3 records one by one (RFC 8446, section 5.2), which crypto/tls
// has no way to do. Its far end may only read from then on.
type recorder struct {
	t      testing.TB
	to     io.Writer
	secret []byte
	seq    uint64
}

func record(t testing.TB, f *far) *recorder {
	t.Helper()
	if suite := f.stream.(*tls.Conn).ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("cipher suite %x", suite)
	}
	for _, line := range strings.Split(f.keys.String(), "\n") {
		if word := strings.Fields(line); len(word) == 3 && word[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(word[2])
			if err != nil {
				t.Fatal(err)
			}
			return &recorder{t: t, to: f.tcp, secret: secret}
		}
	}
	t.Fatal("no secret was logged")
	return nil
}

// expand is HKDF-Expand-Label of RFC 8446, section 7.1.
func (r *recorder) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	key, err := hkdf.Expand(sha256.New, r.secret, string(info)+label+"\x00", n)
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

// sealed returns the next record.
func (r *recorder) sealed(kind byte, octets []byte) []byte {
	block, err := aes.NewCipher(r.expand("key", 16))
	if err != nil {
		r.t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		r.t.Fatal(err)
	}
	nonce := r.expand("iv", 12)
	for i, b := range binary.BigEndian.AppendUint64(nil, r.seq) {
		nonce[4+i] ^= b
	}
	r.seq++
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(octets)+1+aead.Overhead()))
	return aead.Seal(slices.Clip(header), nonce, append(slices.Clone(octets), kind), header)
}

func (r *recorder) data(octets string) []byte { return r.sealed(23, []byte(octets)) }

// keyUpdate asks the other side for one, too.
func (r *recorder) keyUpdate() []byte {
	p := r.sealed(22, []byte{24, 0, 0, 1, 1})
	r.secret, r.seq = r.expand("traffic upd", 32), 0
	return p
}

// TestKeyUpdates has them come while data flows both ways, whole and in pieces, and while nothing can be
// written to the client.
func TestKeyUpdates(t *testing.T) {
	each(t, []uint16{tls.VersionTLS13}, some2, func(t *testing.T, p plan) {
		r := relayed(t, p)
		client := record(t, r.client)
		down := noise(2, 6<<20)
		go r.upstream.Write(down)
		var up []byte
		for i := range 10 { // crypto/tls takes 16 in a row
			records := slices.Concat(client.data(fmt.Sprintf("%d ", i)), client.keyUpdate(), client.data("x"))
			if i%2 == 0 {
				write(t, r.client.tcp, records)
			} else {
				for b := range slices.Chunk(records, 1+i%7) {
					write(t, r.client.tcp, b)
				}
			}
			up = fmt.Appendf(up, "%d x", i)
		}
		if err := same(read(t, r.upstream, len(up)), up); err != nil {
			t.Error(err)
		}
		stuck(t, r)
		for range 5 {
			write(t, r.client.tcp, slices.Concat(client.keyUpdate(), client.data("y")))
		}
		if got := string(read(t, r.upstream, 5)); got != "yyyyy" {
			t.Errorf("got %q", got)
		}
		if err := same(read(t, r.client, len(down)), down); err != nil {
			t.Error(err)
		}
	})
}

// TestKeyUpdateFlood has a client that reads nothing ask for new keys again and again, each time with an
// octet between, which crypto/tls takes for progress. The answers are kept for it: not without end.
func TestKeyUpdateFlood(t *testing.T) {
	each(t, []uint16{tls.VersionTLS13}, some2[:1], func(t *testing.T, p plan) {
		r := relayed(t, p)
		client := record(t, r.client)
		go r.upstream.Write(make([]byte, 16<<20))
		stuck(t, r)
		go io.Copy(io.Discard, r.upstream)
		var flood []byte
		for range 10_000 {
			flood = append(append(flood, client.data("x")...), client.keyUpdate()...)
		}
		r.client.tcp.SetWriteDeadline(time.Now().Add(2 * time.Second)) // it may be made to wait
		r.client.tcp.Write(flood)
		stuck(t, r)
		inspect(t, r, func() {
			if n := len(r.Session.Client.Socket.out); n > 3*bufferSize {
				t.Errorf("%d octets are kept for a client that doesn't read", n)
			}
		})
	})
}

// TestOpenSSLKeyUpdate has another's key updates.
func TestOpenSSLKeyUpdate(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			cmd := exec.Command("openssl", "s_client", "-tls1_3", "-msg", "-connect", l.Addr().String())
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			pipe, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			r := relayed(t, plan{wrap: transport.wrap, before: func(r *rig) {
				side := &r.Session.Client
				side.Socket.Conn.Close()
				side.Socket = &Socket{Conn: transport.wrap(conn.(*net.TCPConn))}
				side.TLS = tls.Server(side.Socket, &tls.Config{Certificates: []tls.Certificate{certificate()}})
				if err := side.TLS.Handshake(); err != nil {
					t.Fatal(err)
				}
			}})
			out := bufio.NewReaderSize(pipe, 1<<20)
			until := func(what string) {
				t.Helper()
				for {
					line, err := out.ReadString('\n')
					if err != nil {
						t.Fatalf("waiting for %q: %v", what, err)
					}
					if strings.Contains(line, what) {
						return
					}
				}
			}
			payload := bytes.Repeat([]byte("octets of the upstream\n"), 10_000)
			for i := range 3 {
				io.WriteString(in, "before\n")
				read(t, r.upstream, len("before\n"))
				go r.upstream.Write(payload)
				io.WriteString(in, "K\n")
				until(">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
				until("<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
				io.WriteString(in, "after\n")
				if got := string(read(t, r.upstream, len("after\n"))); got != "after\n" {
					t.Errorf("got %q", got)
				}
				write(t, r.upstream, fmt.Appendf(nil, "\nmark %d\n", i))
				until(fmt.Sprintf("mark %d", i))
			}
		})
	}
}
