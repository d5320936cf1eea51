package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"imapwarden/certs"
	"imapwarden/configs"
)

// A pretender is an IMAP server until login, as told.
type pretender struct {
	greeting string // behind "* "
	plain    string // capabilities before TLS
	secure   string // with TLS
	id       string // behind "* ID "
	implicit bool
	injected string // sent behind the OK to STARTTLS
	settings *tls.Config
}

const dovecotID = `("name" "Dovecot" "version" {5}` + "\r\n" + `2.3.1)`

var pretenders = map[string]pretender{
	"dovecot":   {greeting: "OK Dovecot ready.", plain: "IMAP4rev1 ID STARTTLS AUTH=PLAIN", secure: "IMAP4rev1 ID AUTH=PLAIN", id: dovecotID},
	"secretive": {greeting: "OK [CAPABILITY IMAP4rev1] hello", plain: "IMAP4rev1", secure: "IMAP4rev1"},
	"closed":    {greeting: "OK hello", plain: "IMAP4rev1 STARTTLS LOGINDISABLED", secure: "IMAP4rev1 ID", id: "NIL"},
	"shut":      {greeting: "OK hello", plain: "IMAP4rev1 LOGINDISABLED AUTH=GSSAPI"},
	"implicit":  {greeting: "OK hello", secure: "IMAP4rev1 AUTH=PLAIN ID", id: "(\"name\" \"Cyrus \x1b[2J\")", implicit: true},
	"preauth":   {greeting: "PREAUTH hello"},
	"bye":       {greeting: "BYE too \x1b[2Jbusy"},
	"injecting": {greeting: "OK hello", plain: "IMAP4rev1 STARTTLS LOGINDISABLED", injected: "* CAPABILITY IMAP4rev1\r\n"},
	"ourselves": {greeting: "OK hello", plain: "IMAP4rev1 ID", id: `("name" "imapwarden")`},
	"wordy":     {greeting: "OK hello", plain: "IMAP4rev1 " + strings.Repeat("X", 100<<10)},
	"web":       {greeting: "HTTP/1.1 400 Bad Request"},
}

// serve talks to one client until it goes.
func (p pretender) serve(conn net.Conn) {
	defer conn.Close()
	capabilities := p.plain
	if p.implicit {
		conn, capabilities = tls.Server(conn, p.settings), p.secure
	}
	if _, err := io.WriteString(conn, "* "+p.greeting+"\r\n"); err != nil {
		return
	}
	for in := bufio.NewScanner(conn); in.Scan(); {
		tag, command, _ := strings.Cut(in.Text(), " ")
		switch name, _, _ := strings.Cut(command, " "); name {
		case "CAPABILITY":
			fmt.Fprintf(conn, "* CAPABILITY %s\r\n", capabilities)
		case "ID":
			fmt.Fprintf(conn, "* ID %s\r\n", p.id)
		case "STARTTLS":
			fmt.Fprintf(conn, "%s OK begin\r\n%s", tag, p.injected)
			secure := tls.Server(conn, p.settings)
			conn, capabilities, in = secure, p.secure, bufio.NewScanner(secure)
			continue
		}
		fmt.Fprintf(conn, "%s OK done\r\n", tag)
	}
}

// listen serves at a port of loopback until the test ends.
func (p pretender) listen(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return l.Addr().String()
}

// believable is a certificate for the names, as PEM files in the folder too.
func believable(dir string, names ...string) (*tls.Config, error) {
	cert, key, err := certs.SelfSigned(names, time.Hour)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, errors.Join(err,
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
}

func TestInitScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/init",
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			settings, err := believable(env.WorkDir, "mail.example.org")
			if err != nil {
				return err
			}
			for name, p := range pretenders {
				p.settings = settings
				env.Setenv(strings.ToUpper(name), p.listen(env.T().(testing.TB)))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status,
			"mode":   mode,
		},
	})
}

// mode OCTAL FILE... says which permissions the files must have.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := info.Mode().Perm(); got != fs.FileMode(want) {
			ts.Fatalf("%s has mode %04o", file, got)
		}
	}
}

// A distant connection seems to lead to another machine.
type distant struct {
	net.Conn
	local, remote string
}

func (d distant) LocalAddr() net.Addr  { return distantAddr(d.local) }
func (d distant) RemoteAddr() net.Addr { return distantAddr(d.remote) }

type distantAddr string

func (distantAddr) Network() string  { return "tcp" }
func (a distantAddr) String() string { return string(a) }

// An initiation is a run of init in folders of its own, towards a pretender.
type initiation struct {
	setup
	dir            string
	stdout, stderr bytes.Buffer
}

// initiate prepares one. With a local address the pretender seems to be somewhere else.
func initiate(t *testing.T, p pretender, local string) *initiation {
	t.Helper()
	i := &initiation{dir: t.TempDir()}
	settings, err := believable(i.dir, "mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	p.settings = settings
	address := p.listen(t)
	i.setup = setup{
		options:     &options{stdout: &i.stdout, stderr: &i.stderr},
		letsencrypt: filepath.Join(i.dir, "letsencrypt"), service: "nobody of this name",
		inquiry: inquiry{patience: time.Minute, dial: func(ctx context.Context, network, asked string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil && local != "" {
				conn = distant{conn, local, net.JoinHostPort("192.0.2.20", asked[strings.LastIndex(asked, ":")+1:])}
			}
			return conn, err
		}},
	}
	return i
}

// run runs it and returns what it found, or its error.
func (i *initiation) run(t *testing.T, args ...string) (*setup, error) {
	t.Helper()
	command := i.setup.command()
	command.Flags().String("config", "", "")
	command.SetArgs(append([]string{"--hostname", "mail.example.org", "--dir", i.dir + "/etc/imapwarden", "--state", i.dir + "/state"}, args...))
	command.SilenceErrors, command.SilenceUsage = true, true
	return &i.setup, command.ExecuteContext(t.Context())
}

func (i *initiation) config(t *testing.T) *configs.Config {
	t.Helper()
	config, problems := configs.Load(filepath.Join(i.dir, "etc/imapwarden/imapwarden.toml"), "upstream", "store")
	if config == nil {
		t.Fatal(problems)
	}
	return config
}

func (i *initiation) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(i.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// How an upstream is reached depends on what it offers and where it is.
func TestInitChoosesTheWay(t *testing.T) {
	const elsewhere, here = "192.0.2.10:40000", "192.0.2.20:40000"
	for _, test := range []struct {
		name  string
		who   string
		local string // "": loopback
		args  string
		want  choice
		error string
	}{
		{name: "Dovecot at its usual port is moved", who: "dovecot", args: "--upstream 127.0.0.1:143", want: choice{Address: "127.0.0.1:1143", TLS: "none", Moved: true}},
		{name: "also by the machine's own address", who: "dovecot", local: here, args: "--upstream 192.0.2.20:143", want: choice{Address: "127.0.0.1:1143", TLS: "none", Moved: true}},
		{name: "in plaintext on loopback", who: "dovecot", args: "--upstream 127.0.0.1:2143", want: choice{Address: "127.0.0.1:2143", TLS: "none"}},
		{name: "with STARTTLS on loopback where it must be", who: "closed", args: "--upstream 127.0.0.1:2143 --upstream-ca CERT", want: choice{Address: "127.0.0.1:2143", TLS: "starttls", ServerName: "mail.example.org", CA: "CERT"}},
		{name: "our own port with TLS", who: "implicit", args: "--upstream 127.0.0.1:993", error: "imapwarden itself takes port 993"},
		{name: "STARTTLS elsewhere", who: "dovecot", local: elsewhere, args: "--upstream mail.example.org:143 --upstream-ca CERT", want: choice{Address: "mail.example.org:143", TLS: "starttls", CA: "CERT"}},
		{name: "TLS elsewhere", who: "implicit", local: elsewhere, args: "--upstream 192.0.2.20:993 --upstream-ca CERT", want: choice{Address: "192.0.2.20:993", TLS: "implicit", ServerName: "mail.example.org", CA: "CERT"}},
		{name: "TLS elsewhere at any port", who: "implicit", local: elsewhere, args: "--upstream 192.0.2.20:1993 --tls implicit --upstream-ca CERT", want: choice{Address: "192.0.2.20:1993", TLS: "implicit", ServerName: "mail.example.org", CA: "CERT"}},
		{name: "an unknown CA", who: "dovecot", local: elsewhere, args: "--upstream mail.example.org:143", error: "--upstream-ca FILE"},
		{name: "another name", who: "dovecot", local: elsewhere, args: "--upstream 192.0.2.20:143 --upstream-ca CERT --upstream-name imap.example.org", error: "can't be verified for imap.example.org"},
		{name: "no TLS elsewhere", who: "secretive", local: elsewhere, args: "--upstream 10.0.0.2:143", error: "say --tls none"},
		{name: "plaintext on a private network by order", who: "secretive", local: elsewhere, args: "--upstream 10.0.0.2:143 --tls none", want: choice{Address: "10.0.0.2:143", TLS: "none"}},
		{name: "plaintext on other people's networks", who: "secretive", local: elsewhere, args: "--upstream 192.0.2.20:143 --tls none", error: "passwords would travel in the clear"},
		{name: "plaintext by name", who: "secretive", local: elsewhere, args: "--upstream mail.example.org:143 --tls none", error: "passwords would travel in the clear"},
		{name: "plaintext that it doesn't take", who: "closed", args: "--upstream 127.0.0.1:2143 --tls none", error: "say --tls starttls"},
		{name: "STARTTLS that it doesn't offer", who: "secretive", args: "--upstream 127.0.0.1:2143 --tls starttls", error: "doesn't offer STARTTLS"},
		{name: "a name of this machine", who: "dovecot", args: "--upstream mail.example.org:2143 --upstream-ca CERT", want: choice{Address: "mail.example.org:2143", TLS: "starttls", CA: "CERT"}},
		{name: "no way to log in", who: "shut", args: "--upstream 127.0.0.1:2143", error: "LOGINDISABLED"},
		{name: "octets behind STARTTLS", who: "injecting", args: "--upstream 127.0.0.1:2143", error: "injecting"},
		{name: "logged in already", who: "preauth", args: "--upstream 127.0.0.1:2143", error: "PREAUTH"},
		{name: "busy", who: "bye", args: "--upstream 127.0.0.1:2143", error: "too ?[2Jbusy"},
		{name: "too much", who: "wordy", args: "--upstream 127.0.0.1:2143", error: "too long"},
		{name: "no IMAP", who: "web", args: "--upstream 127.0.0.1:2143", error: "isn't IMAP; with TLS: "},
		{name: "ourselves", who: "ourselves", args: "--upstream 127.0.0.1:2143", error: "is an imapwarden already"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			i := initiate(t, pretenders[test.who], test.local)
			s, err := i.run(t, strings.Fields(strings.ReplaceAll(test.args, "CERT", i.dir+"/cert.pem"))...)
			if test.error != "" {
				if err == nil || !strings.Contains(err.Error(), test.error) {
					t.Errorf("got %v, want %q", err, test.error)
				}
				if left := existing(i.dir+"/etc", i.dir+"/state"); len(left) > 0 {
					t.Errorf("left behind: %s", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			test.want.CA = strings.ReplaceAll(test.want.CA, "CERT", i.dir+"/cert.pem")
			if diff := cmp.Diff(&test.want, s.Choice); diff != "" {
				t.Error(diff)
			}
			u := i.config(t).Upstreams[0]
			if got := (choice{u.Address, u.TLS, u.ServerName, u.CA, test.want.Moved}); got != test.want {
				t.Errorf("the configuration says %+v", got)
			}
		})
	}
}

// What can be told of clients' addresses before login is said, and no more.
func TestInitClientAddresses(t *testing.T) {
	shy := pretenders["dovecot"]
	shy.plain = "IMAP4rev1 ID STARTTLS LOGINDISABLED"
	for _, test := range []struct {
		name, local string
		who         pretender
		want        addressing
		means       string
	}{
		{"on this machine", "", pretenders["dovecot"], addressing{Told: true, Believed: "unknown"}, "127.0.0.1. "},
		{"on this machine and shut before TLS", "", shy, addressing{Told: true, Believed: "unknown"}, "127.0.0.1. "},
		{"elsewhere", "192.0.2.10:40000", pretenders["dovecot"], addressing{Told: true, Believed: "unknown"}, "192.0.2.10. "},
		{"elsewhere and not trusted", "192.0.2.10:40000", shy, addressing{Told: true, Believed: "no"}, "Put our address there: 192.0.2.10."},
		{"without ID", "", pretenders["secretive"], addressing{Believed: "no"}, "proxy-v2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := initiate(t, test.who, test.local)
			upstream := "127.0.0.1:1143"
			if test.local != "" {
				upstream = "mail.example.org:1143"
			}
			s, err := i.run(t, "--upstream", upstream, "--upstream-ca", i.dir+"/cert.pem")
			if err != nil {
				t.Fatal(err)
			}
			got := s.Addresses
			if !strings.Contains(got.Means, test.means) {
				t.Errorf("it says %s", got.Means)
			}
			if got.Means = ""; got != test.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Whoever keeps us waiting, or talks without end, doesn't do so for long.
func TestInquiryIsBounded(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silence": func(c net.Conn) { io.Copy(io.Discard, c) },
		"an octet a second": func(c net.Conn) {
			for _, octet := range []byte("* OK " + strings.Repeat("x", 3600)) {
				time.Sleep(time.Second)
				if _, err := c.Write([]byte{octet}); err != nil {
					return
				}
			}
		},
		"no end of a line": func(c net.Conn) {
			for {
				if _, err := c.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
					return
				}
			}
		},
		"no end of lines": func(c net.Conn) {
			io.WriteString(c, "* OK hello\r\n")
			go io.Copy(io.Discard, c)
			for {
				if _, err := io.WriteString(c, "* OK still here\r\n"); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &inquiry{address: "192.0.2.1:143", name: "192.0.2.1", patience: 5 * time.Second, dial: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						serve(theirs)
					}()
					return ours, nil
				}}
				began := time.Now()
				found, err := q.ask(t.Context())
				if err == nil {
					t.Fatalf("found %+v", found)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %s: %v", took, err)
				}
			})
		})
	}
}

// A port at which nobody greets is tried with TLS, and 993 the other way round.
func TestInquiryTriesBothWays(t *testing.T) {
	settings, err := believable(t.TempDir(), "mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ who, port, want string }{
		{"implicit", "1993", "implicit"},
		{"implicit", "993", "implicit"},
		{"dovecot", "143", "starttls"},
		{"dovecot", "993", "starttls"},
		{"secretive", "993", "none"},
	} {
		t.Run(test.who+" at "+test.port, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pretenders[test.who]
				p.settings = settings
				q := &inquiry{address: "192.0.2.1:" + test.port, name: "192.0.2.1", patience: 5 * time.Second, dial: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go p.serve(theirs)
					return ours, nil
				}}
				found, err := q.ask(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if found.TLS != test.want {
					t.Errorf("found %+v", found)
				}
			})
		})
	}
}

// A failure in the middle leaves everything as it was.
func TestInitIsAllOrNothing(t *testing.T) {
	for _, test := range []struct {
		name string
		harm func(t *testing.T, dir string)
	}{
		{"a file can't be replaced", func(t *testing.T, dir string) { put(t, dir+"/etc/imapwarden/dovecot.conf/in the way", "") }},
		{"the key can't be used", func(t *testing.T, dir string) { put(t, dir+"/state/master.key", "nonsense") }},
		{"the key is lost", func(t *testing.T, dir string) { put(t, dir+"/state/imapwarden.db", "") }},
		{"the state can't be made", func(t *testing.T, dir string) { put(t, dir+"/state", "") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := initiate(t, pretenders["dovecot"], "")
			put(t, i.dir+"/etc/imapwarden/imapwarden.toml", "old")
			test.harm(t, i.dir)
			before := tree(t, i.dir)
			if _, err := i.run(t, "--upstream", "127.0.0.1:143", "--force"); err == nil {
				t.Fatal("no failure")
			}
			if diff := cmp.Diff(before, tree(t, i.dir)); diff != "" {
				t.Errorf("something changed (-before +after):\n%s", diff)
			}
			if i.stdout.Len() > 0 {
				t.Errorf("it says %s", &i.stdout)
			}
		})
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// tree is what is in a folder, names and content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			all[path] = "folder"
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What the service must read belongs to it, and what it must not change doesn't.
func TestInitOwners(t *testing.T) {
	service, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	i := initiate(t, pretenders["dovecot"], "")
	i.service = "nobody"
	if _, err := i.run(t, "--upstream", "127.0.0.1:143"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(i.stdout.String(), "useradd") || strings.Contains(i.stdout.String(), "chown") {
		t.Errorf("there is something left to give away:\n%s", &i.stdout)
	}
	for name, want := range map[string]string{
		"state":                             "0700 " + service.Uid + " " + service.Gid,
		"state/master.key":                  "0600 " + service.Uid + " " + service.Gid,
		"etc/imapwarden":                    "0755 0 0",
		"etc/imapwarden/imapwarden.toml":    "0640 0 " + service.Gid,
		"etc/imapwarden/imapwarden.service": "0644 0 0",
		"etc/imapwarden/dovecot.conf":       "0644 0 0",
	} {
		info, err := os.Stat(filepath.Join(i.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%04o %d %d", info.Mode().Perm(), owner.Uid, owner.Gid); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
}

// Where the certificate comes from.
func TestInitCertificate(t *testing.T) {
	i := initiate(t, pretenders["dovecot"], "")
	s, err := i.run(t, "--upstream", "127.0.0.1:143")
	if err != nil {
		t.Fatal(err)
	}
	if s.Certificate.Source != "placeholder" || s.Ready || !strings.Contains(i.stdout.String(), "until then `check` fails") {
		t.Errorf("without any: %+v, ready: %v; it says:\n%s", s.Certificate, s.Ready, &i.stdout)
	}
	if _, problems := configs.Load(i.dir + "/etc/imapwarden/imapwarden.toml"); len(problems) == 0 {
		t.Error("the file can be served")
	}

	live := i.dir + "/letsencrypt/live/mail.example.org/"
	put(t, live+"fullchain.pem", i.read(t, "cert.pem"))
	put(t, live+"privkey.pem", i.read(t, "key.pem"))
	s, err = i.run(t, "--upstream", "127.0.0.1:143", "--force")
	if err != nil {
		t.Fatal(err)
	}
	if s.Certificate.Source != "letsencrypt" || !s.Ready {
		t.Errorf("with certbot's: %+v, ready: %v", s.Certificate, s.Ready)
	}
	if config, problems := configs.Load(i.dir + "/etc/imapwarden/imapwarden.toml"); config == nil || config.TLS.Certificates[0].Key != live+"privkey.pem" {
		t.Errorf("the file can't be served: %v", problems)
	}
}

// The configuration says only what isn't the default anyway, and what it says has a meaning.
func TestInitConfigIsSmall(t *testing.T) {
	i := initiate(t, pretenders["dovecot"], "")
	if _, err := i.run(t, "--upstream", "127.0.0.1:143", "--cert", i.dir+"/cert.pem", "--key", i.dir+"/key.pem"); err != nil {
		t.Fatal(err)
	}
	got, problems := configs.Load(i.dir + "/etc/imapwarden/imapwarden.toml")
	if got == nil {
		t.Fatal(problems)
	}
	want := configs.Default()
	want.Hostname, want.MFA.Mode = "mail.example.org", "observe"
	want.Listeners = []configs.Listener{{Address: "0.0.0.0:993", TLS: "implicit"}, {Address: "0.0.0.0:143", TLS: "starttls"}}
	want.TLS.Certificates = []configs.Certificate{{Cert: i.dir + "/cert.pem", Key: i.dir + "/key.pem"}}
	upstream := configs.DefaultUpstream()
	upstream.Address, upstream.TLS = "127.0.0.1:1143", "none"
	want.Upstreams = []configs.Upstream{upstream}
	want.Store = configs.Store{URL: "sqlite:" + i.dir + "/state/imapwarden.db", KeyFile: i.dir + "/state/master.key"}
	want.Alerts.KeyFile = i.dir + "/state/webhook.key"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// With --acme the configuration asks for a certificate, and needs none to begin with.
func TestInitACME(t *testing.T) {
	i := initiate(t, pretenders["dovecot"], "")
	s, err := i.run(t, "--upstream", "127.0.0.1:143", "--acme", "hostmaster@example.org", "--agree")
	if err != nil {
		t.Fatal(err)
	}
	config, problems := configs.Load(i.dir + "/etc/imapwarden/imapwarden.toml")
	if config == nil || !s.Ready {
		t.Fatalf("ready: %v; %v", s.Ready, problems)
	}
	a := config.TLS.ACME
	if diff := cmp.Diff([]string{"mail.example.org"}, a.Domains); diff != "" || a.Email != "hostmaster@example.org" || len(config.TLS.Certificates) > 0 {
		t.Errorf("it asks for %+v, and has %v", a, config.TLS.Certificates)
	}
}

// The unit and the snippet are good in their programs' own eyes, with this installation's paths.
func TestInitUnitAndSnippet(t *testing.T) {
	for _, name := range []string{"systemd-analyze", "doveconf"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is missing: ./test installs it", name)
		}
	}
	for _, test := range []struct {
		name, who, upstream, local string
		want                       map[string]string
	}{
		{"moved", "dovecot", "127.0.0.1:143", "", map[string]string{
			"login_trusted_networks": "127.0.0.1 ::1", "service/imap-login/inet_listener/imap/port": "1143", "service/imap-login/inet_listener/imaps/port": "0",
		}},
		{"where it is", "dovecot", "127.0.0.1:2143", "", map[string]string{
			"login_trusted_networks": "127.0.0.1 ::1", "service/imap-login/inet_listener/imap/port": "2143", "service/imap-login/inet_listener/imaps/port": "0",
		}},
		{"elsewhere", "dovecot", "192.0.2.20:143", "192.0.2.10:40000", map[string]string{
			"login_trusted_networks": "192.0.2.10", "service/imap-login/inet_listener/imap/port": "143", "service/imap-login/inet_listener/imaps/port": "993", "auth_failure_delay": "0",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := initiate(t, pretenders[test.who], test.local)
			if _, err := i.run(t, "--upstream", test.upstream, "--upstream-ca", i.dir+"/cert.pem"); err != nil {
				t.Fatal(err)
			}
			for setting, want := range test.want {
				out, err := exec.CommandContext(t.Context(), "doveconf", "-c", i.dir+"/etc/imapwarden/dovecot.conf", "-h", setting).CombinedOutput()
				if got := strings.TrimSpace(string(out)); err != nil || got != want {
					t.Errorf("doveconf: %v: %s is %q, want %q", err, setting, got, want)
				}
			}
			snippet := i.read(t, "etc/imapwarden/dovecot.conf")
			if test.local != "" && !strings.Contains(snippet, "tcp dport 143 ip saddr != 192.0.2.10 drop") {
				t.Errorf("no firewall rule in\n%s", snippet)
			}
			unit := i.read(t, "etc/imapwarden/imapwarden.service")
			for _, want := range []string{"serve --config " + i.dir + "/etc/imapwarden/imapwarden.toml\n", "ReadWritePaths=" + i.dir + "/state\n"} {
				if !strings.Contains(unit, want) {
					t.Errorf("no %q in\n%s", want, unit)
				}
			}
			put(t, i.dir+"/imapwarden.service", strings.ReplaceAll(unit, i.program, "/bin/true"))
			if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", i.dir+"/imapwarden.service").CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
		})
	}
}

// In the usual places the unit is the one in configs, and the steps name every file.
func TestInitUsualUnit(t *testing.T) {
	got := unitText("/usr/local/bin/imapwarden", "/etc/imapwarden/imapwarden.toml", "/etc/imapwarden", "/var/lib/imapwarden")
	if diff := cmp.Diff(configs.ServiceUnit, got); diff != "" {
		t.Error(diff)
	}
}

// As JSON it is one object, with the steps.
func TestInitJSON(t *testing.T) {
	i := initiate(t, pretenders["dovecot"], "")
	i.options.json = true
	if _, err := i.run(t, "--upstream", "127.0.0.1:143"); err != nil {
		t.Fatal(err)
	}
	var said struct {
		Found struct {
			Software, Version string
			StartTLS          bool `json:"starttls"`
		}
		Files []placed
		Ready bool
		Next  []step
	}
	if err := json.Unmarshal(i.stdout.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	if said.Found.Software != "Dovecot" || said.Found.Version != "2.3.1" || !said.Found.StartTLS || len(said.Files) != 4 || said.Ready || len(said.Next) < 6 {
		t.Errorf("got %+v", said)
	}
}
