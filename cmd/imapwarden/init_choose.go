package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	goimap "github.com/emersion/go-imap/v2"

	"imapwarden/imap"
)

// A choice is how the upstream is to be reached, as [[upstream]] says it.
type choice struct {
	Address    string `json:"address"`
	TLS        string `json:"tls"`
	ServerName string `json:"server_name"` // "" is the address's host
	CA         string `json:"ca"`          // "" are those that this machine believes
	Moved      bool   `json:"moved"`       // the IMAP server has to move there, out of our way
}

// An upstream that has our port moves here: configs/dovecot.conf says the same.
const (
	ourPort  = 143
	tlsPort  = 993
	newPlace = "127.0.0.1:1143"
)

// choose decides by what was found how the upstream is reached, or says what stands in the way
// and what can be done. TLS is given up only where nobody is on the way to read along, or by the
// administrator's own word; whether that word is good is for configs' check to say.
func choose(f *finding, way, name string) (*choice, error) {
	if strings.EqualFold(f.Software, "imapwarden") {
		return nil, fmt.Errorf("%s is an imapwarden already: name the IMAP server behind it", f.Asked)
	}
	_, port, err := splitPort(f.Asked)
	if err != nil {
		return nil, err
	}
	c := &choice{Address: f.Asked, TLS: way, Moved: f.SameMachine && port == ourPort}
	if f.SameMachine && port == tlsPort {
		return nil, fmt.Errorf("%s is on this machine, and imapwarden itself takes port %d there: name the server's port %d "+
			"(--upstream 127.0.0.1:%[3]d), from which it is moved to %[4]s, or let it listen elsewhere first", f.Asked, tlsPort, ourPort, newPlace)
	}
	if c.Moved {
		c.Address = newPlace
	}
	if c.TLS == "" {
		if c.TLS, err = f.safest(c.onLoopback()); err != nil {
			return nil, err
		}
	}
	if err := f.allows(c.TLS); err != nil {
		return nil, err
	}
	if c.TLS == "none" {
		return c, nil
	}
	if f.Certificate.Name == "" {
		return nil, f.unverified(name)
	}
	if host, _, _ := net.SplitHostPort(c.Address); f.Certificate.Name != host {
		c.ServerName = f.Certificate.Name
	}
	return c, nil
}

// onLoopback says whether the address itself is there. What a name stands for may change.
func (c *choice) onLoopback() bool {
	host, _, _ := net.SplitHostPort(c.Address)
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// safest is the best way that the upstream offers. On loopback there is nobody to read along.
func (f *finding) safest(loopback bool) (string, error) {
	switch {
	case f.TLS == "implicit":
		return "implicit", nil
	case loopback && canLogIn(f.plain):
		return "none", nil
	case f.StartTLS:
		return "starttls", nil
	case loopback:
		return "none", nil // allows says why that is no way either
	}
	return "", fmt.Errorf("%s offers no TLS: every password would travel in the clear, for all on that network to read. "+
		"Turn TLS on there, or, on a private network that you trust, say --tls none", f.Asked)
}

// allows says whether a password can be handed over in this way.
func (f *finding) allows(way string) error {
	switch {
	case way == "implicit" && f.TLS != "implicit", way != "implicit" && f.TLS == "implicit":
		return fmt.Errorf("%s was found with tls = %q, which isn't --tls %s", f.Asked, f.TLS, way)
	case way == "starttls" && !f.StartTLS:
		return fmt.Errorf("%s doesn't offer STARTTLS: turn TLS on there, or name its port with TLS from the start (--tls implicit)", f.Asked)
	case way == "starttls" && f.TLS != "starttls":
		return fmt.Errorf("%s offers STARTTLS, and then it fails: %s", f.Asked, f.Trouble)
	}
	list := f.secure
	if way == "none" {
		list = f.plain
	}
	if canLogIn(list) {
		return nil
	}
	hint := ""
	if way == "none" && f.StartTLS {
		hint = "; it offers STARTTLS, so say --tls starttls"
	}
	return fmt.Errorf("%s takes no password in this way (tls = %q): it says LOGINDISABLED and doesn't offer AUTH=PLAIN%s", f.Asked, way, hint)
}

func (f *finding) unverified(name string) error {
	c := f.Certificate
	return fmt.Errorf("the certificate of %s can't be verified for %s: %s. It is for %s, issued by %s, and expires on %s. "+
		"Name the server as its certificate does (--upstream NAME:PORT, or --upstream-name NAME); "+
		"a CA of your own, or a certificate that signed itself and that you compared on the server, is named with --upstream-ca FILE",
		f.Asked, name, c.Problem, list(c.Names), c.Issuer, day(c))
}

func day(c *seenCertificate) string { return c.Expires.Format("2006-01-02") }

// list is some names for people to read.
func list(names []string) string {
	const most = 5
	switch n := len(names); {
	case n == 0:
		return "no name"
	case n > most:
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

// isDovecot says whether Dovecot's snippet is of use. One that doesn't say what it is may be it.
func (f *finding) isDovecot() bool {
	return f.Software == "" || strings.EqualFold(f.Software, "Dovecot")
}

// An addressing is what the upstream will make of clients' addresses.
type addressing struct {
	Told     bool   `json:"told"`     // that it can be told them at all
	Believed string `json:"believed"` // "no", or "unknown" until somebody has logged in
	Means    string `json:"means"`    // for people
}

// addressing says what can be told before login, which is little: Dovecot answers ID in the same
// way whether it believes what stands in it or not. But it takes passwords in plaintext from
// login_trusted_networks, whatever else is set (tried with 2.3.19.1), so where it doesn't, we
// aren't in there. On this machine it takes them in any case.
func (f *finding) addressing() addressing {
	switch {
	case !f.HasID && f.Trouble == "":
		return addressing{Believed: "no", Means: fmt.Sprintf(
			"It has no ID (RFC 2971), so it can't be told from where people come: to it, everybody comes from %s. "+
				`Where it takes PROXY headers, set forward = "proxy-v2".`, f.OurAddress)}
	case f.isDovecot() && !f.SameMachine && f.plain.Has(goimap.CapLoginDisabled):
		return addressing{Told: true, Believed: "no", Means: fmt.Sprintf(
			"Client addresses are told it by ID, but it doesn't believe them yet: it says LOGINDISABLED to us, "+
				"as Dovecot does not to login_trusted_networks. Put our address there: %s.", f.OurAddress)}
	}
	return addressing{Told: true, Believed: "unknown", Means: fmt.Sprintf(
		"Client addresses are told it by ID. Whether it believes them can't be seen before somebody logs in: "+
			"Dovecot does where login_trusted_networks has our address, %s. Its log then shows the client's address as rip=.", f.OurAddress)}
}

// facts is what was found, in plain words.
func (f *finding) facts() []string {
	name := "It doesn't say which software it is"
	if f.Software != "" {
		name = "It says that it is " + strings.TrimSpace(f.Software+" "+f.Version)
	}
	facts := []string{fmt.Sprintf("%s. Its greeting: %s", name, strconv.Quote(f.Greeting))}
	facts = append(facts, f.security()...)
	mechanism := "LOGIN (it doesn't offer AUTH=PLAIN, which a master user of style authzid would need)"
	if f.best().Has(goimap.AuthCap("PLAIN")) {
		mechanism = "AUTHENTICATE PLAIN"
	}
	facts = append(facts, "Passwords are handed over by "+mechanism+".")
	if f.plain != nil {
		says := "It takes passwords without TLS from here (no LOGINDISABLED)."
		if !canLogIn(f.plain) {
			says = "It takes no passwords without TLS from here (LOGINDISABLED)."
		}
		facts = append(facts, says)
	}
	return append(facts, "Capabilities before login: "+strings.Join(words(f.best()), " "), f.addressing().Means)
}

// best is the list by the safest way that worked.
func (f *finding) best() imap.Capabilities {
	if f.secure != nil {
		return f.secure
	}
	return f.plain
}

func (f *finding) security() []string {
	how := map[string]string{"implicit": "TLS from the first octet", "starttls": "STARTTLS", "none": "No TLS"}[f.TLS]
	switch c := f.Certificate; {
	case f.Trouble != "":
		return []string{"It offers STARTTLS, and then it fails: " + f.Trouble}
	case c == nil && f.StartTLS:
		return []string{"It offers STARTTLS, which wasn't tried."}
	case c == nil:
		return []string{how + " is offered."}
	case c.Name == "":
		return []string{how + " works, " + c.Version + ".", fmt.Sprintf("Its certificate can't be verified: %s. It is for %s, issued by %s, and expires on %s.",
			c.Problem, list(c.Names), c.Issuer, day(c))}
	default:
		return []string{how + " works, " + c.Version + ".", fmt.Sprintf("Its certificate is valid for %s, issued by %s, and expires on %s.", c.Name, c.Issuer, day(c))}
	}
}
