package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A Warden says how the program is started.
type Warden struct {
	Program     string // BuildWarden's
	Folder      string // of the certificate, and of all that it writes
	Listen      string
	Upstream    string
	UpstreamTLS bool   // with the same certificate
	StoreURL    string // "sqlite:/..."
	KeyFile     string
}

// configuration has settings beside the defaults: all logins come from one address here, and
// who has no account is only observed.
const configuration = `hostname = "%s"

[[listener]]
address = "%s"

[tls]
certificates = [{ cert = "%s", key = "%s" }]

[[upstream]]
address = "%s"
%s

[[rule]]
accounts = ["plain*"]
second_factor = "observe"

[limits]
connections_before_login = 1000
connections_account_address = 1000
connections_account = 1000

[timeouts]
drain = "1s"

[store]
url = "%s"
key_file = "%s"

[admin]
socket = ""

[metrics]
address = ""
`

// BuildWarden builds the program from this tree, in the folder.
func BuildWarden(ctx context.Context, folder string) (program string, err error) {
	program = filepath.Join(folder, "imapwarden")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "imapwarden/cmd/imapwarden").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building imapwarden: %w\n%s", err, out)
	}
	return program, nil
}

// Start configures and starts it. Its log is imapwarden.log.
func (w Warden) Start() (*Process, error) {
	way := `tls = "none"`
	if w.UpstreamTLS {
		way = fmt.Sprintf("tls = \"implicit\"\nca = \"%s\"\nserver_name = \"%s\"", CertName, Hostname)
	}
	config := filepath.Join(w.Folder, "imapwarden.toml")
	text := fmt.Sprintf(configuration, Hostname, w.Listen, CertName, KeyName, w.Upstream, way, w.StoreURL, w.KeyFile)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return Start(exec.Command(w.Program, "serve", "--config", config), filepath.Join(w.Folder, "imapwarden.log"))
}
