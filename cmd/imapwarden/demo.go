package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/spf13/cobra"

	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/demo"
)

const demoAccount = "demo"

// A scene is what a visitor of the demo needs to know; as JSON its names are an interface.
type scene struct {
	IMAPS       string `json:"imaps"` // host:port, TLS from the first octet
	IMAP        string `json:"imap"`  // host:port, STARTTLS
	Account     string `json:"account"`
	Password    string `json:"password"`
	Secret      string `json:"secret"` // of the authenticator, base32
	URI         string `json:"uri"`    // the same as otpauth://
	AppPassword string `json:"app_password"`
	CAFile      string `json:"ca_file"`
	Config      string `json:"config"`
	PID         int    `json:"pid"`

	folder string
}

func demoCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run all of it on this machine, with a mailbox to try it on",
		Long: `Run all of it on this machine, with nothing to set up: a mailbox server with a few
messages, imapwarden in front of it, one enrolled account. It listens on loopback
only, keeps everything in a temporary folder, and removes that at the end.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, err := os.MkdirTemp("", "imapwarden-demo-")
			if err != nil {
				return fmt.Errorf("demo: making a folder: %w", err)
			}
			defer os.RemoveAll(folder)
			s := &scene{Account: demoAccount, Password: strings.ToLower(rand.Text()[:10]), PID: os.Getpid(), folder: folder}
			mailbox, err := demo.Start(s.Account, s.Password)
			if err != nil {
				return err
			}
			defer mailbox.Close()
			ctx := cmd.Context()
			if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
				// Who closes the terminal has seen enough.
				var stop context.CancelFunc
				ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
				defer stop()
			}
			return o.perform(ctx, s, mailbox)
		},
	}
}

// perform sets the stage, shows it, and serves until ctx ends. The server is the one that
// `imapwarden serve` would build from the same file.
func (o *options) perform(ctx context.Context, s *scene, mailbox *demo.Mailbox) error {
	if err := s.write(mailbox.Addr()); err != nil {
		return err
	}
	config, problems := configs.Load(s.Config)
	if config == nil {
		return fmt.Errorf("demo: its own configuration is broken: %v", problems)
	}
	w, err := newWarden(ctx, config, newLogger(o.stderr, config.Log))
	if err != nil {
		return err
	}
	enrolment, err := w.admin.Directory.Enroll(ctx, s.Account, true)
	if err != nil {
		return err
	}
	s.Secret, s.URI = enrolment.Secret, enrolment.URI
	issued, err := w.admin.Directory.CreateAppPassword(ctx, auth.NewAppPassword{
		Account: s.Account, Label: "demo phone", Password: auth.Secret(s.Password),
	})
	if err != nil {
		return err
	}
	s.AppPassword = issued.Password
	// The log of the beginning comes first, so that the end of the text stays in sight.
	return w.serve(ctx, func(ctx context.Context) error {
		if _, err := s.writeCode(time.Now()); err != nil {
			return err
		}
		if err := o.show(s); err != nil {
			return err
		}
		return o.showCodes(ctx, s)
	})
}

// write makes the certificate and the configuration file.
func (s *scene) write(upstream string) error {
	cert, key, err := certs.SelfSigned([]string{"localhost", "127.0.0.1", "::1"}, 30*24*time.Hour)
	if err != nil {
		return fmt.Errorf("demo: making a certificate: %w", err)
	}
	s.CAFile, s.Config = filepath.Join(s.folder, "cert.pem"), filepath.Join(s.folder, "imapwarden.toml")
	if s.IMAPS, err = freePort(1993); err != nil {
		return err
	}
	if s.IMAP, err = freePort(1143); err != nil {
		return err
	}
	var text strings.Builder
	if err := demoConfig.Execute(&text, map[string]string{
		"IMAPS": s.IMAPS, "IMAP": s.IMAP, "Upstream": upstream,
	}); err != nil {
		return fmt.Errorf("demo: writing its configuration: %w", err)
	}
	for name, content := range map[string][]byte{"cert.pem": cert, "key.pem": key, "imapwarden.toml": []byte(text.String())} {
		if err := os.WriteFile(filepath.Join(s.folder, name), content, 0o600); err != nil {
			return fmt.Errorf("demo: writing %s: %w", name, err)
		}
	}
	return nil
}

var demoConfig = template.Must(template.New("").Parse(`# The demo's configuration. Paths start from this file's folder.
hostname = "localhost"

[[listener]]
address = "{{.IMAPS}}"
tls     = "implicit"

[[listener]]
address = "{{.IMAP}}"
tls     = "starttls"

[tls]
certificates = [{ cert = "cert.pem", key = "key.pem" }]

[[upstream]]
address = "{{.Upstream}}"
tls     = "none"

[store]
url      = "sqlite:imapwarden.db"
key_file = "master.key"

[timeouts]
drain = "1s"

[admin]
socket = "admin.sock"

[metrics]
address = ""

[log]
format = "console"
`))

// freePort prefers a port that is easy to remember.
func freePort(preferred int) (string, error) {
	for _, port := range []int{preferred, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		if port == 0 {
			return "", fmt.Errorf("demo: opening a port on loopback: %w", err)
		}
	}
	panic("unreachable")
}

// show says once where everything is.
func (o *options) show(s *scene) error {
	if o.json {
		return o.print(s)
	}
	fmt.Fprintf(o.stdout, "imapwarden demo: a mailbox behind a second factor, until you press Ctrl-C.\n\n")
	if err := writeQR(o.stdout, s.URI); err != nil {
		return err
	}
	return demoText.Execute(o.stdout, s)
}

var demoText = template.Must(template.New("").Funcs(template.FuncMap{"grouped": grouped, "port": func(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}, "program": program}).Parse(`
Scan it with an authenticator app, or type its secret:
  {{grouped .Secret}}

  account    {{.Account}}
  password   {{.Password}} with the app's six digits right behind it
  or         {{.AppPassword}}
             an app password, for a device that stores one for good
  IMAP/TLS   {{.IMAPS}}
  STARTTLS   {{.IMAP}}
  CA         {{.CAFile}}

To try it from another terminal (the file code has the code of the moment):

  cd {{.Folder}}
  curl --cacert cert.pem -u "{{.Account}}:{{.Password}}$(cat code)" imaps://localhost:{{port .IMAPS}}/
  curl --cacert cert.pem -u {{.Account}}:{{.Password}} "imaps://localhost:{{port .IMAPS}}/INBOX;UID=1"
  openssl s_client -quiet -starttls imap -CAfile cert.pem -port {{port .IMAP}}
    a LOGIN {{.Account}} {{.Password}}
    b LIST "" "*"

After the first one the password alone works from here for a while (mfa.grant),
as mail programs need it. From elsewhere it doesn't. The app password works from
everywhere, until it is revoked. What was decided, and why, and who is there:

  {{program}} audit --config {{.Config}}
  {{program}} app-password list {{.Account}} --config {{.Config}}
  {{program}} session list --config {{.Config}}

`))

// Folder is for the text; it is not part of the JSON.
func (s *scene) Folder() string { return s.folder }

// writeCode puts the code of the moment into its file, where the commands that are
// shown find it.
func (s *scene) writeCode(now time.Time) (string, error) {
	code, err := totp.GenerateCode(s.Secret, now)
	if err != nil {
		return "", fmt.Errorf("demo: making a code: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.folder, "code"), []byte(code), 0o600); err != nil {
		return "", fmt.Errorf("demo: writing the code: %w", err)
	}
	return code, nil
}

// showCodes tells each code when its time comes, until ctx ends.
func (o *options) showCodes(ctx context.Context, s *scene) error {
	const step = 30 * time.Second // RFC 6238, as auth enrols
	for ready := "Ready. "; ; ready = "" {
		now := time.Now()
		code, err := s.writeCode(now)
		if err != nil {
			return err
		}
		next := now.Truncate(step).Add(step)
		if !o.json {
			fmt.Fprintf(o.stdout, "%sType as the password until %s: %s%s\n", ready, next.Format("15:04:05"), s.Password, code)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
	}
}
