package configs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// passwordFiles makes password files that can be used, and others.
func passwordFiles(t *testing.T, dir string) {
	t.Helper()
	for name, content := range map[string]string{
		"good":     "hunter2\nhunter3\n",
		"spaces":   " hunter2, ü ", // no end of the line
		"windows":  "hunter2\r\nhunter3",
		"longest":  strings.Repeat("h", 1024) + "\r\n",
		"open":     "hunter2\n",
		"empty":    "",
		"second":   "\nhunter2\n",
		"control":  "hun\x00ter2\n",
		"latin1":   "hunter2\xfc\n",
		"too-long": strings.Repeat("hunter2", 200),
	} {
		write(t, filepath.Join(dir, name), content)
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// What the check says of a password file, Secret says too, and neither what is in it.
func TestMasterSecret(t *testing.T) {
	const must = `: must be the master user's password`
	dir := folder(t)
	passwordFiles(t, dir)
	for file, want := range map[string]struct{ password, wrong string }{
		"good":     {"hunter2", ""},
		"spaces":   {" hunter2, ü ", ""},
		"windows":  {"hunter2", ""},
		"longest":  {strings.Repeat("h", 1024), ""},
		"open":     {"", "others than its owner may use it (mode 0640), and with the password open every mailbox: chmod 600 open"},
		"empty":    {"", "its first line is empty" + must},
		"second":   {"", "its first line is empty" + must},
		"control":  {"", "its first line has control characters or isn't UTF-8" + must},
		"latin1":   {"", "its first line has control characters or isn't UTF-8" + must},
		"too-long": {"", "its first line is longer than 1024 octets" + must},
		"pipe":     {"", "isn't a regular file: must be one with the master user's password"},
		"folder":   {"", "isn't a regular file: must be one with the master user's password"},
		"nowhere":  {"", "can't be read: no such file or directory (relative paths start at the configuration file's folder)"},
	} {
		path := filepath.Join(dir, file)
		got, err := Master{PasswordFile: path}.Secret()
		message := ""
		if err != nil {
			message = strings.ReplaceAll(err.Error(), dir+"/", "")
			want.wrong = "configs: reading the master user's password from " + file + ": " + want.wrong
		}
		if string(got) != want.password || message != want.wrong {
			t.Errorf("%s: got %d octets and %q; want %d and %q", file, len(got), message, len(want.password), want.wrong)
		}

		var wrong []string
		if err != nil {
			_, cause, _ := strings.Cut(message, file+": ")
			wrong = []string{`w.toml:4: upstream[0].master.password_file = "` + file + `": ` + cause}
		}
		if diff := cmp.Diff(wrong, said(t, dir, masterConfig(`user = "m", password_file = "`+file+`"`))); diff != "" {
			t.Errorf("%s\n%s", file, diff)
		}
	}
}

func masterConfig(master string) string {
	return `hostname = "mail.example.org"
tls.certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]
listener = [{ address = "0.0.0.0:993" }]
upstream = [{ address = "imap.lan:143", login = "master", master = { ` + master + ` } }]`
}

func TestCheckMaster(t *testing.T) {
	const (
		user      = `must be the name of the upstream's master user, without spaces and control characters`
		separator = `must be one or more of the signs on a US keyboard that no account has (these have letters, digits and ._-+@), as the upstream has it, such as "*"`
	)
	dir := folder(t)
	passwordFiles(t, dir)
	for master, want := range map[string][]string{
		`user = "m", password_file = "good"`:                                                 nil,
		`user = "m@example.org", password_file = "good", style = "authzid"`:                  nil,
		`user = "m", password_file = "good", style = "separator"`:                            nil,
		`user = "m", password_file = "good", style = "authzid", separator = "@"`:             nil, // ignored
		"user = 'm', password_file = 'good', style = 'separator', separator = '!#%/:?[^`|~'": nil,

		``: {
			`w.toml:4: upstream[0].master.user is missing: the name of the upstream's master user, such as master = { user = "imapwarden", password_file = "master.password" }`,
			`w.toml:4: upstream[0].master.password_file is missing: a file whose first line is the master user's password, mode 0600`,
		},
		`user = "", password_file = ""`: {
			`w.toml:4: upstream[0].master.user = "": ` + user,
			`w.toml:4: upstream[0].master.password_file = "": must be the path of a file whose first line is the master user's password`,
		},
		`user = "a b", password_file = "good"`:                     {`w.toml:4: upstream[0].master.user = "a b": ` + user},
		`user = "a\u0007", password_file = "good"`:                 {`w.toml:4: upstream[0].master.user = "a\a": ` + user},
		`user = "m", password_file = "good", style = "proxy"`:      {`w.toml:4: upstream[0].master.style = "proxy": must be "authzid" or "separator"`},
		`user = "m", password_file = "good", password = "hunter2"`: {`w.toml:4: unknown key "upstream[0].master.password": upstream[0].master has user, password_file, style, separator`},
	} {
		if diff := cmp.Diff(want, said(t, dir, masterConfig(master))); diff != "" {
			t.Errorf("%s\n%s", master, diff)
		}
	}
	for _, bad := range []string{"", " ", "a", "*a", "1", ".", "_", "-", "+", "@", "* ", "§", "**@"} {
		want := []string{`w.toml:4: upstream[0].master.separator = "` + bad + `": ` + separator}
		got := said(t, dir, masterConfig(`user = "m", password_file = "good", style = "separator", separator = "`+bad+`"`))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q\n%s", bad, diff)
		}
	}
}
