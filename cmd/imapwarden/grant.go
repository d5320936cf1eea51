package main

import (
	"context"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"imapwarden/auth"
)

// accountGrants are those of the directory.
type accountGrants interface {
	Grants(ctx context.Context, name string) ([]auth.GrantSummary, error)
	RevokeGrants(ctx context.Context, name string, ids ...string) (n int, err error)
}

func grantCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "grant",
		Short: "See from where an account's password alone lets in for a while, and end that",
	})
	cmd.AddCommand(grantListCommand(o), grantRevokeCommand(o))
	return cmd
}

func grantListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list NAME",
		Short: "List the grants of an account that live",
		Args:  takes("NAME"),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			list, err := r.accounts.Grants(ctx, args[0])
			if err != nil {
				return err
			}
			table := o.columns()
			if !o.json {
				fmt.Fprintln(table, "ID\tFOR\tGIVEN IN\tGIVEN\tLAST USED\tENDS AT THE LATEST")
			}
			for _, g := range list {
				if o.json {
					if err := o.print(g); err != nil {
						return err
					}
					continue
				}
				whom := "that network"
				if g.From == auth.FromClient {
					whom = "one TLS client"
				}
				line(table, g.ID, whom, g.Network.String(), clock(g.Created), clock(g.LastUsed), clock(g.Expires))
			}
			return table.Flush()
		}),
	}
}

func grantRevokeCommand(o *options) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "revoke NAME ID... | revoke NAME --all",
		Short: "End grants of an account: its next sign-in from there needs a second factor",
		Args:  takesSome(&all, "NAME", "ID", math.MaxInt-1),
		RunE: o.withRecords(func(ctx context.Context, r *records, args []string) error {
			n, err := r.accounts.RevokeGrants(ctx, args[0], args[1:]...)
			if err != nil {
				return err
			}
			return o.printRevoked(r, args[0], n, "grant")
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of the account's")
	return cmd
}
