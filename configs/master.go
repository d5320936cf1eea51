package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Master is the upstream's master user, for login = "master".
type Master struct {
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"` // see Secret
	Style        string `toml:"style"`         // "authzid" or "separator"
	Separator    string `toml:"separator"`     // between account and user; ignored by "authzid"
}

// maxPassword is the longest password of a master user, in octets.
const maxPassword = 1024

// Secret reads the password, which is the first line of PasswordFile without its end.
// A file that others than its owner may read, or without a password that can be used,
// is an error, which says what to do and has nothing of the file's content in it.
func (m Master) Secret() ([]byte, error) {
	password, err := m.secret()
	if err != nil {
		return nil, fmt.Errorf("configs: reading the master user's password from %s: %w", m.PasswordFile, err)
	}
	return password, nil
}

func (m Master) secret() ([]byte, error) {
	if m.PasswordFile == "" {
		return nil, errors.New("must be the path of a file whose first line is the master user's password")
	}
	info, err := os.Stat(m.PasswordFile)
	switch {
	case err != nil:
		return nil, unreadable(err)
	case !info.Mode().IsRegular(): // a pipe would block
		return nil, errors.New("isn't a regular file: must be one with the master user's password")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others than its owner may use it (mode %04o), and with the password open every mailbox: chmod 600 %s", info.Mode().Perm(), m.PasswordFile)
	}
	file, err := os.Open(m.PasswordFile)
	if err != nil {
		return nil, unreadable(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxPassword+2)) // with the end of the line
	if err != nil {
		return nil, unreadable(err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, errors.New("its first line is empty: must be the master user's password")
	case len(line) > maxPassword:
		return nil, fmt.Errorf("its first line is longer than %d octets: must be the master user's password", maxPassword)
	case !utf8.Valid(line) || bytes.ContainsFunc(line, unicode.IsControl): // RFC 4616, section 2
		return nil, errors.New("its first line has control characters or isn't UTF-8: must be the master user's password")
	}
	return line, nil
}

// unreadable is a file's error with what to do.
func unreadable(err error) error {
	hint := " (relative paths start at the configuration file's folder)"
	if errors.Is(err, fs.ErrPermission) {
		hint = ": let the user that imapwarden runs as read it, and enter the folders above it"
	}
	return fmt.Errorf("can't be read: %w%s", reason(err), hint)
}

// masterSeparator has the signs on a US keyboard without those of account names, so that
// nobody can type a name in which the upstream finds a master user.
var masterSeparator = regexp.MustCompile(`^[!-*,/:-?\[-^` + "`" + `{-~]+$`)

func (c *checker) master(key string, u Upstream) {
	m := u.Master
	c.oneOf(key+".master.style", m.Style, "authzid", "separator")
	if m.Style == "separator" && !masterSeparator.MatchString(m.Separator) {
		c.refuse(key+".master.separator", m.Separator, `must be one or more of the signs on a US keyboard that no account has (these have letters, digits and ._-+@), as the upstream has it, such as "*"`)
	}
	if u.Login != "master" {
		if m.User != "" {
			c.warn(key+".master.user", m.User, `has no effect with login = %q: say login = "master", or remove it`, u.Login)
		}
		return
	}
	switch {
	case m.User == "" && c.place[key+".master.user"] == 0:
		c.missing(key+".master.user", `the name of the upstream's master user, such as master = { user = "imapwarden", password_file = "master.password" }`)
	case m.User == "" || strings.ContainsFunc(m.User, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		c.refuse(key+".master.user", m.User, "must be the name of the upstream's master user, without spaces and control characters")
	}
	if m.PasswordFile == "" && c.place[key+".master.password_file"] == 0 {
		c.missing(key+".master.password_file", "a file whose first line is the master user's password, mode 0600")
	} else if _, err := m.secret(); err != nil {
		c.refuse(key+".master.password_file", m.PasswordFile, "%v", err)
	}
}
