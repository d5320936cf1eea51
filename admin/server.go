package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"imapwarden/audit"
	"imapwarden/auth"
)

// The bounds of one request and one answer.
const (
	maxRequest = 64 << 10
	maxPage    = 1000 // accounts in one answer
)

// MaxEvents is how many events one answer has at most.
const MaxEvents = 10_000

// grace is how long requests in flight may go on when the server ends.
const grace = 5 * time.Second

// Server answers administrators.
type Server struct {
	Directory *auth.Directory
	Audit     audit.Sink // takes an event for each change; an audit.Recorder also logs those that can't be stored
	Events    Events
	Sessions  Sessions // nil: there are none
	Bans      Bans     // nil: it keeps none
	// Certificates are what clients are shown; nil: it doesn't tell.
	Certificates Certificates
	// Explain says what would come of a login to the account, named as people type it.
	Explain func(ctx context.Context, account string, source netip.Addr) (Explanation, error)
	// Rotate makes a new key and seals all with it.
	Rotate func(ctx context.Context) (auth.Rotation, error)
	Log    *zap.Logger
}

// Events is where the audit can be read.
type Events interface {
	// Events returns the events that the filter chooses, oldest first.
	Events(ctx context.Context, f audit.Filter) ([]audit.Event, error)
	// Ways returns how accounts signed in since then: one row for each account, factor and program,
	// ordered by these, for at most limit accounts whose names come after the given one.
	Ways(ctx context.Context, since time.Time, after string, limit int) ([]audit.Way, error)
	// Mark returns the value under name, or "" where there is none. A Server asks for audit.ChainMark alone.
	Mark(ctx context.Context, name string) (string, error)
}

// Serve answers on l until ctx is done, then lets requests in flight end for five
// seconds, has the others give up, and returns nil once they have: their events are
// recorded by then. What takes its time gives up at once. Serve closes l, which Listen made.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	requests, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	server := &http.Server{
		Handler:           s.handler(ctx),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(s.Log),
	}
	down := make(chan error, 1)
	go func() {
		<-ctx.Done()
		down <- shutdown(server, giveUp)
	}()
	err := server.Serve(l)
	cancel()
	ending := <-down
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: serving: %w", err)
	}
	if ending != nil {
		return fmt.Errorf("admin: ending: %w", ending)
	}
	return nil
}

// shutdown waits for the requests in flight, has those that are left give up, and waits
// for them, too: Shutdown alone doesn't end their contexts.
func shutdown(server *http.Server, giveUp func()) error {
	wait := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		return server.Shutdown(ctx)
	}
	if wait() == nil {
		return nil
	}
	giveUp()
	return wait()
}

// handler answers until serving is done, as far as that takes its time.
func (s *Server) handler(serving context.Context) http.Handler {
	mux := http.NewServeMux()
	s.handleAccounts(mux)
	s.handleAppPasswords(mux)
	s.handleGrants(mux)
	s.handleBans(mux)
	s.handleCertificates(serving, mux)
	s.handleEvents(serving, mux)
	mux.HandleFunc("POST /session/list", s.answer(func(_ context.Context, _ *auth.Directory, q request) (any, error) {
		return s.listSessions(q)
	}))
	mux.HandleFunc("POST /session/kill", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return s.killSessions(ctx, q)
	}))
	mux.HandleFunc("POST /explain", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return s.Explain(ctx, q.Account, q.Source)
	}))
	mux.HandleFunc("POST /key/rotate", unhurried(serving, s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		rotation, err := s.Rotate(ctx)
		q.record(ctx, audit.Event{Kind: "key.rotate"}, err)
		return rotation, err
	})))
	return mux
}

func (s *Server) handleAccounts(mux *http.ServeMux) {
	mux.HandleFunc("POST /account/list", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.List(ctx, q.After, min(q.Limit, maxPage))
	}))
	mux.HandleFunc("POST /account/show", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.Show(ctx, q.Account)
	}))
	mux.HandleFunc("POST /account/enroll", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.Enroll(ctx, q.Account, q.Confirmed)
	}))
	mux.HandleFunc("POST /account/confirm", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return nil, d.Confirm(ctx, q.Account, q.Code)
	}))
	mux.HandleFunc("POST /account/recovery", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.RenewRecovery(ctx, q.Account)
	}))
	mux.HandleFunc("POST /account/reset", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return nil, d.Reset(ctx, q.Account)
	}))
	mux.HandleFunc("POST /account/remove", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return nil, d.Remove(ctx, q.Account)
	}))
}

func (s *Server) handleAppPasswords(mux *http.ServeMux) {
	mux.HandleFunc("POST /app-password/create", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		password := auth.Secret(q.Password)
		defer password.Wipe()
		return d.CreateAppPassword(ctx, auth.NewAppPassword{
			Account: q.Account, Label: q.Label, Expires: q.Expires, Networks: q.Networks, ReadOnly: q.ReadOnly, Password: password,
		})
	}))
	mux.HandleFunc("POST /app-password/list", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.AppPasswords(ctx, q.Account)
	}))
	mux.HandleFunc("POST /app-password/revoke", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		switch {
		case q.All == (len(q.IDs) == 1):
			return nil, refuse(auth.BadValue, "either one app password is to be named or all are meant")
		case q.All:
			return d.RevokeAppPasswords(ctx, q.Account)
		}
		return 1, d.RevokeAppPassword(ctx, q.Account, q.IDs[0])
	}))
}

func (s *Server) handleGrants(mux *http.ServeMux) {
	mux.HandleFunc("POST /grant/list", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.Grants(ctx, q.Account)
	}))
	mux.HandleFunc("POST /grant/revoke", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		// To the directory, none named is all: that must not come of a field that is missing.
		if q.All == (len(q.IDs) > 0) {
			return nil, refuse(auth.BadValue, "either grants are to be named or all are meant")
		}
		return d.RevokeGrants(ctx, q.Account, q.IDs...)
	}))
}

func (s *Server) handleEvents(serving context.Context, mux *http.ServeMux) {
	mux.HandleFunc("POST /events", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		if q.Events.Limit > MaxEvents { // fewer would look like all that there are
			return nil, refuse(auth.BadValue, fmt.Sprintf("one answer has at most %d events: ask for them in parts", MaxEvents))
		}
		return s.Events.Events(ctx, q.Events)
	}))
	mux.HandleFunc("POST /ways", unhurried(serving, s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		ways, err := s.Events.Ways(ctx, q.Since, q.After, min(q.Limit, maxPage))
		named := make([]way, len(ways))
		for i, w := range ways {
			named[i] = way{w.Account, w}
		}
		return named, err
	})))
	mux.HandleFunc("POST /mark", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		if q.Mark != audit.ChainMark { // others hold what is sealed
			return nil, refuse(auth.BadValue, "of the store's marks, that of the audit's chain alone is shown")
		}
		return s.Events.Mark(ctx, q.Mark)
	}))
}

// A request is the body of every request; each path reads its own fields.
type request struct {
	Account   string         `json:"account,omitempty"`
	Code      string         `json:"code,omitempty"`
	Confirmed bool           `json:"confirmed,omitempty"`
	After     string         `json:"after,omitempty"` // lists: names after this one
	Limit     int            `json:"limit,omitempty"`
	Label     string         `json:"label,omitempty"`
	Expires   time.Time      `json:"expires,omitzero"`
	Networks  []netip.Prefix `json:"networks,omitempty"`
	ReadOnly  bool           `json:"read_only,omitempty"`
	Password  []byte         `json:"password,omitempty"` // so that it can be wiped
	IDs       []string       `json:"ids,omitempty"`
	All       bool           `json:"all,omitempty"` // in place of IDs
	Session   string         `json:"session,omitempty"`
	Source    netip.Addr     `json:"source,omitzero"`
	Since     time.Time      `json:"since,omitzero"`
	Mark      string         `json:"mark,omitempty"`
	Events    audit.Filter   `json:"events,omitzero"`
	Network   netip.Prefix   `json:"network,omitzero"`
	Length    time.Duration  `json:"length,omitempty"` // nanoseconds
	Reason    string         `json:"reason,omitempty"`
	Name      string         `json:"name,omitempty"` // of a host

	bans   *SignedBans                                             // signed by who asks
	record func(ctx context.Context, event audit.Event, err error) // as Record, signed by who asks, the event's Detail behind that
}

// A way is an audit.Way with its account, which in a report stands elsewhere.
type way struct {
	Account string `json:"account"`
	audit.Way
}

// A problem is the body of every answer that is no success. Where Refused is
// set, the answer is an expected no; without it, we could not tell.
type problem struct {
	Refused auth.Reason `json:"refused,omitempty"`
	Message string      `json:"message"`
}

// answer makes a handler of what one path does: who asks, what they ask, and
// how it ended, which is a success, a refusal or a failure.
func (s *Server) answer(do func(context.Context, *auth.Directory, request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		uid, ok := entitled(r.Context())
		if !ok {
			write(w, http.StatusForbidden, problem{Message: "admin: only root and the server's own user may administer"})
			return
		}
		var q request
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		body.DisallowUnknownFields()
		if err := body.Decode(&q); err != nil {
			// The error may quote the body, and so a code.
			write(w, http.StatusBadRequest, problem{Message: "admin: the request can't be read: are command and server of the same version?"})
			return
		}
		by := fmt.Sprintf("uid %d by admin socket", uid)
		var lost error
		lose := func(err error) { lost = errors.Join(lost, err) }
		q.bans = SignBans(s.Bans, s.Audit, by, lose)
		q.record = func(ctx context.Context, event audit.Event, err error) {
			signed := by
			if event.Detail != "" {
				signed += ": " + event.Detail
			}
			if err := Record(ctx, s.Audit, signed, event, err); err != nil {
				lose(err)
			}
		}
		a, err := do(r.Context(), Signed(s.Directory, s.Audit, by, lose), q)
		refusal, refused := errors.AsType[*auth.Refusal](err)
		err = errors.Join(err, lost)
		if err != nil && !refused || lost != nil {
			s.Log.Error("an administrator's request failed", zap.String("path", r.URL.Path), zap.Uint32("uid", uid), zap.Error(err))
		}
		switch {
		case refused:
			write(w, http.StatusConflict, problem{Refused: refusal.Reason, Message: refusal.Message})
		case err != nil:
			write(w, http.StatusInternalServerError, problem{Message: err.Error()})
		default:
			write(w, http.StatusOK, a)
		}
	}
}

// unhurried takes the deadlines away: sealing anew what many accounts have takes its time, and
// so does reading how all of them signed in. It ends at once when serving is done, or when the
// client goes. That it is at work the client learns at once (102 Processing: RFC 2518, section 10.1).
func unhurried(serving context.Context, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn := http.NewResponseController(w)
		if err := errors.Join(conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{})); err != nil {
			write(w, http.StatusInternalServerError, problem{Message: "admin: taking the deadlines away: " + err.Error()})
			return
		}
		if r.ProtoAtLeast(1, 1) {
			w.WriteHeader(http.StatusProcessing)
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		stop := context.AfterFunc(serving, cancel)
		defer stop()
		h(w, r.WithContext(ctx))
	}
}

// write sends a body. A client that is gone by now has no use for the error.
func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
