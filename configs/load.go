package configs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads and checks a configuration file. It returns every problem at once, in
// the order of the file; the Config is nil where one of them is not just a warning.
//
// Who needs no more than some top level keys, such as "store", names them. Errors under
// other keys then leave the Config usable as far as these go.
func Load(path string, keys ...string) (*Config, []Problem) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, []Problem{{
			File:    path,
			Message: fmt.Sprintf("can't be read: %v; name another file with --config or $IMAPWARDEN_CONFIG", reason(err)),
		}}
	}
	return Parse(path, data, keys...)
}

// Parse is Load for a file's content. Relative paths in it start from name's folder.
// Certificates and other files that it names are read.
func Parse(name string, data []byte, keys ...string) (*Config, []Problem) {
	config := Default()
	data, marked := bytes.CutPrefix(data, []byte("\ufeff"))
	doc := newDocument(name, data)
	if marked {
		doc.addAt(1, "", "begins with a byte order mark, which isn't TOML: save it as UTF-8 without BOM", false)
	}
	doc.decode(config)
	config.resolve(filepath.Dir(name))
	config.fold()
	(&checker{doc, config}).check()

	// What has no line is missing altogether: say it last, close to the prompt.
	slices.SortStableFunc(doc.problems, func(a, b Problem) int {
		return cmp.Or(-cmp.Compare(min(a.Line, 1), min(b.Line, 1)), cmp.Compare(a.Line, b.Line))
	})
	if slices.ContainsFunc(doc.problems, func(p Problem) bool { return !p.Warning && p.concerns(keys) }) {
		return nil, doc.problems
	}
	return config, doc.problems
}

// resolve makes every relative path absolute, so that it doesn't matter where the
// program was started.
func (c *Config) resolve(folder string) {
	if absolute, err := filepath.Abs(folder); err == nil {
		folder = absolute
	}
	paths := []*string{
		&c.TLS.ClientCA, &c.TLS.ACME.CA, &c.TLS.ACME.EAB.KeyFile, &c.TLS.ACME.DNS.KeyFile, &c.TLS.ACME.Hook,
		&c.Store.KeyFile, &c.Admin.Socket, &c.Audit.File,
		&c.Passwords.File, &c.Geo.Countries, &c.Geo.Owners, &c.Alerts.KeyFile,
	}
	for i := range c.TLS.Certificates {
		paths = append(paths, &c.TLS.Certificates[i].Cert, &c.TLS.Certificates[i].Key)
	}
	for i := range c.Upstreams {
		paths = append(paths, &c.Upstreams[i].CA, &c.Upstreams[i].Master.PasswordFile)
	}
	for _, r := range c.Rules {
		for i := range r.NetworkFiles {
			paths = append(paths, &r.NetworkFiles[i])
		}
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(folder, *path)
		}
	}
	if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); ok && path != "" && !filepath.IsAbs(path) {
		c.Store.URL = "sqlite:" + filepath.Join(folder, path)
	}
}

// fold gives what is compared its one form: lower case where accounts are, which are
// case-folded, or what programs say that they are, and IPv4 networks as such.
func (c *Config) fold() {
	c.DefaultDomain = strings.ToLower(c.DefaultDomain)
	for i := range c.Routes {
		c.Routes[i].Domain = strings.ToLower(c.Routes[i].Domain)
		c.Routes[i].Account = strings.ToLower(c.Routes[i].Account)
	}
	lower(c.TLS.ACME.Domains)
	lower(c.Limits.Decoys)
	for _, l := range c.Listeners {
		unmap(l.TrustedProxies)
	}
	unmap(c.Limits.Trusted)
	unmap(c.Limits.Webmail)
	for _, r := range c.Rules {
		lower(r.Accounts)
		lower(r.Programs)
	}
}

// unmap writes IPv4 networks as such, for an IPv6 one has no IPv4 address in it.
func unmap(networks []netip.Prefix) {
	for i, p := range networks {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			networks[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
	}
}

func lower(list []string) {
	for i := range list {
		list[i] = strings.ToLower(list[i])
	}
}

// A document is a configuration file: its lines, where each key stands, and what is
// wrong with it so far.
type document struct {
	name     string
	data     []byte
	lines    []string
	place    map[string]int  // line of each key, like "listener[1].tls"
	failed   map[string]bool // keys with an error: one error a key is enough
	damaged  bool            // parts didn't parse, so what is missing may only be hidden
	problems []Problem
}

func newDocument(name string, data []byte) *document {
	d := &document{name: name, data: data, place: map[string]int{}, failed: map[string]bool{}}
	for line := range bytes.Lines(data) {
		d.lines = append(d.lines, strings.TrimRight(string(line), "\r\n"))
	}
	return d
}

// add records a problem of a key, at its line or that of the nearest table around
// it, unless the key or a table around it is known to be wrong already.
func (d *document) add(key, message string, warning bool) {
	line := 0
	for k := key; k != ""; k = parent(k) {
		if d.failed[k] {
			return
		}
		line = cmp.Or(line, d.place[k])
	}
	d.failed[key] = !warning
	d.addAt(line, key, message, warning)
}

func (d *document) addAt(line int, key, message string, warning bool) {
	p := Problem{File: d.name, Line: line, Key: key, Message: redact(message), Warning: warning}
	if line > 0 && line <= len(d.lines) {
		p.Text = redact(strings.TrimSpace(d.lines[line-1]))
	}
	d.problems = append(d.problems, p)
}

// parent of "listener[1].tls" is "listener[1]", and of that "listener".
func parent(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

// reason is what the system said, without the path that the message names anyway.
func reason(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
