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
	maxPage    = 1000    // accounts in one answer
	maxEvents  = 100_000 // events in one answer
)

// Server answers administrators.
type Server struct {
	Directory *auth.Directory
	Audit     audit.Sink // takes an event for each change
	Events    Events
	Sessions  Sessions // nil: there are none
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

// Serve answers on l until ctx is done, then lets requests in flight end for
// five seconds, and returns nil. It closes l, which Listen made.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler(),
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(s.Log),
	}
	ctx, cancel := context.WithCancel(ctx)
	down := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		down <- server.Shutdown(grace)
	}()
	err := server.Serve(l)
	cancel()
	shutdown := <-down
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: serving: %w", err)
	}
	if shutdown != nil {
		return fmt.Errorf("admin: ending: %w", shutdown)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	s.handleAccounts(mux)
	s.handleAppPasswords(mux)
	s.handleGrants(mux)
	s.handleEvents(mux)
	mux.HandleFunc("POST /session/list", s.answer(func(_ context.Context, _ *auth.Directory, q request) (any, error) {
		return s.listSessions(q)
	}))
	mux.HandleFunc("POST /session/kill", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return s.killSessions(ctx, q)
	}))
	mux.HandleFunc("POST /explain", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return s.Explain(ctx, q.Account, q.Source)
	}))
	mux.HandleFunc("POST /key/rotate", unhurried(s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		rotation, err := s.Rotate(ctx)
		if lost := Record(ctx, s.Audit, q.by, audit.Event{Kind: "key.rotate"}, err); err == nil {
			err = lost
		}
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

func (s *Server) handleEvents(mux *http.ServeMux) {
	mux.HandleFunc("POST /events", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		q.Events.Limit = min(q.Events.Limit, maxEvents)
		return s.Events.Events(ctx, q.Events)
	}))
	mux.HandleFunc("POST /ways", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		ways, err := s.Events.Ways(ctx, q.Since, q.After, min(q.Limit, maxPage))
		named := make([]way, len(ways))
		for i, w := range ways {
			named[i] = way{w.Account, w}
		}
		return named, err
	}))
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

	by string // who asks, as an event says it
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
		q.by = fmt.Sprintf("uid %d by admin socket", uid)
		var lost error
		directory := Signed(s.Directory, s.Audit, q.by, func(err error) { lost = err })
		a, err := do(r.Context(), directory, q)
		if err == nil {
			err = lost
		}
		refusal, refused := errors.AsType[*auth.Refusal](err)
		switch {
		case refused:
			write(w, http.StatusConflict, problem{Refused: refusal.Reason, Message: refusal.Message})
		case err != nil:
			s.Log.Error("an administrator's request failed", zap.String("path", r.URL.Path), zap.Uint32("uid", uid), zap.Error(err))
			write(w, http.StatusInternalServerError, problem{Message: err.Error()})
		default:
			write(w, http.StatusOK, a)
		}
	}
}

// unhurried takes the deadlines away: sealing anew what many accounts have takes its time.
// It ends with the server, or when the client goes.
func unhurried(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn := http.NewResponseController(w)
		if err := errors.Join(conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{})); err != nil {
			write(w, http.StatusInternalServerError, problem{Message: "admin: taking the deadlines away: " + err.Error()})
			return
		}
		h(w, r)
	}
}

// write sends a body. A client that is gone by now has no use for the error.
func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
