package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// An alertStore is a fakeStore that is asked for the newest event and for alerts, and a Sink.
type alertStore struct {
	*fakeStore
	asked []Filter
}

func newAlertStore() *alertStore { return &alertStore{fakeStore: newFakeStore()} }

func (s *alertStore) Events(ctx context.Context, f Filter) ([]Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, f)
	if err := s.fails(ctx); err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(slices.Clone(s.events), func(e Event) bool {
		return e.ID <= f.After || f.Kind != "" && e.Kind != f.Kind
	})
	if f.Oldest {
		return found[:min(len(found), f.Limit)], nil
	}
	return found[max(0, len(found)-f.Limit):], nil
}

func (s *alertStore) Append(ctx context.Context, events []Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails(ctx); err != nil {
		return err
	}
	for i := range events {
		s.lastID++
		events[i].ID = s.lastID
		s.events = append(s.events, events[i])
	}
	return nil
}

// looks returns what it was asked for since the last call.
func (s *alertStore) looks() []Filter {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *alertStore) failing(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
}

func (s *alertStore) mark() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks["alerts-webhook"]
}

// alerts returns n of them.
func alerts(n int) []Event {
	return slices.Repeat([]Event{{Kind: "alert", Outcome: Refused, Rule: "unproved"}}, n)
}

// A fakeReceiver is the other end, without a network between.
type fakeReceiver struct {
	mu      sync.Mutex
	answers []int // one a request, in order; then 204. 0: none, until the sender gives up
	got     []string
	began   time.Time
}

func (r *fakeReceiver) RoundTrip(request *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.got = append(r.got, fmt.Sprintf("%s@%v", request.Header.Get("Imapwarden-Id"), time.Since(r.began)))
	code := http.StatusNoContent
	if len(r.answers) > 0 {
		code, r.answers = r.answers[0], r.answers[1:]
	}
	r.mu.Unlock()
	if code == 0 {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	return &http.Response{StatusCode: code, Body: http.NoBody, Request: request, Header: http.Header{"Location": {"https://elsewhere.example/"}}}, nil
}

// A posting is a Webhook that runs until the test stops it.
type posting struct {
	*Webhook
	t        *testing.T
	receiver *fakeReceiver
	sink     Sink
	logs     *observer.ObservedLogs
	end      context.CancelFunc
	done     chan error
}

// began returns a Webhook that has begun and doesn't run, inside a bubble.
func began(t *testing.T, s *alertStore, answers ...int) *posting {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	r := &fakeReceiver{answers: answers, began: time.Now()}
	h := &Webhook{URL: "https://hooks.example.org/T0KEN", Key: make(WebhookKey, 32), Source: s, Transport: r, Log: zap.New(core)}
	must(t, h.Begin(t.Context()))
	return &posting{Webhook: h, t: t, receiver: r, sink: h.Announce(s), logs: logs, done: make(chan error, 1)}
}

func (p *posting) run() *posting {
	ctx, cancel := context.WithCancel(p.t.Context())
	p.end = cancel
	go func() { p.done <- p.Run(ctx) }()
	synctest.Wait()
	return p
}

func (p *posting) stop() {
	p.t.Helper()
	p.end()
	must(p.t, <-p.done)
}

func (p *posting) record(events ...Event) {
	p.t.Helper()
	must(p.t, p.sink.Append(p.t.Context(), events))
	synctest.Wait()
}

// posted checks which alerts the receiver has been sent since the last call, as in "3@1s": when,
// since it is there.
func (p *posting) posted(want ...string) {
	p.t.Helper()
	p.receiver.mu.Lock()
	defer p.receiver.mu.Unlock()
	if got := p.receiver.got; !slices.Equal(got, want) {
		p.t.Errorf("posted %q, want %q", got, want)
	}
	p.receiver.got = nil
}

// counts checks how many alerts wait, and how many requests failed.
func (p *posting) counts(waiting, failures int64) {
	p.t.Helper()
	if p.Waiting() != waiting || p.Failures() != failures {
		p.t.Errorf("%d waiting and %d failures, want %d and %d", p.Waiting(), p.Failures(), waiting, failures)
	}
}

// logged checks the log: a part of each entry's message and fields.
func (p *posting) logged(want ...string) {
	p.t.Helper()
	entries := p.logs.TakeAll()
	if len(entries) != len(want) {
		p.t.Errorf("%d entries in the log, want %q", len(entries), want)
	}
	for i, entry := range entries {
		text := fmt.Sprint(entry.Message, entry.ContextMap())
		if i >= len(want) || !strings.Contains(text, want[i]) || strings.Contains(text, "T0KEN") {
			p.t.Errorf("logged %q", text)
		}
	}
}

func TestWebhookPostsAlertsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAlertStore()
		must(t, s.Append(t.Context(), alerts(2))) // history
		p := began(t, s)
		p.record(alerts(1)...) // before it runs
		p.run()
		p.posted("3@0s")
		pass(7)
		p.record(Event{Kind: "login"}, alerts(1)[0], Event{Kind: "login"}, alerts(1)[0])
		p.record(Event{Kind: "login"})
		p.posted("5@7s", "7@7s")
		p.counts(0, 0)
		if mark := s.mark(); mark != "7" {
			t.Errorf("the mark is %q", mark)
		}
		p.stop()
		p.logged()
	})
}

func TestWebhookLooksForWhatOthersRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAlertStore()
		p := began(t, s).run()
		must(t, s.Append(t.Context(), alerts(1)))
		pass(29)
		p.posted()
		pass(1)
		p.posted("1@30s")
		p.stop()
	})
}

func TestWebhookGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAlertStore()
		p := began(t, s) // it ends before anything was there to post, with the store empty
		p.record(alerts(1)...)
		p = began(t, s).run()
		p.record(alerts(2)...)
		p.posted("1@0s", "2@0s", "3@0s")
		p.stop()
		must(t, s.Append(t.Context(), alerts(1)))
		p = began(t, s, 0).run() // it ends before there is an answer
		p.stop()
		p.posted("4@0s")
		p.counts(1, 0)
		p = began(t, s).run()
		p.posted("4@0s")
		p.stop()
		p = began(t, s).run()
		p.posted()
		p.stop()

		must(t, s.Append(t.Context(), alerts(1)))
		must(t, ForgetWebhook(t.Context(), s))
		p = began(t, s).run()
		p.posted()
		p.stop()
	})
}

func TestWebhookBacksOff(t *testing.T) {
	for name, code := range map[string]int{
		"internal error": 500, "too many": 429, "timeout": 408, "redirect": 302, "informal": 199,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newAlertStore()
				p := began(t, s, slices.Repeat([]int{code}, 11)...).run()
				p.record(alerts(1)...)
				pass(600)
				p.record(alerts(1)...) // doesn't cut the pause short
				p.posted("1@0s", "1@1s", "1@3s", "1@7s", "1@15s", "1@31s", "1@1m3s", "1@2m7s", "1@4m15s", "1@8m31s")
				p.counts(1, 10)
				p.logged("alerts don't reach the webhook, trying again")
				pass(30)
				p.counts(2, 10)
				pass(600)
				p.posted("1@13m31s", "1@18m31s", "2@18m31s")
				p.counts(0, 11)
				p.logged("no alert waits")
				p.record(alerts(1)...)
				p.posted("3@20m30s")
				p.stop()
				p.logged()
			})
		})
	}
}

func TestWebhookNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := began(t, newAlertStore(), 0, 0).run()
		p.record(alerts(1)...)
		pass(60)
		p.posted("1@0s", "1@11s", "1@23s")
		p.stop()
		p.logged("deadline exceeded", "no alert waits")
	})
}

func TestWebhookRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := began(t, newAlertStore(), 404, 404, 503, 400, 404, 404, 404).run()
		p.record(alerts(2)...)
		pass(60)
		p.posted("1@0s", "1@1s", "1@3s", "1@7s", "1@15s", "1@31s", "2@31s", "2@32s")
		p.counts(0, 7)
		p.stop()
		p.logged("answered 404", "answered 503", "answered 400", "alert given up", "no alert waits")
	})
}

// More than are held in memory come in order, and none twice.
func TestWebhookManyAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAlertStore()
		p := began(t, s, 500)
		p.record(alerts(2300)...)
		p.run()
		p.counts(1000, 1)
		pass(1)
		want := []string{"1@0s"}
		for id := range 2300 {
			want = append(want, strconv.Itoa(id+1)+"@1s")
		}
		p.posted(want...)
		p.counts(0, 1)
		p.stop()
	})
}

// A look must not go through a million events that it has seen, and nor must a new start.
func TestWebhookRemembersWhatItHasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAlertStore()
		p := began(t, s).run()
		p.record(slices.Repeat([]Event{{Kind: "login"}}, 12_000)...)
		pass(30)
		p.record(Event{Kind: "login"})
		s.looks()
		pass(30)
		p.stop()
		if asked := s.looks(); len(asked) == 0 || slices.ContainsFunc(asked, func(f Filter) bool { return f.After < 12_000 }) {
			t.Errorf("it has asked for %+v", asked)
		}
		if mark := s.mark(); mark != "12000" {
			t.Errorf("the mark is %q", mark)
		}
	})
}

func TestWebhookWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAlertStore()
		p := began(t, s).run()
		s.failing(errDisk)
		pass(600)
		if n := len(s.looks()); n > 25 {
			t.Errorf("it has asked %d times in ten minutes", n)
		}
		p.logged("disk full")
		s.failing(nil)
		p.record(alerts(1)...)
		p.posted("1@10m0s")
		p.stop()
		p.logged("no alert waits")

		s.failing(errDisk)
		if err := p.Begin(t.Context()); !errors.Is(err, errDisk) {
			t.Errorf("beginning: %v", err)
		}
		s.failing(nil)
		s.marks["alerts-webhook"] = "x"
		if err := p.Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "alerts-webhook") {
			t.Errorf("beginning with a bad mark: %v", err)
		}
	})
}

// received is what a receiver has to do, written down a second time.
func received(t *testing.T, key []byte, r *http.Request) map[string]any {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	must(t, err)
	at, signature, _ := strings.Cut(r.Header.Get("Imapwarden-Signature"), ",v1=")
	at = strings.TrimPrefix(at, "t=")
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s", at, body)
	if want := hex.EncodeToString(mac.Sum(nil)); signature != want {
		t.Errorf("the signature is %q, want %q", signature, want)
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if d := time.Since(time.Unix(seconds, 0)); err != nil || d < -time.Minute || d > time.Minute {
		t.Errorf("signed at %q", at)
	}
	if r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" || r.UserAgent() != "imapwarden" || r.Header.Get("Imapwarden-Id") != "4711" {
		t.Errorf("%s with %v", r.Method, r.Header)
	}
	var fields map[string]any
	must(t, json.Unmarshal(body, &fields))
	return fields
}

func TestDeliver(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	e := Event{ID: 4711, Time: time.Now(), Kind: Alert, Outcome: Refused, Account: "alice", Rule: "unproved", Detail: "<&>"}
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		fields := received(t, key, r)
		if fields["rule"] != "unproved" || fields["id"] != 4711.0 || fields["detail"] != "<&>" || fields["imapwarden"] != "mail.example.org" {
			t.Errorf("the body is %v", fields)
		}
		io.WriteString(w, strings.Repeat("x", 500))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/followed", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/followed", func(http.ResponseWriter, *http.Request) { t.Error("followed a redirect") })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for n := 0; ; n++ {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
			if n > 1000 {
				t.Error("all of the answer is read")
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]Answer{
		"/ok":      {200, strings.Repeat("x", 200)},
		"/moved":   {307, ""},
		"/nowhere": {404, "404 page not found\n"},
		"/endless": {200, strings.Repeat("\x00", 200)},
	} {
		h := &Webhook{URL: server.URL + path, Key: key, Hostname: "mail.example.org"}
		answer, err := h.Deliver(t.Context(), e)
		if err != nil || answer != want {
			t.Errorf("%s: %+v, %v; want %+v", path, answer, err, want)
		}
	}
}

// An error says what is wrong, and nothing of what the URL holds.
func TestDeliverErrors(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler()) // with a certificate that nobody knows
	secure.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	defer secure.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for url, want := range map[string]string{
		"http://hooks.example.org/T0KEN":             "must begin with https://",
		"http://192.0.2.1/T0KEN":                     "must begin with https://",
		"http://localhost.example.org/T0KEN":         "must begin with https://",
		"ftp://127.0.0.1/T0KEN":                      "must begin with https://",
		"https://alice:T0KEN@example.org/":           "user name",
		"https://T0KEN@example.org/":                 "user name",
		"https:///T0KEN":                             "isn't a URL",
		"T0KEN":                                      "isn't a URL",
		"https://example.org/%zzT0KEN":               "isn't a URL",
		"":                                           "isn't a URL",
		gone.URL + "/T0KEN":                          "refused",
		secure.URL + "/T0KEN":                        "certificate",
		strings.Replace(secure.URL, "s", "", 1) + "": "",
	} {
		answer, err := (&Webhook{URL: url, Key: make(WebhookKey, 32)}).Deliver(t.Context(), Event{})
		if want == "" {
			if err != nil || answer.Taken() {
				t.Errorf("plain HTTP to a TLS port: %+v, %v", answer, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "T0KEN") {
			t.Errorf("%q: %v; want %q", url, err, want)
		}
	}
}

func TestBeginRefusesABadURL(t *testing.T) {
	s := newAlertStore()
	err := (&Webhook{URL: "http://example.org/", Source: s}).Begin(t.Context())
	if err == nil || len(s.marks) > 0 {
		t.Errorf("began: %v, marks %v", err, s.marks)
	}
}

func TestWebhookKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "webhook.key")
	if _, err := LoadWebhookKey(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("loading none: %v", err)
	}
	made, err := OpenWebhookKey(path)
	must(t, err)
	text, err := os.ReadFile(path)
	must(t, err)
	if want := hex.EncodeToString(made) + "\n"; len(made) != 32 || string(text) != want {
		t.Errorf("a key of %d octets, in a file of %d", len(made), len(text))
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	again, err := OpenWebhookKey(path)
	if err != nil || !slices.Equal(again, made) {
		t.Errorf("opened again, it is another: %v", err)
	}
	other, err := OpenWebhookKey(path + "2")
	if err != nil || slices.Equal(other, made) {
		t.Errorf("two that are equal: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || left != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if shown := fmt.Sprintf("%v %s %x %q %+v", made, made, made, made, struct{ K WebhookKey }{made}); shown != "*** *** *** *** {K:***}" {
		t.Error("it doesn't print as stars")
	}
	if _, err := json.Marshal(made); err == nil {
		t.Error("it was marshalled")
	}
}

func TestWebhookKeyFilesThatAreNone(t *testing.T) {
	good := strings.Repeat("5a", 32)
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"open to a group":  {good, 0o640, "chmod 600"},
		"open to all":      {good, 0o604, "chmod 600"},
		"too short":        {good[2:], 0o600, "64 hexadecimal digits"},
		"too long":         {good + "5a", 0o600, "64 hexadecimal digits"},
		"another alphabet": {"zz" + good[2:], 0o600, "64 hexadecimal digits"},
		"empty":            {"", 0o600, "64 hexadecimal digits"},
	} {
		path := filepath.Join(t.TempDir(), "webhook.key")
		must(t, os.WriteFile(path, []byte(test.text), test.mode))
		must(t, os.Chmod(path, test.mode))
		key, err := OpenWebhookKey(path)
		if err == nil || key != nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "5a5a") {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != test.text {
			t.Errorf("%s: the file was changed: %v", name, err)
		}
	}
	if _, err := OpenWebhookKey(t.TempDir()); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := OpenWebhookKey(filepath.Join(t.TempDir(), "none", "webhook.key")); err == nil || !strings.Contains(err.Error(), "in a folder where we may write") {
		t.Errorf("in a folder that isn't there: %v", err)
	}
}
