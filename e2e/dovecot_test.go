package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dovecotConfig is an ordinary Dovecot 2.3 in a folder of its own. Its own
// brakes are off (delays after failures, the penalty of an address), so that
// what the tests see comes from imapwarden. Each account is a passwd-file of
// its own, so that new ones count at once.
const dovecotConfig = `
protocols = imap
listen = 127.0.0.1
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
auth_verbose = yes
auth_mechanisms = plain login
auth_failure_delay = 0
disable_plaintext_auth = no
login_trusted_networks = 127.0.0.0/8
haproxy_trusted_networks = 127.0.0.0/8
mail_max_userip_connections = 1000
mail_location = maildir:~/Maildir
protocol imap {
  mail_plugins = imap_zlib
}
first_valid_uid = 1
first_valid_gid = 1
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
auth_master_user_separator = *
passdb {
  driver = passwd-file
  args = %[1]s/master-users
  master = yes
  result_success = continue
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN %[1]s/users/%%u
}
userdb {
  driver = static
  args = uid=%[2]s gid=%[3]s home=%[1]s/mail/%%u allow_all_users=yes
}
namespace inbox {
  inbox = yes
  separator = /
}
service imap-login {
  service_count = 0
  inet_listener imap {
    port = %[4]s
  }
  inet_listener imaps {
    port = %[5]s
    ssl = yes
  }
  inet_listener imap_proxied {
    port = %[6]s
    haproxy = yes
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`

// rootless is added where the tests don't run as root: all of Dovecot is then
// the user who runs them.
const rootless = `
default_internal_user = %[1]s
default_login_user = %[1]s
default_internal_group = %[2]s
service imap-login {
  chroot =
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`

// masterUser signs in as everybody, from where imapwarden connects and nowhere else:
// configs/dovecot.conf has the same.
const masterUser = "imapwarden"

// dovecotName is the name in Dovecot's certificate.
const dovecotName = "dovecot.internal"

// A dovecot is the upstream: real, on loopback, in its own folder.
type dovecot struct {
	dir     string
	plain   string // address with STARTTLS
	tls     string // address with implicit TLS
	proxied string // address that wants a PROXY header
	owner   *user.User
	master  string // password of masterUser

	proc *process
}

// newMailUser returns the user whom mail belongs to: a new system user, or
// whoever runs the tests where that isn't root.
func newMailUser() (owner *user.User, remove func() error, err error) {
	if os.Geteuid() != 0 {
		owner, err := user.Current()
		return owner, func() error { return nil }, err
	}
	name := fmt.Sprintf("iwtest%d", os.Getpid())
	if out, err := exec.Command("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name).CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("adding the system user %s: %w: %s", name, err, out)
	}
	remove = func() error {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			return fmt.Errorf("removing the system user %s: %w: %s", name, err, out)
		}
		return nil
	}
	if owner, err = user.Lookup(name); err != nil {
		remove()
		return nil, nil, err
	}
	return owner, remove, nil
}

// newDovecot prepares a Dovecot in dir, whose path must be short.
func newDovecot(dir string, owner *user.User) (*dovecot, error) {
	d := &dovecot{dir: dir, owner: owner, master: known.add(anyPassword())}
	for _, sub := range []string{"users", "mail"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := d.own(filepath.Join(dir, "mail")); err != nil {
		return nil, err
	}
	if err := shared.internal.issue(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), dovecotName); err != nil {
		return nil, err
	}
	var ports [3]string
	for i, address := range []*string{&d.plain, &d.tls, &d.proxied} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
		if _, ports[i], err = net.SplitHostPort(*address); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf(dovecotConfig, dir, owner.Uid, owner.Gid, ports[0], ports[1], ports[2])
	if os.Geteuid() != 0 {
		group, err := user.LookupGroupId(owner.Gid)
		if err != nil {
			return nil, err
		}
		config += fmt.Sprintf(rootless, owner.Username, group.Name)
	}
	master := masterUser + ":{PLAIN}" + d.master + "::::::allow_real_nets=127.0.0.1\n"
	return d, errors.Join(
		os.WriteFile(filepath.Join(dir, "master-users"), []byte(master), 0o644),
		os.WriteFile(d.config(), []byte(config), 0o644))
}

func (d *dovecot) config() string { return filepath.Join(d.dir, "dovecot.conf") }
func (d *dovecot) log() string    { return filepath.Join(d.dir, "dovecot.log") }

func (d *dovecot) start() (err error) {
	out := filepath.Join(d.dir, "output")
	if d.proc, err = startProcess(out, out, "dovecot", "-F", "-c", d.config()); err != nil {
		return err
	}
	for _, address := range []string{d.plain, d.tls} {
		if err := d.proc.accepts(address); err != nil {
			d.stop()
			return fmt.Errorf("%w\n%s%s", err, tail(out, 20), tail(d.log(), 20))
		}
	}
	return nil
}

func (d *dovecot) stop() error {
	_, err := d.proc.terminate()
	return err
}

// heardOf says whether Dovecot's log has the account's name: whether anybody
// tried to log in as it.
func (d *dovecot) heardOf(t *testing.T, a *account) bool {
	t.Helper()
	text, err := os.ReadFile(d.log())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), a.name)
}

// refusals returns how many wrong passwords of the account Dovecot has met. Its log comes
// a moment later: the line about a stranger, who tries behind it, says when.
func (d *dovecot) refusals(t *testing.T, a *account) int {
	t.Helper()
	stranger := randomLetters(12)
	loginQuoted(dial(t, home, d.plain), stranger, "x")
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text := mustRead(t, d.log())
		if strings.Contains(text, "missing passwd file: "+filepath.Join(d.dir, "users", stranger)) {
			return len(regexp.MustCompile(`passwd-file\(`+regexp.QuoteMeta(a.name)+`,.*[Mm]ismatch`).FindAllString(text, -1))
		}
	}
	t.Fatal("Dovecot doesn't log a refusal")
	return 0
}

// maildir is where Dovecot keeps the account's mail.
func (d *dovecot) maildir(a *account) string {
	return filepath.Join(d.dir, "mail", a.name, "Maildir")
}

// deliver puts a message into the account's inbox, past IMAP.
func (d *dovecot) deliver(t *testing.T, a *account, message string) {
	t.Helper()
	folder := d.maildir(a)
	for _, sub := range []string{"tmp", "cur", "new"} {
		if err := os.MkdirAll(filepath.Join(folder, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	name := randomLetters(16)
	if err := os.WriteFile(filepath.Join(folder, "tmp", name), []byte(strings.ReplaceAll(message, "\r\n", "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.own(filepath.Dir(folder)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(folder, "tmp", name), filepath.Join(folder, "new", name)); err != nil {
		t.Fatal(err)
	}
}

// own gives all that is in the folder to the mail user.
func (d *dovecot) own(folder string) error {
	uid, err := strconv.Atoi(d.owner.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(d.owner.Gid)
	if err != nil {
		return err
	}
	return filepath.Walk(folder, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}
