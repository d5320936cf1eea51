package demo

import (
	"fmt"
	"io"
	"mime"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	gomail "github.com/emersion/go-message/mail"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start returns a server that ends with the test.
func start(t *testing.T) *Mailbox {
	t.Helper()
	mailbox, err := Start("alice", "mellon")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mailbox.Close(); err != nil {
			t.Error(err)
		}
	})
	return mailbox
}

// dial returns a client that has not logged in.
func dial(t *testing.T, mailbox *Mailbox) *imapclient.Client {
	t.Helper()
	client, err := imapclient.DialInsecure(mailbox.Addr(), &imapclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// login returns a client that has.
func login(t *testing.T, mailbox *Mailbox) *imapclient.Client {
	t.Helper()
	client := dial(t, mailbox)
	if err := client.Login("alice", "mellon").Wait(); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestLoopbackOnly(t *testing.T) {
	host, _, err := net.SplitHostPort(start(t).Addr())
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("listens on %q, %v", host, err)
	}
}

func TestWrongPassword(t *testing.T) {
	err := dial(t, start(t)).Login("alice", "friend").Wait()
	refusal, ok := err.(*imap.Error)
	if !ok || refusal.Type != imap.StatusResponseTypeNo || refusal.Code != imap.ResponseCodeAuthenticationFailed {
		t.Errorf("a wrong password was answered with %v", err)
	}
}

func TestFolders(t *testing.T) {
	list, err := login(t, start(t)).List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, data := range list {
		names = append(names, data.Mailbox)
	}
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(folders())); !slices.Equal(names, want) {
		t.Errorf("folders %q, want %q", names, want)
	}
}

// Every message is where it belongs, can be read to its last part, and is dated as planned.
func TestMessages(t *testing.T) {
	client := login(t, start(t))
	want := map[string][]message{}
	for _, m := range messages() {
		want[m.folder] = append(want[m.folder], m)
	}
	parts := map[string]int{}
	ids := map[string]bool{}
	for _, folder := range folders() {
		selected, err := client.Select(folder, nil).Wait()
		if err != nil {
			t.Fatalf("%s: %v", folder, err)
		}
		if int(selected.NumMessages) != len(want[folder]) {
			t.Fatalf("%s has %d messages, want %d", folder, selected.NumMessages, len(want[folder]))
		}
		if selected.NumMessages == 0 {
			continue
		}
		whole := &imap.FetchItemBodySection{Peek: true}
		fetched, err := client.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{
			Flags: true, InternalDate: true, Envelope: true,
			BodySection: []*imap.FetchItemBodySection{whole},
		}).Collect()
		if err != nil {
			t.Fatalf("%s: %v", folder, err)
		}
		for i, got := range fetched {
			m := want[folder][i]
			t.Run(m.file, func(t *testing.T) {
				if off := time.Since(got.InternalDate) - m.age; off < -time.Minute || off > time.Minute {
					t.Errorf("arrived %v ago, want %v", time.Since(got.InternalDate), m.age)
				}
				if got.Envelope.Date.Unix() != got.InternalDate.Unix() {
					t.Errorf("dated %v and arrived %v", got.Envelope.Date, got.InternalDate)
				}
				if !sameFlags(got.Flags, m.flags) {
					t.Errorf("flags %q, want %q", got.Flags, m.flags)
				}
				if got.Envelope.Subject == "" || ids[got.Envelope.MessageID] {
					t.Errorf("subject %q, Message-ID %q", got.Envelope.Subject, got.Envelope.MessageID)
				}
				ids[got.Envelope.MessageID] = true
				for _, kind := range read(t, string(got.FindBodySection(whole))) {
					parts[kind]++
				}
			})
		}
	}
	for _, kind := range []string{"text/plain", "text/html", "application/pdf"} {
		if parts[kind] == 0 {
			t.Errorf("no message has a part of %s: %v", kind, parts)
		}
	}
}

// sameFlags compares without order and, as RFC 9051, section 2.3.2, has it, without case.
func sameFlags(got, want []imap.Flag) bool {
	fold := func(flags []imap.Flag) []string {
		var names []string
		for _, flag := range flags {
			names = append(names, strings.ToLower(string(flag)))
		}
		slices.Sort(names)
		return names
	}
	return slices.Equal(fold(got), fold(want))
}

// read parses a message to its end and returns the types of its parts.
func read(t *testing.T, text string) []string {
	t.Helper()
	if strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") {
		t.Error("a line ends in a bare LF")
	}
	if !strings.Contains(text, "alice@example.org") {
		t.Error("neither from nor to the account")
	}
	reader, err := gomail.CreateReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for {
		part, err := reader.NextPart()
		if err == io.EOF {
			return kinds
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part.Body)
		if err != nil || len(body) == 0 {
			t.Errorf("part %s: %d octets, %v", kind, len(body), err)
		}
		if kind == "application/pdf" && !strings.HasPrefix(string(body), "%PDF-") {
			t.Errorf("the attachment begins with %.10q", body)
		}
		kinds = append(kinds, kind)
	}
}

func TestSearch(t *testing.T) {
	client := login(t, start(t))
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		criteria imap.SearchCriteria
		want     string
	}{
		{"unseen", imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, "[4 5 6]"},
		{"flagged", imap.SearchCriteria{Flag: []imap.Flag{imap.FlagFlagged}}, "[2 6]"},
		{"subject", imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "budget"}}}, "[1 5]"},
		{"subject in UTF-8", imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "Köln 🌻"}}}, "[4]"},
		{"body", imap.SearchCriteria{Body: []string{"lighthouses"}}, "[3]"},
		{"nothing", imap.SearchCriteria{Body: []string{"no message says this"}}, "[]"},
	} {
		found, err := client.Search(&test.criteria, nil).Wait()
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if got := fmt.Sprint(found.AllSeqNums()); got != test.want {
			t.Errorf("%s: found %s, want %s", test.name, got, test.want)
		}
	}
}

// Close ends sessions in every state, and leaves no port and no goroutine behind.
func TestClose(t *testing.T) {
	mailbox, err := Start("alice", "mellon")
	if err != nil {
		t.Fatal(err)
	}
	idling := login(t, mailbox)
	if _, err := idling.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := idling.Idle(); err != nil {
		t.Fatal(err)
	}
	clients := []*imapclient.Client{dial(t, mailbox), login(t, mailbox), idling}
	silent, err := net.Dial("tcp", mailbox.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	if err := mailbox.Close(); err != nil {
		t.Error(err)
	}
	for _, client := range clients {
		<-client.Closed()
	}
	io.Copy(io.Discard, silent) // returns: it was cut, too
	if conn, err := net.Dial("tcp", mailbox.Addr()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}
