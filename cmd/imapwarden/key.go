package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/store"
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

// rotateKeys makes a new key, and seals with it all that is in the store.
func rotateKeys(ctx context.Context, keys *auth.Keys, s *store.Store) (rotation auth.Rotation, err error) {
	files, err := s.ListFiles(ctx, "")
	if err != nil {
		return auth.Rotation{}, err
	}
	if len(files) == 0 { // a process that was killed leaves a lease, which must hold up nobody without need
		return keys.Rotate(ctx, s)
	}
	const turn = "key-rotation"
	locks := certs.NewStorage(s, fileKeys{keys}, time.Now)
	won, err := locks.TryLock(ctx, turn)
	if err != nil {
		return auth.Rotation{}, err
	}
	if !won {
		return auth.Rotation{}, auth.ErrRotating
	}
	defer func() { err = errors.Join(err, locks.Unlock(context.WithoutCancel(ctx), turn)) }()
	// What the rotation before didn't get to comes first: Rotate keeps the key that is the
	// current one now, and drops those before it.
	if _, err := certs.Reseal(ctx, s, fileKeys{keys}); err != nil {
		return auth.Rotation{}, err
	}
	if rotation, err = keys.Rotate(ctx, s); err != nil {
		return rotation, err
	}
	_, err = certs.Reseal(ctx, s, fileKeys{keys})
	return rotation, err
}

// fileKeys seals what ACME stores with the key file. It is a certs.Sealer.
type fileKeys struct{ keys *auth.Keys }

const filePurpose = "certificate file"

func (f fileKeys) Seal(name string, plaintext []byte) []byte {
	return f.keys.Seal(filePurpose, "", name, plaintext)
}

func (f fileKeys) Open(name string, sealed []byte) ([]byte, error) {
	return f.keys.Open(filePurpose, "", name, sealed)
}

// IsCurrent knows that the key's id stands in front.
func (f fileKeys) IsCurrent(sealed []byte) bool {
	id, err := hex.DecodeString(f.keys.IDs()[0])
	return err == nil && bytes.HasPrefix(sealed, id)
}
