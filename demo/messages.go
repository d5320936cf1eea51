package demo

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// The messages are templates, for their dates are relative to now.
//
//go:embed messages/*.eml
var files embed.FS

// A message is one of files, and where, when and how it lies.
type message struct {
	folder string
	file   string
	age    time.Duration
	flags  []imap.Flag
}

const day = 24 * time.Hour

// folders returns all folders. The name in UTF-8 travels as modified UTF-7
// (RFC 3501, section 5.1.3) until a client enables IMAP4rev2.
func folders() []string {
	return []string{"INBOX", "Archive", "Drafts", "Projekte", "Projekte/Übersicht", "Sent", "Trash"}
}

// messages returns all messages, within a folder in the order of their arrival.
func messages() []message {
	seen, answered, flagged, draft := imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDraft
	return []message{
		{"INBOX", "budget-1.eml", 3*day + 2*time.Hour, []imap.Flag{seen, answered}},
		{"INBOX", "invoice.eml", 2*day + 5*time.Hour, []imap.Flag{seen, flagged}},
		{"INBOX", "newsletter.eml", 27 * time.Hour, []imap.Flag{seen}},
		{"INBOX", "greetings.eml", 5 * time.Hour, nil},
		{"INBOX", "budget-3.eml", 90 * time.Minute, nil},
		{"INBOX", "welcome.eml", time.Minute, []imap.Flag{flagged}},
		{"Sent", "budget-2.eml", 3 * day, []imap.Flag{seen}},
		{"Drafts", "draft.eml", 40 * time.Minute, []imap.Flag{seen, draft}},
		{"Archive", "minutes.eml", 400 * day, []imap.Flag{seen}},
		{"Projekte/Übersicht", "milestones.eml", 9 * day, []imap.Flag{seen}},
		{"Trash", "parcel.eml", 6 * day, []imap.Flag{seen}},
	}
}

// fill makes the folders, subscribes to them, and puts the messages in.
func fill(account *imapmemserver.User, user string) error {
	for _, folder := range folders() {
		if err := account.Create(folder, &imap.CreateOptions{}); err != nil {
			return fmt.Errorf("folder %s: %w", folder, err)
		}
		if err := account.Subscribe(folder); err != nil {
			return fmt.Errorf("folder %s: %w", folder, err)
		}
	}
	texts, err := template.ParseFS(files, "messages/*.eml")
	if err != nil {
		return err
	}
	now := time.Now()
	for _, m := range messages() {
		text, err := m.text(texts, user, now)
		if err != nil {
			return fmt.Errorf("message %s: %w", m.file, err)
		}
		options := &imap.AppendOptions{Flags: m.flags, Time: now.Add(-m.age)}
		if _, err := account.Append(m.folder, bytes.NewReader(text), options); err != nil {
			return fmt.Errorf("message %s: %w", m.file, err)
		}
	}
	return nil
}

// text returns the message with its date and the account's address, and with
// the line ends that RFC 5322, section 2.1, asks for.
func (m message) text(texts *template.Template, user string, now time.Time) ([]byte, error) {
	address := user
	if !strings.Contains(address, "@") {
		address += "@example.org"
	}
	var b bytes.Buffer
	err := texts.ExecuteTemplate(&b, m.file, struct{ Address, Date string }{
		address, now.Add(-m.age).Format(time.RFC1123Z),
	})
	return bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n")), err
}
