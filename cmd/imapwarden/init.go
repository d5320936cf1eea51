package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/configs"
)

// What init writes into its folder.
const (
	configName  = "imapwarden.toml"
	unitName    = "imapwarden.service"
	snippetName = "dovecot.conf"

	serviceName = "imapwarden" // user and group of the unit
)

// A setup is one run of init: what it was told, what it found out, and what it wrote. As JSON
// the names are an interface.
type setup struct {
	Hostname    string            `json:"hostname"`
	Found       *finding          `json:"found"`
	Addresses   addressing        `json:"client_address"`
	Choice      *choice           `json:"upstream"`
	Certificate certificateChoice `json:"certificate"`
	Files       []placed          `json:"files"`
	Ready       bool              `json:"ready"`    // `check` finds no error
	Problems    []configs.Problem `json:"problems"` // what `check` says
	Next        []step            `json:"next"`

	options      *options
	found        *finding
	inquiry      inquiry
	dir, state   string
	upstreamName string
	upstreamCA   string
	tls          string
	cert, key    string
	acme         string
	agree, force bool
	letsencrypt  string // certbot's folder
	service      string // the service's user
	running      string // the program, as it runs
	program      string // where the unit finds it
	again        string // the command, to run it once more
	placement    placement
}

// A certificateChoice is where the certificate comes from.
type certificateChoice struct {
	Source string      `json:"source"` // "given", "letsencrypt", "acme" or "placeholder"
	Cert   string      `json:"cert"`
	Key    string      `json:"key"`
	ACME   *acmeChoice `json:"acme,omitempty"`
}

func initCommand(o *options) *cobra.Command {
	s := &setup{
		options: o, letsencrypt: "/etc/letsencrypt", service: serviceName,
		inquiry: inquiry{patience: 5 * time.Second, dial: new(net.Dialer).DialContext},
	}
	return s.command()
}

func (s *setup) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Look at an IMAP server, and write what is needed to stand in front of it",
		Long: `Look at an IMAP server, and write what is needed to stand in front of it: a small
configuration, the key of the store, a systemd unit and a snippet for Dovecot. It says
what it found and what to do next. It signs in to nothing, starts nothing, writes
nothing outside of its two folders, and leaves nothing behind when it fails.`,
		Example: `  imapwarden init --hostname mail.example.org --upstream 127.0.0.1:143`,
		Args:    takes(),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") {
				return misuse{errors.New("init writes a configuration: name its folder with --dir, not --config")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&s.Hostname, "hostname", "", "the `name` by which mail programs call this server")
	flags.StringVar(&s.inquiry.address, "upstream", "", "the IMAP server behind it, as `host:port`")
	flags.StringVar(&s.dir, "dir", filepath.Dir(defaultConfig), "the `folder` for the configuration")
	flags.StringVar(&s.state, "state", usualState, "the `folder` for records and key")
	flags.StringVar(&s.cert, "cert", "", "the certificate with its chain, a PEM `file`")
	flags.StringVar(&s.key, "key", "", "the certificate's key, a PEM `file`")
	flags.StringVar(&s.acme, "acme", "", "have Let's Encrypt issue certificates, and write to this `email` address about them")
	flags.BoolVar(&s.agree, "agree", false, "with --acme: you agree to the terms of Let's Encrypt")
	flags.StringVar(&s.tls, "tls", "", "the `way` to the upstream: starttls, implicit or none (left out: found out)")
	flags.StringVar(&s.upstreamCA, "upstream-ca", "", "a PEM `file` with the CA of the upstream's certificate")
	flags.StringVar(&s.upstreamName, "upstream-name", "", "the `name` in the upstream's certificate (left out: its host, or the hostname)")
	flags.BoolVar(&s.force, "force", false, "replace what an earlier init wrote; a key is never replaced")
	return cmd
}

// run takes the steps in an order in which nothing is written before all is known.
func (s *setup) run(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return misuse{err}
	}
	if there := existing(s.path(configName), s.path(unitName), s.path(snippetName)); len(there) > 0 && !s.force {
		return fmt.Errorf("%s: already there, nothing was changed; --force replaces what init writes", strings.Join(there, ", "))
	}
	if err := s.ask(ctx); err != nil {
		return err
	}
	var err error
	if s.Choice, err = choose(s.found, s.tls, s.inquiry.name); err != nil {
		return err
	}
	s.Choice.CA = s.upstreamCA
	if s.Choice.TLS == "none" {
		s.Choice.CA = ""
	}
	if err := s.chooseCertificate(); err != nil {
		return err
	}
	if err := s.write(ctx); err != nil {
		return errors.Join(err, s.placement.rollBack())
	}
	s.options.config = s.configPath()
	s.Found, s.Addresses, s.Files, s.Next = s.found, s.found.addressing(), s.placement.Files, s.steps()
	if s.options.json {
		return s.options.print(s)
	}
	return s.say()
}

// simplePath is what needs no quoting in a shell or a unit.
var simplePath = regexp.MustCompile(`^/[A-Za-z0-9/._+@-]*$`)

// prepare makes all paths absolute, and says which flags don't fit.
func (s *setup) prepare() error {
	switch {
	case s.Hostname == "":
		return errors.New("--hostname is missing: the name by which mail programs call this server, such as mail.example.org")
	case s.inquiry.address == "":
		return errors.New("--upstream is missing: where the IMAP server is now, such as 127.0.0.1:143")
	case (s.cert == "") != (s.key == ""):
		return errors.New("--cert and --key belong together")
	case s.cert != "" && s.acme != "":
		return errors.New("--cert names a certificate, and --acme has one issued: choose one of them")
	}
	for _, path := range []*string{&s.dir, &s.state, &s.cert, &s.key, &s.upstreamCA} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		if !simplePath.MatchString(absolute) {
			return fmt.Errorf("the path %q has signs in it that systemd or a shell would read otherwise: use letters, digits and /._+@-", absolute)
		}
		*path = absolute
	}
	host, _, err := splitPort(s.inquiry.address)
	switch {
	case err != nil:
		return fmt.Errorf("--upstream: %w, such as 127.0.0.1:143", err)
	case !slices.Contains([]string{"", "starttls", "implicit", "none"}, s.tls):
		return fmt.Errorf("--tls %q is none of starttls, implicit, none", s.tls)
	case s.acme != "" && !s.agree:
		return errors.New("--acme needs --agree: read the terms of Let's Encrypt at https://letsencrypt.org/repository/ first")
	}
	s.inquiry.way, s.inquiry.name, s.inquiry.otherwise = s.tls, host, s.Hostname
	if s.upstreamName != "" {
		s.inquiry.name, s.inquiry.otherwise = s.upstreamName, ""
	}
	s.again = s.typed()
	s.running, s.program = whereProgram()
	if s.upstreamCA != "" {
		return s.readCA()
	}
	return nil
}

// typed is this run as it would be typed again, with the paths of now.
func (s *setup) typed() string {
	line := program() + " init --hostname " + s.Hostname + " --upstream " + s.inquiry.address
	for _, flag := range []struct{ name, value, usual string }{
		{"dir", s.dir, filepath.Dir(defaultConfig)},
		{"state", s.state, usualState},
		{"tls", s.tls, ""},
		{"upstream-ca", s.upstreamCA, ""},
		{"upstream-name", s.upstreamName, ""},
	} {
		if flag.value != flag.usual {
			line += " --" + flag.name + " " + flag.value
		}
	}
	return line
}

// whereProgram is where we run from, and where the unit finds us. What 'go run' built is gone
// soon, and the unit hides people's own folders (ProtectHome).
func whereProgram() (running, installed string) {
	const usual = "/usr/local/bin/imapwarden"
	path, err := os.Executable()
	switch {
	case err != nil || called(path, "") != "":
		return usual, usual
	case hidden(path) || !simplePath.MatchString(path):
		return path, usual
	}
	return path, path
}

// hidden says whether the unit's ProtectHome keeps the service from seeing it.
func hidden(path string) bool {
	for _, folder := range []string{"/home/", "/root/", "/run/user/"} {
		if strings.HasPrefix(path+"/", folder) {
			return true
		}
	}
	return false
}

func (s *setup) readCA() error {
	pem, err := os.ReadFile(s.upstreamCA)
	if err != nil {
		return fmt.Errorf("--upstream-ca: %w", err)
	}
	s.inquiry.roots = x509.NewCertPool()
	if !s.inquiry.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--upstream-ca %s: there is no certificate in it: must be a PEM file with the CA's root", s.upstreamCA)
	}
	return nil
}

// ask looks at the upstream, within a bounded time.
func (s *setup) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 8*s.inquiry.patience)
	defer cancel()
	var err error
	if s.found, err = s.inquiry.ask(ctx); err != nil {
		return fmt.Errorf("upstream %s: %w", s.inquiry.address, err)
	}
	return nil
}

// chooseCertificate takes what was given, else what certbot has, else says where files will be.
func (s *setup) chooseCertificate() error {
	live := filepath.Join(s.letsencrypt, "live", s.Hostname)
	switch _, err := os.Stat(live); {
	case s.acme != "":
		a, err := chooseChallenge(s.acme)
		s.Certificate = certificateChoice{Source: "acme", ACME: a}
		return err
	case s.cert != "":
		s.Certificate = certificateChoice{Source: "given", Cert: s.cert, Key: s.key}
	case err == nil:
		s.Certificate = certificateChoice{Source: "letsencrypt", Cert: filepath.Join(live, "fullchain.pem"), Key: filepath.Join(live, "privkey.pem")}
	default:
		s.Certificate = certificateChoice{Source: "placeholder", Cert: s.path("fullchain.pem"), Key: s.path("privkey.pem")}
		if len(existing(s.Certificate.Cert, s.Certificate.Key)) == 2 {
			s.Certificate.Source = "given"
		}
	}
	return nil
}

// chooseChallenge takes port 443 where nobody has it, and else port 80, for Let's Encrypt comes
// to these alone (RFC 8737, section 3; RFC 8555, section 8.3).
func chooseChallenge(email string) (*acmeChoice, error) {
	for _, way := range []acmeChoice{{email, "tls-alpn-01", ":443"}, {email, "http-01", ":80"}} {
		l, err := net.Listen("tcp", way.Address)
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return &way, nil
		}
	}
	return nil, errors.New("--acme: other programs have ports 443 and 80 of this machine, and the CA comes to these: " +
		"let the web server's own ACME client get the certificate and name it with --cert and --key, or see docs/certificates.md for dns-01")
}

func (s *setup) path(name string) string { return filepath.Join(s.dir, name) }
func (s *setup) configPath() string      { return s.path(configName) }

// write writes all of it, or returns an error before it is finished.
func (s *setup) write(ctx context.Context) error {
	s.placement = placement{replace: s.force}
	if err := s.findService(); err != nil {
		return err
	}
	if err := s.placement.folder(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.placement.state(s.state, filepath.Join(s.state, "master.key"), filepath.Join(s.state, "imapwarden.db")); err != nil {
		return err
	}
	drafts, err := s.drafts()
	if err != nil {
		return err
	}
	if err := s.check(drafts[0].text); err != nil {
		return err
	}
	for _, d := range drafts {
		if err := s.placement.file(d); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return s.placement.finish()
}

// findService looks for the user that the service runs as. Only root can give anything to it.
func (s *setup) findService() error {
	if os.Geteuid() != 0 {
		return nil
	}
	found, err := user.Lookup(s.service)
	if err != nil {
		return nil // the first step says how it is made
	}
	s.placement.service, err = readIDs(found.Uid, found.Gid)
	return err
}

func (s *setup) drafts() ([]draft, error) {
	var text strings.Builder
	data := map[string]any{
		"Config": s.configPath(), "Hostname": s.Hostname, "Choice": s.Choice, "ACME": s.Certificate.ACME,
		"Cert": s.Certificate.Cert, "Key": s.Certificate.Key, "State": "",
	}
	if s.state != usualState {
		data["State"] = s.state
	}
	if err := configText.Execute(&text, data); err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	config := draft{s.configPath(), text.String(), 0o600, -1}
	if group := s.placement.service.group(); group >= 0 {
		config.mode, config.gid = 0o640, group
	}
	all := []draft{config, {s.path(unitName), unitText(s.program, s.configPath(), s.dir, s.state), 0o644, -1}}
	if s.found.isDovecot() {
		all = append(all, draft{s.path(snippetName), dovecotText(s.found, s.Choice), 0o644, -1})
	}
	return all, nil
}

// check is `imapwarden check` before there is a file. Certificates that are still to come are no
// reason not to write it.
func (s *setup) check(text string) error {
	config, problems := configs.Parse(s.configPath(), []byte(text))
	s.Ready, s.Problems = config != nil, problems
	var wrong []string
	for _, p := range problems {
		if p.Warning || s.Certificate.Source == "placeholder" && strings.HasPrefix(p.Key, "tls.certificates") {
			continue
		}
		wrong = append(wrong, p.Message)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the configuration would be refused, so nothing was written:\n  %s", strings.Join(wrong, "\n  "))
	}
	return nil
}

// say prints what was found and written, and what to do next.
func (s *setup) say() error {
	out := s.options.stdout
	fmt.Fprintf(out, "The IMAP server at %s:\n", s.inquiry.address)
	for _, fact := range s.found.facts() {
		fmt.Fprintf(out, "  %s\n", fact)
	}
	fmt.Fprintf(out, "  So imapwarden is set to reach it at %s with tls = %q%s.\n", s.Choice.Address, s.Choice.TLS, s.Choice.verified())
	fmt.Fprintf(out, "\nWritten:\n")
	for _, f := range s.Files {
		fmt.Fprintf(out, "  %-8s  %s\n", f.Did, f.Path)
	}
	var warned bool
	for _, p := range s.Problems {
		if p.Key == "mfa.mode" { // as meant; the last step is about it
			continue
		}
		if !warned {
			fmt.Fprintf(out, "\n`check` says of the configuration:\n")
			warned = true
		}
		fmt.Fprintf(out, "  %s\n", p.Message)
	}
	if hidden(s.dir) || hidden(s.state) {
		fmt.Fprintf(out, "\nThe unit hides /home and /root from the service (ProtectHome), and so these folders.\n")
	}
	fmt.Fprintf(out, "\nNothing has changed for anybody yet. What to do next, as root:\n")
	for i, next := range s.Next {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, next.Do)
		for _, command := range next.Commands {
			fmt.Fprintf(out, "     %s\n", command)
		}
	}
	return nil
}

// verified says how the way is safe.
func (c *choice) verified() string {
	switch {
	case c.TLS == "none" && c.onLoopback():
		return ": on loopback there is nobody to read along"
	case c.TLS == "none":
		return ""
	case c.ServerName != "":
		return ", its certificate verified for " + c.ServerName
	}
	return ", its certificate verified"
}
