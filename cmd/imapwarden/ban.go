package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/admin"
	"imapwarden/configs"
	"imapwarden/policy"
)

// bans are those of a running server, at the other end of the admin socket (admin.Client), or of
// the store that we opened (admin.SignedBans).
type bans interface {
	Bans(ctx context.Context) ([]admin.Ban, error)
	Ban(ctx context.Context, network netip.Prefix, length time.Duration, reason string) (admin.Ban, error)
	Unban(ctx context.Context, network netip.Prefix) error
}

func banCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "ban",
		Short: "See which networks are kept out for a while, keep one out, let one in again",
	})
	cmd.AddCommand(banListCommand(o), banAddCommand(o), banRemoveCommand(o))
	return cmd
}

func banListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the networks that are banned, and why",
		Args:  takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			list, err := r.bans.Bans(ctx)
			if err != nil {
				return err
			}
			table := o.columns()
			if !o.json {
				fmt.Fprintln(table, "NETWORK\tWHY\tSINCE\tUNTIL\tTIMES")
			}
			for _, b := range list {
				if o.json {
					if err := o.print(b); err != nil {
						return err
					}
					continue
				}
				line(table, b.Network.String(), banWhy(b), clock(b.Since), clock(b.Until), strconv.Itoa(b.Times))
			}
			return table.Flush()
		}),
	}
}

// banReasons are signalTexts for where the network stands beside them.
var banReasons = map[string]string{
	policy.NetworkAccounts: "too many accounts failed",
	policy.NetworkUnknown:  "too many accounts that nobody knows",
	policy.DecoyAccount:    "a decoy was tried",
	policy.ByHand:          "by hand",
}

// banWhy says why there is a ban. The detail of one that we made only says its signal in other words.
func banWhy(b admin.Ban) string {
	why := cmp.Or(banReasons[b.Signal], b.Signal)
	if b.Signal == policy.ByHand && b.Detail != "" {
		why += ": " + b.Detail
	}
	return why
}

func banAddCommand(o *options) *cobra.Command {
	var length, reason string
	cmd := &cobra.Command{
		Use:   "add NETWORK|ADDRESS",
		Short: "Keep a network or an address out for a while",
		Long: `Keep a network or an address out for a while: every sign-in from there is refused, and the
upstream isn't asked. That is so also for accounts that sign in from there every day, which bans
that imapwarden makes by itself don't touch. Sessions that are logged in go on; to end them, see:
imapwarden session kill.

A network that is banned already is banned anew, and the ban that it had is named. Where the
network holds hosts of your own that the configuration names, a warning says so. A ban lasts 90 days at most; what is to stay
out for good is for a rule with action = "deny".`,
		Args: takes("NETWORK|ADDRESS"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			whom, err := banNetwork(args[0])
			if err != nil {
				return err
			}
			d, err := configs.ParseDuration(length)
			if err != nil {
				return misuse{fmt.Errorf("--for %q: write how long, like \"24h\", \"7d\" or \"1d12h\"", length)}
			}
			before, err := r.bans.Bans(ctx)
			if err != nil {
				return err
			}
			var made madeBan
			if made.Ban, err = r.bans.Ban(ctx, whom, d.D(), reason); err != nil {
				return err
			}
			if i := slices.IndexFunc(before, func(b admin.Ban) bool { return b.Network == made.Network }); i >= 0 {
				made.Instead = &before[i]
			}
			for _, own := range ownIn(r.config, made.Network) {
				fmt.Fprintf(o.stderr, "imapwarden: warning: %s holds %s; to let it in again, run: imapwarden ban remove %s\n", made.Network, own, made.Network)
			}
			if o.json {
				return o.print(made)
			}
			instead := ""
			if b := made.Instead; b != nil {
				instead = fmt.Sprintf("instead of: until %s, %s\n", clock(b.Until), printable(banWhy(*b)))
			}
			_, err = fmt.Fprintf(o.stdout, "%s: banned until %s\n%s%s", made.Network, clock(made.Until), instead, r.unheard())
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&length, "for", "24h", "for this `duration`, as in 90m or 7d")
	flags.StringVar(&reason, "reason", "", "why, for those who read the list or the audit")
	return cmd
}

// A madeBan is a ban with the one whose place it took.
type madeBan struct {
	admin.Ban
	Instead *admin.Ban `json:"instead,omitempty"`
}

// ownIn names the hosts of ours that are in the network, as the configuration has them.
func ownIn(config *configs.Config, network netip.Prefix) (own []string) {
	look := func(list []netip.Prefix, what string) {
		for _, p := range list {
			if p.Overlaps(network) {
				own = append(own, fmt.Sprintf("%s of %s", p, what))
			}
		}
	}
	for _, l := range config.Listeners {
		look(l.TrustedProxies, "the trusted_proxies of listener "+l.Address)
	}
	look(config.Limits.Trusted, "limits.trusted")
	look(config.Limits.Webmail, "limits.webmail")
	return own
}

func banRemoveCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NETWORK|ADDRESS",
		Short: "Let a network in again",
		Long: `Let a network in again that is banned, whoever banned it, and forget that it was. It is to be
named as it is listed: a part of it can't be let in alone.`,
		Args: takes("NETWORK|ADDRESS"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			whom, err := banNetwork(args[0])
			if err != nil {
				return err
			}
			if err := r.bans.Unban(ctx, whom); err != nil {
				return err
			}
			if o.json {
				return o.print(struct {
					Network netip.Prefix `json:"network"`
					Done    string       `json:"done"`
				}{whom, "removed"})
			}
			_, err = fmt.Fprintf(o.stdout, "%s: not banned any more\n%s", whom, r.unheard())
			return err
		}),
	}
}

func banNetwork(text string) (netip.Prefix, error) {
	n, err := network(text)
	if err != nil {
		return n, misuse{fmt.Errorf("%q is neither an address nor a network, as in 203.0.113.0/24", text)}
	}
	return policy.BanNetwork(n), nil
}

// unheard says, as a line, what a server doesn't know yet that reads bans only when it starts.
func (r *records) unheard() string {
	switch {
	case r.served:
		return ""
	case r.config.Admin.Socket == "":
		return "Where a server runs, it goes by that only from its next start: it can't be told, for admin.socket is empty.\n"
	}
	return "No server runs here; the next one goes by that.\n"
}
