package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/configs"
	"imapwarden/policy"
)

func explainCommand(o *options) *cobra.Command {
	var account, source string
	cmd := &cobra.Command{
		Use:   "explain --account ACCOUNT --source IP",
		Short: "Say what would come of a login, and why: rules, limits, second factor",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return fmt.Errorf("%q is too much", args[0])
			case account == "":
				return fmt.Errorf("--account is missing")
			case source == "":
				return fmt.Errorf("--source is missing")
			}
			return nil
		},
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			address, err := netip.ParseAddr(source)
			if err != nil {
				return misuse{fmt.Errorf("--source %q is no address, as in 203.0.113.7", source)}
			}
			if err := o.explainable(r.served); err != nil {
				return err
			}
			e, err := r.explain(ctx, account, policy.SourceOf(address).Addr)
			if err != nil {
				return err
			}
			if o.json {
				return o.print(e)
			}
			return writeExplanation(o.stdout, e)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&account, "account", "", "the `account` that is to be logged in to")
	flags.StringVar(&source, "source", "", "the `address` that the login comes from")
	return cmd
}

// explainable says on standard error what the explanation does without: a file of the rules that can't
// be read, or where a server runs, whatever has become of the configuration since it started. Without a
// server all else that is wrong there is an error.
func (o *options) explainable(served bool) error {
	_, problems := configs.Load(o.config)
	problems = slices.DeleteFunc(problems, func(p configs.Problem) bool {
		return p.Warning || !slices.Contains(append([]string{"rule", "geo"}, forUpstreams...), topKey(p.Key))
	})
	for _, p := range problems {
		fmt.Fprintln(o.stderr, p)
	}
	fatal := slices.ContainsFunc(problems, func(p configs.Problem) bool { return !ruleFile.MatchString(p.Key) })
	switch {
	case len(problems) == 0:
	case served:
		fmt.Fprintln(o.stderr, "imapwarden: the running server goes by what it has read before")
	case fatal:
		return misuse{fmt.Errorf("%s is not a configuration that can be used: see above", o.config)}
	default:
		fmt.Fprintln(o.stderr, "imapwarden: the server couldn't start so; this goes on without these files")
	}
	return nil
}

// ruleFile are the keys of the files that rules are read from.
var ruleFile = regexp.MustCompile(`^(rule\[\d+\]\.network_files\[\d+\]|geo\.(countries|owners))$`)

func topKey(key string) string {
	if i := strings.IndexAny(key, ".["); i >= 0 {
		return key[:i]
	}
	return key
}

// writeExplanation is for people: a paragraph each for rules, limits and the second factor.
func writeExplanation(w io.Writer, e admin.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s\n\n", e.Account, e.Source)
	fmt.Fprintf(&b, "%s\n", explainRule(e.Rule, e.Unread))
	fmt.Fprintf(&b, "%s\n\n", explainState(e.Login))
	explainLimits(&b, e)
	begin := "If the upstream finds the password right"
	if e.Rule.Denied || e.Limits != nil && !e.Limits.Decision.Allowed || len(e.Bans) > 0 {
		begin = "But for that, and if the upstream finds the password right"
	}
	fmt.Fprintf(&b, "\n%s:\n", begin)
	for _, p := range e.Login.Prospects {
		fmt.Fprintf(&b, "  - With %s: %s.\n", p.With, explainProspect(p))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func explainRule(r policy.Ruling, unread []string) string {
	if r.Rule == "" {
		return "No rule matches it."
	}
	rule := fmt.Sprintf("The rule %q matches it", r.Rule)
	if r.Denied && len(unread) > 0 {
		return fmt.Sprintf(`%s as far as can be told, and refuses every login because %s can't be read (geo.absent = "refuse").`, rule, strings.Join(unread, " and "))
	}
	if r.Denied {
		return rule + " and refuses every login."
	}
	var terms []string
	if r.SecondFactor != "" {
		terms = append(terms, fmt.Sprintf("the second factor is %q in place of mfa.mode", r.SecondFactor))
	}
	if r.ReadOnly {
		terms = append(terms, "sessions are read-only")
	}
	if r.MaxSessions > 0 {
		terms = append(terms, fmt.Sprintf("the account has at most %s", count(r.MaxSessions, "session")))
	}
	if len(terms) == 0 {
		return rule + " and changes nothing."
	}
	return rule + ": " + strings.Join(terms, ", ") + "."
}

var modeTexts = map[auth.Mode]string{
	auth.Required: "A second factor is required of everybody",
	auth.Optional: "A second factor is required of those who have enrolled",
	auth.Observe:  "A second factor is required of nobody: what is missing is only recorded",
}

func explainState(e auth.Explanation) string {
	mode, ok := modeTexts[e.Mode]
	if !ok {
		mode = modeTexts[auth.Required]
	}
	state := "nothing is known of the account here"
	switch {
	case e.Enrolled:
		state = fmt.Sprintf("the account has enrolled, and has %s left", count(e.RecoveryCodes, "recovery code"))
	case e.Pending:
		state = "the account's enrolment waits for its first code"
	case e.Known:
		state = "the account hasn't enrolled"
	}
	text := fmt.Sprintf("%s; %s.", mode, state)
	if e.Grants > 0 {
		text += " A grant lets its password alone in from there."
	}
	if e.ClientGrants > 0 {
		text += fmt.Sprintf(" It has %s for TLS clients, which lets each of them in with the password alone.", count(e.ClientGrants, "grant"))
	}
	return text
}

var factorTexts = map[auth.Factor]string{
	auth.FactorNone:        "the password alone",
	auth.FactorCode:        "a code",
	auth.FactorRecovery:    "a recovery code",
	auth.FactorGrant:       "a grant",
	auth.FactorAppPassword: "an app password",
}

// reasonTexts say why a login is refused.
var reasonTexts = map[auth.Reason]string{
	auth.NotEnrolled:        "the account hasn't enrolled, and a second factor is required",
	auth.NoCode:             "the account has enrolled, so a code is missing",
	auth.UnknownAppPassword: "it has none",
	auth.RevokedAppPassword: "it was revoked",
	auth.ExpiredAppPassword: "it has expired",
	auth.ForeignNetwork:     "it may not come from there",
	auth.NotSealed:          "it waits for a sign-in with the password and a second factor",
	auth.SealedOutdated:     "the password has changed: it waits for a sign-in with the new one and a second factor",
}

func explainProspect(p auth.Prospect) string {
	if p.Outcome == auth.Accepted.String() {
		switch {
		case p.Detail != "":
			return "accepted, " + p.Detail
		case p.Factor == auth.FactorGrant:
			return "accepted, by a grant"
		case p.Factor == auth.FactorNone:
			return "accepted, without a second factor"
		}
		return "accepted"
	}
	why, ok := reasonTexts[p.Reason]
	switch {
	case !ok:
		why = string(p.Reason)
	case p.Reason != auth.UnknownAppPassword && p.Detail != "": // which one
		why = p.Detail + ": " + why
	}
	return string(audit.Refused) + ", " + printable(why)
}
