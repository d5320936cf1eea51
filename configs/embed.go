package configs

import _ "embed"

var (
	// Example is the annotated configuration, with every default written out.
	//go:embed imapwarden.toml
	Example string

	// DovecotExample is what to set in a Dovecot behind us.
	//go:embed dovecot.conf
	DovecotExample string

	// ServiceUnit runs `imapwarden serve` under systemd.
	//go:embed imapwarden.service
	ServiceUnit string
)
