package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"imapwarden/bench/internal/rig"
)

// A peer is a proxy that is measured.
type peer struct {
	name    string
	version []string // the command that tells it; nil: it is this tree's
	start   func(t *stand, place place) (*rig.Process, error)
}

// A place is where a proxy is started.
type place struct {
	folder string // for its files, empty
	listen string // for clients, with TLS
}

// All have the limits of their defaults raised so far that 9,000 sessions fit, and log no
// connections, where that is a setting: imapwarden logs each and writes its audit.
var (
	imapwarden = peer{"imapwarden", nil, startWarden}
	haproxy    = peer{"haproxy", []string{"haproxy", "-v"}, startHAProxy}

	peers = []peer{
		imapwarden,
		haproxy,
		{"nginx", []string{"nginx", "-v"}, startNginx},
		{"dovecot", []string{"dovecot", "--version"}, startDovecot},
		{"stunnel", []string{"stunnel", "-version"}, startStunnel},
	}
)

func startWarden(t *stand, p place) (*rig.Process, error) {
	for _, name := range []string{rig.CertName, rig.KeyName} {
		if err := os.Link(filepath.Join(t.folder, name), filepath.Join(p.folder, name)); err != nil {
			return nil, err
		}
	}
	upstream := t.plain
	if t.upstreamTLS {
		upstream = t.secure
	}
	return rig.Warden{
		Program: t.program, Folder: p.folder, Listen: p.listen, Upstream: upstream, UpstreamTLS: t.upstreamTLS,
		StoreURL: "sqlite:" + filepath.Join(p.folder, "store.db"), KeyFile: filepath.Join(p.folder, "master.key"),
	}.Start()
}

// HAProxy passes LOGIN on: it has no login of its own.
func startHAProxy(t *stand, p place) (*rig.Process, error) {
	pair := filepath.Join(p.folder, "pair.pem") // it wants both in one file
	var both []byte
	for _, name := range []string{rig.CertName, rig.KeyName} {
		text, err := os.ReadFile(filepath.Join(t.folder, name))
		if err != nil {
			return nil, err
		}
		both = append(both, text...)
	}
	if err := os.WriteFile(pair, both, 0o600); err != nil {
		return nil, err
	}
	return startWith(p, fmt.Sprintf(`global
	maxconn 9500
defaults
	mode tcp
	timeout connect 10s
	timeout client 1h
	timeout server 1h
listen imaps
	bind %s ssl crt %s
	server upstream %s
`, p.listen, pair, t.plain), "haproxy", "-db", "-f")
}

// Debian's nginx has its mail module in a file of its own. It asks our process, which isn't
// counted, for the upstream of each login.
func startNginx(t *stand, p place) (*rig.Process, error) {
	return startWith(p, fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
user root;
worker_processes auto;
worker_rlimit_nofile 20000;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 19000; }
mail {
	server_name %[2]s;
	auth_http http://%[3]s/;
	ssl_certificate %[4]s/cert.pem;
	ssl_certificate_key %[4]s/key.pem;
	ssl_protocols TLSv1.2 TLSv1.3;
	server {
		listen %[5]s ssl;
		protocol imap;
	}
}
`, p.folder, rig.Hostname, t.auth, t.folder, p.listen), "nginx", "-c")
}

// Dovecot's login processes go on for more than one client ("high-performance mode").
func startDovecot(t *stand, p place) (*rig.Process, error) {
	_, port, err := net.SplitHostPort(p.listen)
	if err != nil {
		return nil, err
	}
	host, upstreamPort, err := net.SplitHostPort(t.plain)
	if err != nil {
		return nil, err
	}
	return startWith(p, fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <%[2]s/cert.pem
ssl_key = <%[2]s/key.pem
passdb {
	driver = static
	args = nopassword=y proxy=y host=%[3]s port=%[4]s
}
service imap-login {
	inet_listener imap {
		port = 0
	}
	inet_listener imaps {
		port = %[5]s
		ssl = yes
	}
	service_count = 0
	client_limit = 9500
	process_min_avail = 2
	process_limit = 2
	vsz_limit = 4G
}
service anvil {
	client_limit = 19500
}
service auth {
	client_limit = 19500
}
`, p.folder, t.folder, host, upstreamPort, port), "dovecot", "-F", "-c")
}

// stunnel passes LOGIN on, too.
func startStunnel(t *stand, p place) (*rig.Process, error) {
	return startWith(p, fmt.Sprintf(`foreground = yes
pid =
syslog = no
debug = warning
[imaps]
accept = %[1]s
connect = %[2]s
cert = %[3]s/cert.pem
key = %[3]s/key.pem
`, p.listen, t.plain, t.folder), "stunnel")
}

// startWith writes the configuration, which is the command's last argument.
func startWith(p place, configuration string, command ...string) (*rig.Process, error) {
	file := filepath.Join(p.folder, "configuration")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	return rig.Start(exec.Command(command[0], append(command[1:], file)...), filepath.Join(p.folder, "output.log"))
}

// release is the version that a peer tells, on whatever line and stream.
func (p peer) release() (string, error) {
	if p.version == nil {
		return p.name + " of this tree", nil
	}
	out, err := exec.Command(p.version[0], p.version[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s can't be asked for its version; ./bench/run installs it: %w", p.name, err)
	}
	for _, word := range strings.Fields(string(out)) {
		if word = strings.TrimPrefix(word, "nginx/"); word[0] >= '0' && word[0] <= '9' {
			return p.name + " " + word, nil
		}
	}
	return "", fmt.Errorf("%s doesn't tell its version: %q", p.name, out)
}
