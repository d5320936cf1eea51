package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func keyCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "key",
		Short: "Look after the key that protects the store",
	})
	cmd.AddCommand(keyRotateCommand(o))
	return cmd
}

func keyRotateCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Make a new key, and seal with it what the old one sealed",
		Long: `Make a new key, and seal with it what the old one sealed. Old keys stay in the key file as
long as something needs them, and go with a later rotation. It may be interrupted: the
next one does what was left.`,
		Args: takes(),
		RunE: o.withRecords(func(ctx context.Context, r *records, _ []string) error {
			done, err := r.rotate(ctx)
			if err != nil {
				return err
			}
			if o.json {
				return o.print(done)
			}
			fmt.Fprintf(o.stdout, "New key: %s\n", done.Key)
			fmt.Fprintf(o.stdout, "Sealed anew: %s\n", count(done.Resealed, "authenticator"))
			if len(done.Kept) > 0 {
				fmt.Fprintf(o.stdout, "Older keys that stay, because something may still need them: %s\n", strings.Join(done.Kept, ", "))
			}
			if len(done.Dropped) > 0 {
				fmt.Fprintf(o.stdout, "Older keys that nothing needs any more, and that are gone: %s\n", strings.Join(done.Dropped, ", "))
			}
			_, err = fmt.Fprintf(o.stdout, "Back up %s anew, together with the store: a backup of the store from now on doesn't open with the key file of before.\n", r.config.Store.KeyFile)
			return err
		}),
	}
}
