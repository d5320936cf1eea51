package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"imapwarden/admin"
)

func sessionCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "session",
		Short: "See who is logged in to the running server, and end that",
	})
	cmd.AddCommand(sessionListCommand(o), sessionKillCommand(o))
	return cmd
}

func sessionListCommand(o *options) *cobra.Command {
	account := ""
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the sessions that are logged in, oldest first",
		Args:  takes(),
		RunE: o.withServer(func(ctx context.Context, client *admin.Client, _ []string) error {
			list, err := client.Sessions(ctx, account)
			if err != nil {
				return err
			}
			table := o.columns()
			if !o.json {
				fmt.Fprintln(table, "ID\tACCOUNT\tSOURCE\tPROGRAM\tSECOND FACTOR\tUPSTREAM\tSINCE\tSENT\tRECEIVED")
			}
			for _, s := range list {
				if o.json {
					if err := o.print(s); err != nil {
						return err
					}
					continue
				}
				line(table, s.ID, s.Account, s.Source.String(), cmp.Or(s.Program, "-"), sessionFactor(s),
					s.Upstream, clock(s.Began), octets(s.FromClient), octets(s.ToClient))
			}
			return table.Flush()
		}),
	}
	cmd.Flags().StringVar(&account, "account", "", "only those of this `account`")
	return cmd
}

// sessionFactor says what let a session in, and what it may do there.
func sessionFactor(s admin.Session) string {
	factor := s.Factor
	if s.AppPassword != "" {
		factor += " " + s.AppPassword
	}
	if s.ReadOnly {
		factor += ", read-only"
	}
	return factor
}

// octets makes a number of them short.
func octets(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	amount, unit := float64(n), 0
	for ; amount >= 999.95 && unit < len("kMGTPE"); unit++ {
		amount /= 1000
	}
	return fmt.Sprintf("%.1f %cB", amount, "kMGTPE"[unit-1])
}

func sessionKillCommand(o *options) *cobra.Command {
	account := ""
	cmd := &cobra.Command{
		Use:   "kill ID | kill --account ACCOUNT",
		Short: "End a session, or all of an account's, at once",
		Long: `End a session, or all of an account's, at once. What let it in still does: to keep it
out, revoke its grants or its app password.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case account == "" && len(args) == 0:
				return errors.New("ID is missing; --account means all sessions of one account")
			case account != "" && len(args) > 0:
				return fmt.Errorf("%q and --account: give one of them", args[0])
			case len(args) > 1:
				return fmt.Errorf("%q is too much", args[1])
			}
			return nil
		},
		RunE: o.withServer(func(ctx context.Context, client *admin.Client, args []string) (err error) {
			killed, n := "", 1
			if account != "" {
				killed, n, err = client.EndAccount(ctx, account)
			} else {
				killed, err = client.EndSession(ctx, args[0])
			}
			if err != nil {
				return err
			}
			if o.json {
				return o.print(struct {
					Account string `json:"account"`
					Done    string `json:"done"`
					Count   int    `json:"count"`
				}{killed, "killed", n})
			}
			_, err = fmt.Fprintf(o.stdout, "%s: %s killed\n", killed, count(n, "session"))
			return err
		}),
	}
	cmd.Flags().StringVar(&account, "account", "", "all sessions of this `account`")
	return cmd
}
