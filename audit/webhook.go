package audit

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Alert is the Kind of events that people should hear of at once. Its Rule is the signal.
const Alert = "alert"

// webhookMark is the mark in the store with the ID up to which alerts were posted.
const webhookMark = "alerts-webhook"

const (
	webhookPoll     = 30 * time.Second // for what other processes recorded
	shortestBackoff = time.Second
	longestBackoff  = 5 * time.Minute
	maxRefusals     = 5      // of one alert; then the next one's turn
	maxPending      = 1000   // alerts in memory; the others wait in the store
	markEvery       = 10_000 // events without an alert among them, until the mark follows
	markGrace       = time.Second * 5
)

// A Webhook posts every alert of the store to a receiver, signed, in order and one a request.
// It follows the store and not the Recorder: so alerts outlive a restart and a receiver that
// is away, and one that was posted may be posted again, but none is left out, but for those that
// the receiver refuses five times.
//
// Its fields are set before anything is called. Begin comes first, Run is called once.
type Webhook struct {
	URL       string // https, or http of this machine; may hold a secret, so only its host is logged
	Key       WebhookKey
	Hostname  string // who we are, to the receiver
	Source    Source
	Transport http.RoundTripper // nil: the network, by way of the proxy that the environment names
	Log       *zap.Logger

	wake     chan struct{} // an alert was stored
	pending  []Event       // alerts to post, the oldest first
	seen     int64         // up to here the store was searched for them
	place    int64         // up to here all are posted or given up
	marked   int64         // what the store's mark says
	refusals int           // of the first one that is pending
	backoff  time.Duration // before the try after the next
	next     time.Time     // no try before
	troubles []string      // causes that were logged since alerts were last waiting for nothing

	waiting, failures atomic.Int64
}

// Waiting returns how many alerts wait to be posted, as of the last look at the store, which is
// 30 seconds ago at most: 1,000 stands for these and more.
func (h *Webhook) Waiting() int64 { return h.waiting.Load() }

// Failures returns how many requests the receiver didn't take.
func (h *Webhook) Failures() int64 { return h.failures.Load() }

// Begin finds out where to go on. The very first time that is behind the newest event: nobody
// wants to be woken for history. It must return before alerts are recorded, so that none of these is history.
func (h *Webhook) Begin(ctx context.Context) error {
	if _, err := receiver(h.URL); err != nil {
		return err
	}
	h.wake = make(chan struct{}, 1)
	mark, err := h.Source.Mark(ctx, webhookMark)
	if err != nil {
		return fmt.Errorf("audit: reading the mark %s: %w", webhookMark, err)
	}
	if mark != "" {
		if h.place, err = strconv.ParseInt(mark, 10, 64); err != nil || h.place < 0 {
			return fmt.Errorf("audit: the mark %s of the store is %q, and no event's id", webhookMark, mark)
		}
		h.seen, h.marked = h.place, h.place
		return nil
	}
	newest, err := h.Source.Events(ctx, Filter{Limit: 1})
	if err != nil {
		return err
	}
	if len(newest) > 0 {
		h.seen, h.place = newest[0].ID, newest[0].ID
	}
	h.marked = -1 // also where there is no event, 0 is to be noted
	return h.mark(ctx)
}

// ForgetWebhook forgets which alerts were posted, for when there is no webhook: whoever sets one
// again gets the alerts from then on.
func ForgetWebhook(ctx context.Context, source Source) error {
	mark, err := source.Mark(ctx, webhookMark)
	if err != nil || mark == "" {
		return err
	}
	return source.SetMark(ctx, webhookMark, "")
}

// Announce returns a Sink that keeps events where sink does, and has Run look at once when an
// alert is among them.
func (h *Webhook) Announce(sink Sink) Sink { return announcer{sink, h} }

type announcer struct {
	Sink
	webhook *Webhook
}

func (a announcer) Append(ctx context.Context, events []Event) error {
	err := a.Sink.Append(ctx, events)
	if err == nil && slices.ContainsFunc(events, func(e Event) bool { return e.Kind == Alert }) {
		select {
		case a.webhook.wake <- struct{}{}:
		default: // it is going to look anyway
		}
	}
	return err
}

// Run posts alerts until ctx ends, and returns nil. One whose answer isn't there by then
// is posted again after the next start. What goes wrong is logged, once for each cause.
func (h *Webhook) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := h.pass(ctx)
		if err != nil && ctx.Err() == nil {
			h.trouble(err)
		}
		pause, wake := webhookPoll, h.wake
		if len(h.pending) > 0 {
			wake = nil // a new alert waits behind the others
			if err == nil {
				pause = min(pause, time.Until(h.next))
			}
		}
		select {
		case <-time.After(pause):
		case <-wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// pass posts what is in the store, until nothing is left or the next one has to wait. Its
// errors are the store's.
func (h *Webhook) pass(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := h.look(ctx); err != nil {
			return err
		}
		if len(h.pending) == 0 || time.Now().Before(h.next) {
			break
		}
		if !h.post(ctx, h.pending[0]) {
			continue
		}
		if err := h.mark(ctx); err != nil {
			return err
		}
	}
	if len(h.pending) == 0 {
		if h.seen-h.place >= markEvery {
			h.place = h.seen
		}
		h.settled()
	}
	return h.mark(ctx)
}

// look takes new alerts into memory, as far as there is room. It asks for the newest event
// first: behind it, no alert has been missed, and the next look need not go through the
// million of other events again.
func (h *Webhook) look(ctx context.Context) error {
	room := maxPending - len(h.pending)
	if room == 0 {
		return nil
	}
	newest, err := h.Source.Events(ctx, Filter{After: h.seen, Limit: 1})
	if err != nil || len(newest) == 0 {
		return err
	}
	alerts, err := h.Source.Events(ctx, Filter{After: h.seen, Kind: Alert, Oldest: true, Limit: room})
	if err != nil {
		return err
	}
	if len(alerts) < room {
		h.seen = newest[0].ID
	}
	if len(alerts) > 0 {
		h.seen = max(h.seen, alerts[len(alerts)-1].ID)
	}
	h.pending = append(h.pending, alerts...)
	h.waiting.Store(int64(len(h.pending)))
	return nil
}

// post posts the first pending alert, and says whether it is done with.
func (h *Webhook) post(ctx context.Context, e Event) (done bool) {
	answer, err := h.Deliver(ctx, e)
	switch {
	case err == nil && answer.Taken():
		h.finish(e)
		return true
	case ctx.Err() != nil:
		return false // it may have been taken: it is posted again after the next start
	}
	h.failures.Add(1)
	if err == nil {
		err = fmt.Errorf("audit: the receiver answered %d", answer.Code)
	}
	if answer.refused() {
		if h.refusals++; h.refusals == maxRefusals {
			h.Log.Error("alert given up: the webhook's receiver refuses it; it is in the audit",
				zap.String("receiver", h.host()), zap.Int("status", answer.Code), zap.Int64("event", e.ID), zap.String("signal", e.Rule))
			h.finish(e)
			return true
		}
	}
	h.trouble(err)
	h.retry()
	return false
}

// finish goes on to the next alert.
func (h *Webhook) finish(e Event) {
	h.pending = h.pending[1:]
	h.waiting.Store(int64(len(h.pending)))
	h.place, h.refusals, h.backoff, h.next = e.ID, 0, 0, time.Time{}
}

// retry puts off the next try, each time for twice as long.
func (h *Webhook) retry() {
	h.backoff = min(max(2*h.backoff, shortestBackoff), longestBackoff)
	h.next = time.Now().Add(h.backoff)
}

// mark notes in the store up to where alerts are posted; also when ctx has ended, for what was
// posted last.
func (h *Webhook) mark(ctx context.Context) error {
	if h.place == h.marked {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markGrace)
	defer cancel()
	if err := h.Source.SetMark(ctx, webhookMark, strconv.FormatInt(h.place, 10)); err != nil {
		return err
	}
	h.marked = h.place
	return nil
}

func (h *Webhook) trouble(err error) {
	if len(h.troubles) < maxTroubles && !slices.Contains(h.troubles, err.Error()) {
		h.troubles = append(h.troubles, err.Error())
		h.Log.Error("alerts don't reach the webhook, trying again", zap.String("receiver", h.host()), zap.Error(err))
	}
}

func (h *Webhook) settled() {
	if h.troubles != nil {
		h.troubles = nil
		h.Log.Info("no alert waits for the webhook any more", zap.String("receiver", h.host()))
	}
}

func (h *Webhook) host() string {
	u, err := receiver(h.URL)
	if err != nil {
		return ""
	}
	return u.Host
}
