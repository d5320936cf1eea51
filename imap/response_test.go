package imap

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func reader(s string) *ResponseReader {
	return &ResponseReader{R: bufio.NewReader(strings.NewReader(s)), Lines: MaxUntaggedLines, Octets: MaxUntaggedOctets}
}

func TestResponse(t *testing.T) {
	tests := []struct{ line, want string }{
		{"* OK [CAPABILITY IMAP4rev1 ID] ready", "* OK CAPABILITY IMAP4rev1 ID|ready"},
		{"t1 NO [AUTHENTICATIONFAILED] no", "t1 NO AUTHENTICATIONFAILED |no"},
		{"t1 no [unavailable]", "t1 NO UNAVAILABLE |"},
		{"t1 OK done", "t1 OK  |done"},
		{"* BYE", "* BYE  |"},
		{"* PREAUTH hello", "* PREAUTH  |hello"},
		{"* CAPABILITY IMAP4rev1", "*   |CAPABILITY IMAP4rev1"},
		{"+ go on", "+   |go on"},
		{"HTTP/1.1 400 Bad Request", "HTTP/1.1   |400 Bad Request"},
		{"* OK [unclosed", "* OK  |[unclosed"},
		{"", "   |"},
	}
	for _, test := range tests {
		r, err := reader(test.line + "\r\n").Next()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s %s %s|%s", r.Tag, r.Type, r.Code, r.CodeArg, r.Text); got != test.want {
			t.Errorf("%s: got %q, want %q", test.line, got, test.want)
		}
	}
}

// A literal is read past: its octets are no responses. A status text that looks like the
// beginning of one isn't.
func TestResponseLiterals(t *testing.T) {
	r := reader("* LIST () \"/\" {8}\r\na OK x\r\n {3}\r\nxyz\r\n* OK ends in {5}\r\na NO\r\n")
	var tags []string
	for {
		resp, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, resp.Tag)
	}
	if got := strings.Join(tags, " "); got != "* * a" {
		t.Errorf("responses: %s", got)
	}
}

func TestResponseBounds(t *testing.T) {
	for name, input := range map[string]string{
		"lines":              strings.Repeat("* x\r\n", MaxUntaggedLines+1),
		"octets in one line": strings.Repeat("x", MaxUntaggedOctets+1),
		"octets in literals": "* x {65536}\r\n" + strings.Repeat("x", 70000),
		"announced octets":   "* x {18446744073709551616}\r\n",
	} {
		r := reader(input)
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add("* OK [CAPABILITY IMAP4rev1] x\r\n* x {3}\r\nabc\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		r := reader(s)
		for {
			resp, err := r.Next()
			if err != nil {
				return
			}
			if strings.Contains(resp.Tag+resp.Text, "\n") {
				t.Errorf("a line end within a response: %q", resp)
			}
			for _, c := range resp.Capabilities().AfterLogin() {
				if strings.ContainsAny(string(c), "[] \r\n\x00") {
					t.Errorf("a capability that can't be passed on: %q", c)
				}
			}
			if p := Printable(resp.Text); strings.ContainsAny(p, "\r\n\x00") || strings.ContainsAny(p, "[]") {
				t.Errorf("a text that can't be passed on: %q", p)
			}
		}
	})
}

func TestAfterLogin(t *testing.T) {
	have := ParseCapabilities("IMAP4rev1 STARTTLS LOGINDISABLED AUTH=PLAIN auth=login SASL-IR UNAUTHENTICATE COMPRESS=DEFLATE IDLE x]y MOVE")
	if got := have.AfterLogin().String(); got != "IMAP4rev1 IDLE MOVE" {
		t.Errorf("got %s", got)
	}
	if !have.Has("idle") || have.Has("SORT") {
		t.Error("Has")
	}
}

func TestBeforeTLS(t *testing.T) {
	l := BeforeTLS().String()
	if !strings.Contains(l, "STARTTLS") || !strings.Contains(l, "LOGINDISABLED") || strings.Contains(l, "AUTH=") {
		t.Errorf("got %s", l)
	}
}

func TestDecodeBase64(t *testing.T) {
	for input, want := range map[string]string{
		"":         "",
		"YWxpY2U=": "alice",
		"YWxpY2U":  "error", // no padding
		"YWxp=Y2U": "error", // inner padding
		"=YWxpY2U": "error", // leading padding
		"YWxp\tY2": "error",
		"YWxpY2V=": "error", // stray bits
		"****":     "error",
	} {
		got, err := DecodeBase64(input)
		if err != nil {
			got = []byte("error")
		}
		if string(got) != want {
			t.Errorf("%q: got %q, want %q", input, got, want)
		}
	}
	if b, err := DecodeInitial("="); err != nil || b == nil || len(b) != 0 {
		t.Errorf("the empty initial response: %v, %v", b, err)
	}
}

// What a mechanism captures is what was presented, and it never panics.
func FuzzSASL(f *testing.F) {
	f.Add("PLAIN", []byte("\x00alice\x00secret"), []byte(nil))
	f.Add("LOGIN", []byte("alice"), []byte("secret"))
	f.Fuzz(func(t *testing.T, mechanism string, first, second []byte) {
		var c Credentials
		server, ok := NewSASL(mechanism, &c)
		if !ok {
			return
		}
		if _, done, err := server.Next(nil); done || err != nil {
			t.Fatalf("done before anything was said: %v", err)
		}
		_, done, err := server.Next(append([]byte{}, first...))
		if !done && err == nil {
			_, done, err = server.Next(append([]byte{}, second...))
		}
		if err != nil {
			return
		}
		if !done {
			t.Fatal("more than two answers asked for")
		}
		got := c.Authzid + "\x00" + c.Username + "\x00" + string(c.Password)
		if mechanism == "PLAIN" && got != string(first) {
			t.Errorf("captured %q of %q", got, first)
		}
		if mechanism == "LOGIN" && got != "\x00"+string(first)+"\x00"+string(second) {
			t.Errorf("captured %q", got)
		}
	})
}

// What we send as PLAIN reads back as the account and the password.
func TestEncodePlain(t *testing.T) {
	b, err := base64.StdEncoding.DecodeString(string(EncodePlain("", "alice", []byte("s\"é"))))
	if err != nil || string(b) != "\x00alice\x00s\"é" {
		t.Errorf("got %q, %v", b, err)
	}
}
