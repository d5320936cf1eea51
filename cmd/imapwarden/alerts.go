package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"imapwarden/audit"
	"imapwarden/configs"
	"imapwarden/metrics"
	"imapwarden/policy"
)

const (
	alertEvery = 10 * time.Minute // one alert of each kind, account and network
	maxRecent  = 1000             // that are told apart; a flood beyond it is told apart by signal only
	alertWait  = 5 * time.Second  // while the audit's queue is full

	rightPassword = "right-password" // the reason of alerts that tell of one
)

// alerts is where the policy's alerts go: to the audit, the log, the metrics, and by way of the
// audit to the webhook.
type alerts struct {
	recorder *audit.Recorder
	webhook  *audit.Webhook // nil: off
	metrics  *metrics.Metrics
	log      *zap.Logger

	right, others recent // apart: a stranger's flood must not hide that a password was right
}

// openAlerts prepares the webhook, where there is one, up to where its alerts begin. The recorder
// is then made of sink.
func openAlerts(ctx context.Context, config *configs.Config, source audit.Source, m *metrics.Metrics, log *zap.Logger) (*alerts, error) {
	m.KnowAlerts(policy.Signals()...)
	a := &alerts{metrics: m, log: log}
	if config.Alerts.Webhook == "" {
		return a, audit.ForgetWebhook(ctx, source)
	}
	key, err := audit.OpenWebhookKey(config.Alerts.KeyFile)
	if err != nil {
		return nil, err
	}
	a.webhook = &audit.Webhook{URL: config.Alerts.Webhook, Key: key, Hostname: config.Hostname, Source: source, Log: log}
	if err := a.webhook.Begin(ctx); err != nil {
		return nil, err
	}
	m.WatchWebhook(func() float64 { return float64(a.webhook.Waiting()) }, func() float64 { return float64(a.webhook.Failures()) })
	return a, nil
}

// sink is where the recorder keeps events.
func (a *alerts) sink(store audit.Sink) audit.Sink {
	if a.webhook == nil {
		return store
	}
	return a.webhook.Announce(store)
}

// run posts alerts until ctx ends.
func (a *alerts) run(ctx context.Context) error {
	if a.webhook == nil {
		return nil
	}
	return a.webhook.Run(ctx)
}

// raise is the Gate's Alert. What can be repeated at will is recorded once in ten minutes.
func (a *alerts) raise(raised policy.Alert) {
	a.metrics.Alerted(raised.Signal)
	now, kinds := time.Now(), &a.others
	if raised.Right {
		kinds = &a.right
	}
	left, first := kinds.admit(raised, now)
	if !first {
		return
	}
	e := alertEvent(raised, now)
	if left > 0 {
		e.Detail += fmt.Sprintf("; %d more like it before", left)
	}
	a.log.Warn("alert", zap.String("signal", e.Rule), zap.String("account", e.Account), zap.String("source", e.Source),
		zap.String("reason", e.Reason), zap.String("detail", e.Detail))
	ctx, cancel := context.WithTimeout(context.Background(), alertWait)
	defer cancel()
	a.recorder.Record(ctx, e) // where it can't, the event is in the log
}

func alertEvent(raised policy.Alert, at time.Time) audit.Event {
	e := audit.Event{
		Time: at, Kind: audit.Alert, Outcome: audit.Refused,
		Account: raised.Account, Rule: raised.Signal, Detail: raised.Detail,
	}
	if raised.Right {
		e.Reason = rightPassword
	}
	if raised.Source.IsValid() {
		e.Source = raised.Source.Unmap().String()
	}
	if network := raised.Network.String(); raised.Network.IsValid() && !strings.Contains(e.Detail, network) {
		e.Detail += " (" + network + ")"
	}
	return e
}

// recent knows which alerts were recorded in the last ten minutes.
type recent struct {
	mu    sync.Mutex
	kinds map[alertKind]*recently
}

// An alertKind is what makes an alert like another: its signal, account and network.
type alertKind struct{ signal, account, network string }

type recently struct {
	until time.Time
	left  int // out, since
}

// admit says whether the alert is the first of its kind in ten minutes, and how many before it
// were left out.
func (r *recent) admit(raised policy.Alert, now time.Time) (left int, first bool) {
	kind := alertKind{raised.Signal, raised.Account, ""}
	if raised.Network.IsValid() {
		kind.network = raised.Network.String()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[kind]
	if k == nil && len(r.kinds) >= maxRecent {
		r.forget(now)
		if len(r.kinds) >= maxRecent {
			kind.account, kind.network = "", ""
			k = r.kinds[kind]
		}
	}
	if k != nil && now.Before(k.until) {
		k.left++
		return 0, false
	}
	if k != nil {
		left = k.left
	}
	if r.kinds == nil {
		r.kinds = make(map[alertKind]*recently)
	}
	r.kinds[kind] = &recently{until: now.Add(alertEvery)}
	return left, true
}

// forget makes room: what was left out of a kind counts on in the metric only.
func (r *recent) forget(now time.Time) {
	for kind, k := range r.kinds {
		if !now.Before(k.until) {
			delete(r.kinds, kind)
		}
	}
}

func alertsCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "alerts",
		Short: "See whether alerts reach those who should hear of them",
	})
	cmd.AddCommand(alertsTestCommand(o))
	return cmd
}

func alertsTestCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: "Send a test alert to the webhook, and say what the receiver answers",
		Long: `Send a test alert to the webhook (alerts.webhook), signed as all are, and say what the receiver
answers. It doesn't stand in the audit. Its rule is "test", and its Imapwarden-Id 0.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, _, err := o.load("hostname", "alerts")
			if err != nil {
				return err
			}
			return o.testAlert(cmd.Context(), config)
		},
	}
}

func (o *options) testAlert(ctx context.Context, config *configs.Config) error {
	if config.Alerts.Webhook == "" {
		return misuse{fmt.Errorf("%s has no alerts.webhook", o.config)}
	}
	// No key is made here: it would belong to who runs this, and the server couldn't read it.
	key, err := audit.LoadWebhookKey(config.Alerts.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; the server makes it when it starts with a webhook", err)
	}
	if err != nil {
		return err
	}
	h := &audit.Webhook{URL: config.Alerts.Webhook, Key: key, Hostname: config.Hostname}
	answer, err := h.Deliver(ctx, audit.Event{
		Time: time.Now().UTC().Truncate(time.Microsecond), Kind: audit.Alert, Outcome: audit.Refused, Rule: "test",
		Detail: "a test, nothing has happened: imapwarden alerts test",
	})
	if err != nil {
		return err
	}
	return o.printAnswer(config.Alerts.Webhook, answer)
}

func (o *options) printAnswer(webhook string, answer audit.Answer) error {
	host := ""
	if u, err := url.Parse(webhook); err == nil {
		host = u.Host // the rest may hold a token
	}
	var err error
	if o.json {
		err = o.print(struct {
			Receiver string `json:"receiver"`
			Status   int    `json:"status"`
			Taken    bool   `json:"taken"`
			Answer   string `json:"answer,omitempty"`
		}{host, answer.Code, answer.Taken(), answer.Text})
	} else {
		verdict := "it has taken the test alert"
		if !answer.Taken() {
			verdict = "it hasn't taken the test alert"
		}
		_, err = fmt.Fprintf(o.stdout, "%s answers %d: %s.\n", host, answer.Code, verdict)
		if text := strings.TrimSpace(answer.Text); text != "" && err == nil {
			_, err = fmt.Fprintf(o.stdout, "It says: %s\n", printable(text))
		}
	}
	if err == nil && !answer.Taken() {
		return errShown
	}
	return err
}
