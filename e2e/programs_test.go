package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Mail programs store one password: the account's alone, which works under a
// grant, or with a code at its end, which works at first and goes stale.

// mbsync synchronizes a local tree with the server both ways. What each side
// had is then on both, and a second run changes nothing.
func TestMbsync(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{tls: "starttls", ca: shared.internal.file, serverName: dovecotName})
	a := w.enrolled(anyPassword())
	stored := a.withCode(t)
	for i := range 20 {
		w.upstream.deliver(t, a, fmt.Sprintf("Subject: remote %d\r\nMessage-ID: <remote-%d@example.test>\r\n\r\n%s\r\n", i, i, strings.Repeat("Grüße ", i*100)))
	}
	local := t.TempDir()
	for _, folder := range []string{"Inbox", "Sent", "Projects"} {
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(local, folder, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			write(t, filepath.Join(local, folder, "cur", fmt.Sprintf("%d.local:2,S", i)), fmt.Sprintf("Subject: local %s %d\nMessage-ID: <%s-%d@example.test>\n\nbody\n", folder, i, folder, i))
		}
	}
	var trees [2]map[string]int
	for run := range trees {
		w.mbsync(t, a, stored, local)
		near, far := readMaildir(t, local, func(folder string) string { return folder }), readMaildir(t, w.upstream.maildir(a), dovecotFolder)
		if diff := cmp.Diff(near, far); diff != "" {
			t.Fatalf("run %d: the trees differ (-here +server):\n%s", run+1, diff)
		}
		trees[run] = near
	}
	if diff := cmp.Diff(trees[0], trees[1]); diff != "" {
		t.Errorf("the second run changed something:\n%s", diff)
	}
	if total := len(trees[0]); total != 1+20+15 {
		t.Errorf("%d messages on both sides, want 36", total)
	}
}

// mbsync synchronizes all folders of the account with the Maildirs below local.
func (w *warden) mbsync(t *testing.T, a *account, password, local string) {
	t.Helper()
	rc := filepath.Join(t.TempDir(), "mbsyncrc")
	write(t, rc, fmt.Sprintf(`
IMAPAccount account
Host localhost
Port %s
User %s
Pass %s
SSLType IMAPS
CertificateFile %s
SystemCertificates no

IMAPStore remote
Account account

MaildirStore local
Path %s/
Inbox %[5]s/Inbox
SubFolders Verbatim

Channel all
Far :remote:
Near :local:
Patterns *
Create Both
Expunge Both
SyncState *
`, port(t, w.implicit), a.name, password, shared.clients.file, local))
	runProgram(t, "", "mbsync", "-c", rc, "--all")
}

func TestFetchmail(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"implicit", "starttls"} {
		t.Run(listener, func(t *testing.T) {
			w := startWarden(t, settings{})
			a := w.enrolled(anyPassword())
			dialTLS(t, home, w.implicit).mustLogin(a.name, a.withCode(t))
			w.upstream.deliver(t, a, "Subject: second\r\nMessage-ID: <second@example.test>\r\n\r\nHello again.\r\n")
			text := w.fetchmail(t, a, a.password, listener)
			for _, want := range []string{"Subject: " + a.name, "Subject: second", "Hello again."} {
				if strings.Count(text, want) != 1 {
					t.Errorf("fetched %d times: %q", strings.Count(text, want), want)
				}
			}
		})
	}
}

// fetchmail returns all of the account's messages.
func (w *warden) fetchmail(t *testing.T, a *account, password, listener string) string {
	t.Helper()
	dir := t.TempDir()
	got := filepath.Join(dir, "got")
	address, option := w.implicit, "ssl"
	if listener == "starttls" {
		address, option = w.starttls, `sslproto "TLS1.2+"`
	}
	rc := filepath.Join(dir, "fetchmailrc")
	write(t, rc, fmt.Sprintf("poll localhost protocol IMAP port %s\n user %q password %q\n %s sslcertck sslcertfile %q\n keep\n mda \"cat >>%s\"\n",
		port(t, address), a.name, password, option, shared.clients.file, got))
	runProgram(t, "", "fetchmail", "--fetchmailrc", rc, "--pidfile", filepath.Join(dir, "pid"), "--idfile", filepath.Join(dir, "ids"), "--nodetach", "--nosyslog")
	return mustRead(t, got)
}

func TestCurl(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	stored := a.withCode(t)
	curl := func(url string, args ...string) string {
		t.Helper()
		return w.curl(t, a, stored, url, args...)
	}
	upload := filepath.Join(t.TempDir(), "message")
	write(t, upload, "Subject: from curl\r\n\r\nUploaded.\r\n")
	implicit, starttls := "imaps://localhost:"+port(t, w.implicit), "imap://localhost:"+port(t, w.starttls)
	if got := curl(implicit + "/INBOX;MAILINDEX=1"); !strings.Contains(got, "Subject: "+a.name) {
		t.Errorf("got %q", got)
	}
	curl(implicit+"/INBOX", "--upload-file", upload)
	if got := curl(starttls+"/INBOX;MAILINDEX=2", "--ssl-reqd"); !strings.Contains(got, "Uploaded.") {
		t.Errorf("got %q", got)
	}
	if got := curl(starttls, "--ssl-reqd", "--login-options", "AUTH=LOGIN"); !strings.Contains(got, "INBOX") {
		t.Errorf("got %q", got)
	}
}

// curl returns what is at the URL.
func (w *warden) curl(t *testing.T, a *account, password, url string, args ...string) string {
	t.Helper()
	// Credentials come on standard input: a command line can be seen by others.
	config := fmt.Sprintf("user = %q\ncacert = %q\nurl = %q\n", a.name+":"+password, shared.clients.file, url)
	return runProgram(t, config, append([]string{"curl", "--silent", "--show-error", "--config", "-"}, args...)...)
}

// neomutt wants a terminal, which script gives it. It saves the message that
// it shows, copies it to another folder, and goes.
func TestNeomutt(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	stored := a.withCode(t)
	if text := w.neomutt(t, a, stored); !strings.Contains(text, "Subject: "+a.name) {
		t.Errorf("neomutt piped %q", text)
	}
	if copies := readMaildir(t, filepath.Join(w.upstream.maildir(a), ".Copies"), dovecotFolder); len(copies) != 1 {
		t.Errorf("neomutt copied %d messages", len(copies))
	}
}

// neomutt returns the account's first message, and copies it to the folder Copies.
func (w *warden) neomutt(t *testing.T, a *account, password string) string {
	t.Helper()
	dir := t.TempDir()
	rc, got := filepath.Join(dir, "rc"), filepath.Join(dir, "got")
	write(t, rc, fmt.Sprintf(`
set imap_user = "%s"
set imap_pass = "%s"
set ssl_ca_certificates_file = "%s"
set ssl_usesystemcerts = no
set spoolfile = "imaps://localhost:%s/INBOX"
set folder = "imaps://localhost:%[4]s/"
set header_cache = ""
set wait_key = no
set quit = yes
set confirm_append = no
set confirm_create = no
push "<pipe-message>cat >%[5]s<enter><copy-message>=Copies<enter><quit>"
`, a.name, password, shared.clients.file, port(t, w.implicit), got))
	runProgram(t, "", "script", "--quiet", "--return", "--command", "exec neomutt -n -F "+rc, "/dev/null")
	return mustRead(t, got)
}

func TestImaplib(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(`with "quotes\ and ` + randomLetters(8))
	dialTLS(t, home, w.implicit).mustLogin(a.name, a.withCode(t))
	for _, starttls := range []bool{false, true} {
		w.imaplib(t, a, a.password, starttls)
	}
}

// imaplib has Python's library do a whole session.
func (w *warden) imaplib(t *testing.T, a *account, password string, starttls bool) {
	t.Helper()
	address := w.implicit
	if starttls {
		address = w.starttls
	}
	input := fmt.Sprintf(`{"ca": %q, "port": %s, "starttls": %t, "name": %q, "password": %s}`, shared.clients.file, port(t, address), starttls, a.name, jsonString(t, password))
	if out := runProgram(t, input, "python3", "testdata/session.py"); strings.TrimSpace(out) != "done" {
		t.Errorf("starttls %t: %s", starttls, out)
	}
}

// runProgram runs a mail program with a home of its own and returns what it
// printed; it must succeed.
func runProgram(t *testing.T, input string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "TERM=xterm", "LC_ALL=C.UTF-8")
	cmd.Stdin = strings.NewReader(input)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", argv[0], err, out, errs.String())
	}
	return string(out)
}

// readMaildir returns the messages of a tree of Maildirs, by folder and
// content, with how often each is there. The header that mbsync adds to find
// its own uploads again doesn't count.
func readMaildir(t *testing.T, root string, folderName func(string) string) map[string]int {
	t.Helper()
	tree := map[string]int{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		folder, sub := filepath.Split(filepath.Dir(path))
		if sub != "cur" && sub != "new" || strings.HasPrefix(entry.Name(), ".") {
			return nil
		}
		name, err := filepath.Rel(root, folder)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		message := mbsyncHeader.ReplaceAllString(strings.ReplaceAll(string(text), "\r\n", "\n"), "")
		tree[folderName(name)+": "+message]++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

var mbsyncHeader = regexp.MustCompile(`(?m)^X-TUID: .*\n`)

// dovecotFolder is a folder's name, from how Dovecot calls it on disk.
func dovecotFolder(dir string) string {
	if dir == "." {
		return "Inbox"
	}
	return strings.TrimPrefix(dir, ".")
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func jsonString(t *testing.T, s string) string {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
