package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/policy"
)

const maxBanReason = 200 // characters

// Bans are those of the server that is asked (*policy.Gate), or of the store where none
// runs (policy.Book).
type Bans interface {
	// Bans returns the bans in force, by network.
	Bans(ctx context.Context) ([]policy.Ban, error)
	// Ban bans a network, in place of the ban that it may have; durable once it returns nil.
	Ban(ctx context.Context, ban policy.Ban) error
	// Unban ends the ban of a network, and says whether there was one in force; durable
	// once it returns nil.
	Unban(ctx context.Context, network netip.Prefix) (known bool, err error)
}

// A Ban is a policy.Ban with the names that it has in JSON.
type Ban struct {
	Network netip.Prefix `json:"network"`
	Signal  string       `json:"signal"`
	Since   time.Time    `json:"since"`
	Until   time.Time    `json:"until"`
	Times   int          `json:"times"` // the how manieth in a row it is, from 1
	Detail  string       `json:"detail"`
}

// SignedBans are bans as one administrator uses them. Make them with SignBans.
type SignedBans struct {
	bans Bans
	sink audit.Sink
	by   string
	lost func(error)
}

// SignBans returns the bans as one administrator uses them: each change, done or not, leaves an
// event that says by whom. As with Signed, lost is told where it can't be written.
func SignBans(bans Bans, sink audit.Sink, by string, lost func(error)) *SignedBans {
	if bans == nil {
		bans = noBans{}
	}
	return &SignedBans{bans, sink, by, lost}
}

// Bans returns the bans in force, by network: as many as policy keeps, which is 100,000.
func (s *SignedBans) Bans(ctx context.Context) ([]Ban, error) {
	inForce, err := s.bans.Bans(ctx)
	list := make([]Ban, len(inForce)) // none is [] in JSON, not null
	for i, ban := range inForce {
		list[i] = Ban(ban)
	}
	return list, err
}

// Ban bans a network from now on, in place of the ban that it may have. It is refused as
// policy.NewBan refuses it, and for a reason that can't be shown on a line; "" is none.
func (s *SignedBans) Ban(ctx context.Context, network netip.Prefix, length time.Duration, reason string) (Ban, error) {
	ban, err := s.ban(ctx, network, length, reason)
	what := policy.BanNetwork(network).String() // which may be all that is known
	if err == nil {
		what = fmt.Sprintf("%s until %s", ban.Network, ban.Until.Format(time.RFC3339))
	}
	if err == nil && reason != "" {
		what += ": " + reason
	}
	s.record(ctx, "ban.add", what, err)
	return Ban(ban), err
}

func (s *SignedBans) ban(ctx context.Context, network netip.Prefix, length time.Duration, reason string) (policy.Ban, error) {
	if !goodBanReason(reason) {
		return policy.Ban{}, refuse(auth.BadValue, fmt.Sprintf("the reason must have printable characters only, %d at most", maxBanReason))
	}
	by := s.by
	if reason != "" {
		by += ": " + reason
	}
	ban, err := policy.NewBan(network, length, by, time.Now())
	if bad, ok := errors.AsType[*policy.BadBan](err); ok {
		return policy.Ban{}, refuse(auth.BadValue, bad.Message)
	}
	if err == nil {
		err = s.bans.Ban(ctx, ban)
	}
	if err != nil {
		return policy.Ban{}, err
	}
	return ban, nil
}

func goodBanReason(reason string) bool {
	return utf8.ValidString(reason) && utf8.RuneCountInString(reason) <= maxBanReason &&
		!strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Unban ends the ban of a network. Where it has none, the refusal names the banned networks
// that it lies in.
func (s *SignedBans) Unban(ctx context.Context, network netip.Prefix) error {
	network = policy.BanNetwork(network)
	err := s.unban(ctx, network)
	s.record(ctx, "ban.remove", network.String(), err)
	return err
}

func (s *SignedBans) unban(ctx context.Context, network netip.Prefix) error {
	if !network.IsValid() {
		return refuse(auth.BadValue, "there is no such network: write an address and its prefix, such as 203.0.113.0/24")
	}
	known, err := s.bans.Unban(ctx, network)
	if err != nil || known {
		return err
	}
	inForce, err := s.bans.Bans(ctx)
	if err != nil {
		return err
	}
	var around []string
	for _, ban := range inForce {
		if ban.Network.Bits() < network.Bits() && ban.Network.Contains(network.Addr()) {
			around = append(around, "imapwarden ban remove "+ban.Network.String())
		}
	}
	if len(around) == 0 {
		return refuse(auth.NotFound, fmt.Sprintf("%s is not banned; to see what is, run: imapwarden ban list", network))
	}
	return refuse(auth.NotFound, fmt.Sprintf("%s has no ban of its own, but lies in what is banned; to let in all of that, run: %s",
		network, strings.Join(around, "; ")))
}

// record leaves the event of a change. Its detail says what was changed, too: an event has no
// place for a network.
func (s *SignedBans) record(ctx context.Context, kind, what string, err error) {
	if err := Record(ctx, s.sink, s.by+": "+what, audit.Event{Kind: kind}, err); err != nil {
		s.lost(err)
	}
}

// noBans are those of a Server that has none.
type noBans struct{}

var errNoBans = errors.New("admin: this server keeps no bans")

func (noBans) Bans(context.Context) ([]policy.Ban, error)                  { return nil, errNoBans }
func (noBans) Ban(context.Context, policy.Ban) error                       { return errNoBans }
func (noBans) Unban(context.Context, netip.Prefix) (known bool, err error) { return false, errNoBans }

func (s *Server) handleBans(mux *http.ServeMux) {
	mux.HandleFunc("POST /ban/list", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return q.bans.Bans(ctx)
	}))
	mux.HandleFunc("POST /ban/add", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return q.bans.Ban(ctx, q.Network, q.Length, q.Reason)
	}))
	mux.HandleFunc("POST /ban/remove", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		return nil, q.bans.Unban(ctx, q.Network)
	}))
}

// Bans returns the bans in force, by network.
func (c *Client) Bans(ctx context.Context) (list []Ban, err error) {
	err = c.ask(ctx, "/ban/list", request{}, &list)
	return list, err
}

// Ban bans a network from now on, in place of the ban that it may have; a reason of "" is none.
func (c *Client) Ban(ctx context.Context, network netip.Prefix, length time.Duration, reason string) (ban Ban, err error) {
	err = c.ask(ctx, "/ban/add", request{Network: network, Length: length, Reason: reason}, &ban)
	return ban, err
}

// Unban ends the ban of a network.
func (c *Client) Unban(ctx context.Context, network netip.Prefix) error {
	return c.ask(ctx, "/ban/remove", request{Network: network}, nil)
}
