package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"text/template"

	"imapwarden/configs"
)

// configText is a small configuration: only what has no default, or another value.
var configText = template.Must(template.New("").Funcs(template.FuncMap{"q": strconv.Quote}).Parse(`# imapwarden: {{.Config}}
# Written by 'imapwarden init'. What isn't here has its default; configs/imapwarden.toml in
# imapwarden's source explains every setting. After a change:
#
#   imapwarden check --config {{.Config}}

# The name by which mail programs call this server. Must be in the certificate.
hostname = {{q .Hostname}}

[[listener]]
address = "0.0.0.0:993"        # TLS from the first octet
tls     = "implicit"

[[listener]]
address = "0.0.0.0:143"        # for mail programs that were set up with STARTTLS
tls     = "starttls"
{{if .ACME}}
# Certificates are asked for at a CA and renewed by themselves.
[tls.acme]
domains   = [{{q .Hostname}}]
email     = {{q .ACME.Email}}
agree     = true               # you agreed to the CA's terms (init --agree)
challenge = {{q .ACME.Challenge}}
address   = {{q .ACME.Address}}              # here the CA sees that the name is ours
{{else}}
# PEM files: the certificate with its chain, and its key. Taken up again when they change.
[tls]
certificates = [
  { cert = {{q .Cert}}, key = {{q .Key}} },
]
{{end}}
# The IMAP server behind us.
[[upstream]]
address = {{q .Choice.Address}}
tls     = {{q .Choice.TLS}}
{{- if .Choice.ServerName}}
server_name = {{q .Choice.ServerName}}   # the name in its certificate
{{- end}}
{{- if .Choice.CA}}
ca      = {{q .Choice.CA}}
{{- end}}

# To begin with, nobody is refused for want of a second factor, and the audit says who would
# be. Then "optional" asks those who have enrolled, and "required", the default, everybody.
[mfa]
mode = "observe"
{{if .State}}
[store]
url      = {{q (print "sqlite:" .State "/imapwarden.db")}}
key_file = {{q (print .State "/master.key")}}

[alerts]
key_file = {{q (print .State "/webhook.key")}}
{{end}}`))

// An acmeChoice is how a CA is to see that the hostname is ours.
type acmeChoice struct {
	Email     string `json:"email"`
	Challenge string `json:"challenge"`
	Address   string `json:"address"`
}

// usualState is where the unit's StateDirectory is.
const usualState = "/var/lib/imapwarden"

// unitText is configs' unit with the paths of this installation.
func unitText(program, config, dir, state string) string {
	text := configs.ServiceUnit
	if dir != "/etc/imapwarden" {
		// The folder for configuration is systemd's business only where it is the usual one.
		text = strings.ReplaceAll(text, "ConfigurationDirectory=imapwarden\n", "")
	}
	text = strings.NewReplacer("/usr/local/bin/imapwarden", program, "/etc/imapwarden/imapwarden.toml", config).Replace(text)
	if state != usualState {
		text = strings.NewReplacer(
			"# /var/lib/imapwarden: records and key.", "# "+state+": records and key.",
			"StateDirectory=imapwarden\nStateDirectoryMode=0700\n", "ReadWritePaths="+state+"\n",
			"--home-dir "+usualState, "--home-dir "+state,
		).Replace(text)
	}
	return text
}

// dovecotText is configs' snippet for a Dovecot as it was found. Where it listens is written
// only for one on this machine, in plaintext, which the snippet moves or keeps in its place;
// for all others that is theirs to know.
func dovecotText(f *finding, c *choice) string {
	text := configs.DovecotExample
	_, port, _ := net.SplitHostPort(c.Address) // choose has read it
	if c.TLS != "implicit" && (f.Loopback || c.Moved) {
		return strings.NewReplacer("port 1143", "port "+port, "port = 1143", "port = "+port, "127.0.0.1:1143", "127.0.0.1:"+port).Replace(text)
	}
	begin, end := strings.Index(text, "# Dovecot moves to port"), strings.Index(text, "#   nft add rule")
	text = text[:begin] + `# It is mostly about who the client is: without it Dovecot sees one single client,
# imapwarden, and its own protections then hit all users at once.
#
# Nobody may reach Dovecot past imapwarden, or they sign in without a second factor. Where it
# listens isn't set here. Let a firewall on it admit only imapwarden, keep TLS:
` + text[end:]
	return strings.NewReplacer(
		"tcp dport 1143 ip saddr != 192.0.2.10", "tcp dport "+port+" "+saddr(f)+" != "+f.OurAddress.String(),
		"\nlogin_trusted_networks = 127.0.0.1 ::1\n# imapwarden on another machine:\n#login_trusted_networks = 192.0.2.10\n", "\nlogin_trusted_networks = "+f.OurAddress.String()+"\n",
		"allow_real_nets=127.0.0.1,::1", "allow_real_nets="+f.OurAddress.String(),
	).Replace(text)
}

func saddr(f *finding) string {
	if f.OurAddress.Is6() {
		return "ip6 saddr"
	}
	return "ip saddr"
}

// A step is one thing to do next; as JSON its names are an interface.
type step struct {
	Do       string   `json:"do"`
	Commands []string `json:"commands,omitempty"`
}

// steps are what is left to do, in their order.
func (s *setup) steps() []step {
	var all []step
	add := func(do string, commands ...string) { all = append(all, step{do, commands}) }
	config := s.configPath()
	call := func(args string) string { return s.options.command(args) }
	if s.program != s.running {
		add("Install the program, where the unit looks for it:", "install -m 0755 "+s.running+" "+s.program)
	}
	if commands := s.ownership(config); len(commands) > 0 {
		add("Let the service run as a user of its own, who has what is its own:", commands...)
	}
	all = append(all, s.certificateStep())
	add("See that nothing is in its way, as that user:", "runuser -u "+serviceName+" -- "+call("check"))
	all = append(all, s.upstreamSteps()...)
	add("Enrol the first account, by the name that it signs in with; the second command takes the code that the app then shows:",
		call("account enroll alice"), call("account confirm alice 123456"))
	seen := ""
	if s.found.isDovecot() {
		seen = " Dovecot's log must show the mail program's address as rip=, and not " + s.found.OurAddress.String() + "."
	}
	add("Sign in as this account with any mail program: the password with the six digits right behind it. See what was decided, and why."+seen, call("audit"))
	add(`Go from mfa.mode = "observe" to "optional", which asks those who have enrolled, and when the report finds nobody who would be locked out, to "required"; each time:`,
		call("report"), "systemctl restart imapwarden")
	return all
}

// ownership are the commands for what init couldn't give to the service's user.
func (s *setup) ownership(config string) (commands []string) {
	missing := s.placement.service == nil
	if missing {
		commands = append(commands, "useradd --system --user-group --no-create-home --home-dir "+s.state+" --shell /usr/sbin/nologin "+serviceName)
	}
	if missing || !s.placement.service.owns(s.state) {
		commands = append(commands, "chown -R "+serviceName+": "+s.state)
	}
	if missing {
		commands = append(commands, "chgrp "+serviceName+" "+config+" && chmod 640 "+config)
	}
	return commands
}

// certificateStep is what the certificate needs.
func (s *setup) certificateStep() step {
	switch s.Certificate.Source {
	case "acme":
		port := strings.TrimPrefix(s.Certificate.ACME.Address, ":")
		return step{"The certificate is asked for when the service starts. The CA must reach port " + port + " of " + s.Hostname +
			" from the internet, so its name must lead to this machine, and no firewall may be in between.", nil}
	case "placeholder":
		return step{fmt.Sprintf("Get a certificate for %s. The configuration names files that aren't there, so until then `check` fails and the service doesn't start. "+
			"Either put them there (%s, the certificate with its chain, and %s, its key), "+
			"or have certbot get one, for which port 80 must be free, or imapwarden itself (init --acme EMAIL --agree), and write the configuration anew:",
			s.Hostname, s.Certificate.Cert, s.Certificate.Key), []string{
			"certbot certonly --standalone -d " + s.Hostname,
			s.again + " --force",
		}}
	case "letsencrypt":
		// Certbot keeps group and mode when it renews.
		live := s.letsencrypt + "/live"
		archive := s.letsencrypt + "/archive"
		return step{"Let the service read certbot's key; that stays so when it renews:", []string{
			"chgrp " + serviceName + " " + live + " " + archive,
			"chmod 750 " + live + " " + archive,
			"chgrp " + serviceName + " " + archive + "/" + s.Hostname + "/privkey*.pem",
			"chmod 640 " + archive + "/" + s.Hostname + "/privkey*.pem",
		}}
	}
	return step{"Let the service read the certificate's key, and enter the folders above it:", []string{
		"chgrp " + serviceName + " " + s.Certificate.Key + " && chmod 640 " + s.Certificate.Key,
	}}
}

// upstreamSteps prepare the IMAP server and start the service: in one step, where it has our
// ports until then.
func (s *setup) upstreamSteps() []step {
	start := []string{"install -m 0644 " + s.path(unitName) + " /etc/systemd/system/", "systemctl daemon-reload"}
	enable := "systemctl enable --now imapwarden"
	if !s.found.isDovecot() {
		do := "Start it:"
		if s.Choice.Moved {
			do = "Let " + s.found.Software + " listen on " + s.Choice.Address + " alone, and start imapwarden at once:"
		}
		return []step{{do, append(start, enable)}}
	}
	snippet := "install -m 0644 " + s.path(snippetName) + " /etc/dovecot/conf.d/99-imapwarden.conf"
	if !s.found.SameMachine {
		return []step{
			{"Read " + s.path(snippetName) + ", which says what each line means. On Dovecot's machine it is /etc/dovecot/conf.d/99-imapwarden.conf; there:", []string{"doveconf -n && systemctl restart dovecot"}},
			{"Start it here:", append(start, enable)},
		}
	}
	_, port, _ := net.SplitHostPort(s.Choice.Address)
	do := "Read " + s.path(snippetName) + ", which says what each line means. Then give it to Dovecot, and start"
	if s.Choice.Moved {
		do += fmt.Sprintf(", in one go: Dovecot moves to port %s of loopback, and imapwarden takes 143 and 993. What used 127.0.0.1:143 on this machine, such as webmail, goes to port %[1]s from now on", port)
	}
	commands := []string{snippet}
	if s.Choice.TLS != "implicit" {
		commands = append(commands, "doveconf -h service/imap-login/inet_listener/imap/port     # "+port+", and no error")
	}
	commands = append(commands, start...)
	return []step{{do + ":", append(commands, "systemctl restart dovecot && "+enable)}}
}
