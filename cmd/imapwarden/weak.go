package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/policy"
)

// weakTexts say what is bad about passwords that were right, by the alert's signal.
var weakTexts = map[string]string{
	policy.PasswordCommon:  "on the list of common passwords",
	policy.PasswordSprayed: "tried on many accounts",
}

// weakPasswords returns the accounts that have signed in since then with a password that is bad, and the
// signal that says why: where both do, that others try it.
func weakPasswords(ctx context.Context, events admin.Events, since time.Time) (map[string]string, error) {
	weak := make(map[string]string)
	filter := audit.Filter{Kind: audit.Alert, Since: since, Limit: admin.MaxEvents, Oldest: true}
	for {
		list, err := events.Events(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if _, known := weakTexts[e.Rule]; !known || e.Reason != rightPassword || e.Account == "" {
				continue
			}
			if weak[e.Account] != policy.PasswordSprayed {
				weak[e.Account] = e.Rule
			}
		}
		if len(list) < filter.Limit {
			return weak, nil
		}
		filter.After = list[len(list)-1].ID
	}
}

// printWeak lists them, for people.
func printWeak(w io.Writer, weak map[string]string) error {
	if len(weak) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%s should get another password:\n\n", count(len(weak), "account"))
	for i, name := range slices.Sorted(maps.Keys(weak)) {
		if i == maxNamed {
			_, err := fmt.Fprintf(w, "    and %d more; --json says it of each\n", len(weak)-maxNamed)
			return err
		}
		if _, err := fmt.Fprintf(w, "    %s: it is %s\n", printable(name), weakTexts[weak[name]]); err != nil {
			return err
		}
	}
	return nil
}
