package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imapwarden/policy"
)

// maxPassword is how many octets of a password mail programs can send.
const maxPassword = 1024

func passwordsCommand(o *options) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "passwords",
		Short: "Make a list of common or breached passwords for passwords.file",
	})
	cmd.AddCommand(passwordsBuildCommand(o), passwordsCheckCommand(o))
	return cmd
}

// aBuild is what 'passwords build' was asked for.
type aBuild struct {
	from                []string
	out                 string
	plain, sha1, forced bool
}

func passwordsBuildCommand(o *options) *cobra.Command {
	var build aBuild
	cmd := &cobra.Command{
		Use:   "build --from LIST --out FILE",
		Short: "Make a filter of lists of passwords",
		Long: `Make a filter of lists of passwords, which takes some 2.25 octets for each of them, and which
nobody can read passwords from. A list has a password a line, or the SHA-1 of one a line, as Have I
Been Pwned gives it.

However long the lists are, it takes some 250 MB of memory. If they have more than 4 million
passwords, it also takes 8 octets for each of them beside FILE until it ends.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := takes()(cmd, args); err != nil {
				return err
			}
			return build.complete()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := build.check(); err != nil {
				return misuse{err}
			}
			return o.build(cmd.Context(), build)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&build.from, "from", nil, "a `list` of passwords, or - for standard input; may be given again")
	flags.StringVar(&build.out, "out", "", "the `file` to write")
	flags.BoolVar(&build.plain, "plain", false, "the lists have passwords, whatever their first lines look like")
	flags.BoolVar(&build.sha1, "sha1", false, "the lists have SHA-1s, whatever their first lines look like")
	flags.BoolVar(&build.forced, "force", false, "replace FILE if it is there")
	return cmd
}

// complete says what is missing.
func (b *aBuild) complete() error {
	switch {
	case len(b.from) == 0:
		return errors.New("--from is missing: name a list of passwords, or - for standard input")
	case b.out == "":
		return errors.New("--out is missing: name the file to write")
	case b.plain && b.sha1:
		return errors.New("--plain and --sha1: give one of them")
	}
	return nil
}

// check says what can be known to go wrong before a list is read, which may take an hour.
func (b *aBuild) check() error {
	stdin := 0
	for _, list := range b.from {
		if list == "-" {
			if stdin++; stdin > 1 {
				return errors.New("--from -: standard input can be read once only")
			}
			continue
		}
		switch info, err := os.Stat(list); {
		case err != nil:
			return fmt.Errorf("--from: %w", err)
		case info.IsDir():
			return fmt.Errorf("--from: %s is a folder: name the files in it", list)
		}
	}
	switch info, err := os.Lstat(b.out); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("--out: %s is there, and isn't a regular file", b.out)
	case err == nil && !b.forced:
		return fmt.Errorf("--out: %s is there already: say --force to replace it", b.out)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("--out: %w", err)
	}
	if _, err := os.Stat(filepath.Dir(b.out)); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

func (b *aBuild) form() policy.ListForm {
	switch {
	case b.plain:
		return policy.PlainForm
	case b.sha1:
		return policy.SHA1Form
	}
	return policy.AnyForm
}

// built is what --json says of a filter.
type built struct {
	File           string  `json:"file"`
	Read           uint64  `json:"read"`
	LeftOut        uint64  `json:"left_out"`
	Passwords      uint64  `json:"passwords"`
	Octets         int64   `json:"octets"`
	OctetsEach     float64 `json:"octets_per_password"`
	FalsePositives int     `json:"false_positives_one_in"`
}

func (o *options) build(ctx context.Context, b aBuild) (err error) {
	builder := &policy.FilterBuilder{Path: b.out}
	defer func() { err = errors.Join(err, builder.Close()) }()
	done := built{File: b.out, FalsePositives: policy.FilterErrs}
	for _, list := range b.from {
		n, err := o.readList(ctx, builder, list, b.form())
		if err != nil {
			return fmt.Errorf("--from %s: %w", list, unprefixed(err))
		}
		done.Read += n.Passwords
		done.LeftOut += n.LeftOut
	}
	filter, err := builder.Save(ctx)
	if err != nil {
		return fmt.Errorf("--out: %w", unprefixed(err))
	}
	done.Passwords, done.Octets = filter.Keys, filter.Octets
	done.OctetsEach = float64(filter.Octets) / float64(filter.Keys)
	if o.json {
		return o.print(done)
	}
	return o.printBuilt(done)
}

func (o *options) readList(ctx context.Context, builder *policy.FilterBuilder, list string, form policy.ListForm) (policy.ListCount, error) {
	if list == "-" {
		return builder.Read(ctx, o.stdin, form)
	}
	file, err := os.Open(list)
	if err != nil {
		return policy.ListCount{}, err
	}
	defer file.Close()
	return builder.Read(ctx, file, form)
}

func (o *options) printBuilt(b built) error {
	fmt.Fprintf(o.stdout, "%s: %d passwords (%d read), %d octets, %.2f octets for each\n", b.File, b.Passwords, b.Read, b.Octets, b.OctetsEach)
	fmt.Fprintf(o.stdout, "Of passwords that aren't on the list, 1 in %d is taken for one that is.\n", b.FalsePositives)
	if b.LeftOut > 0 {
		fmt.Fprintf(o.stdout, "Left out: %s that no mail program can send, longer than %d octets or with a NUL.\n", count(int(b.LeftOut), "line"), maxPassword)
	}
	path, err := filepath.Abs(b.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.stdout, "In the configuration:\n\n    [passwords]\n    file = %q\n", path)
	return err
}

func passwordsCheckCommand(o *options) *cobra.Command {
	file := ""
	cmd := &cobra.Command{
		Use:   "check --file FILE",
		Short: "See whether a password is on a list",
		Long: `See whether a password, the first line of standard input, is on a list: what passwords build
wrote, or a text as passwords.file may be. The exit status is 0 where it is, 1 where it
isn't, and 2 where that can't be told.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := takes()(cmd, args); err != nil {
				return err
			}
			if file == "" {
				return errors.New("--file is missing: name a list of passwords")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := policy.OpenCommon(file)
			if err != nil {
				return misuse{fmt.Errorf("--file: %w", unprefixed(err))}
			}
			password, err := o.typedPassword(cmd.Context())
			if err != nil {
				return misuse{err}
			}
			defer clear(password)
			listed := list.Has(password)
			if err := o.printListed(listed); err != nil {
				return misuse{err}
			}
			if !listed {
				return errShown
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "the `file` with the list")
	return cmd
}

func (o *options) printListed(listed bool) error {
	if o.json {
		return o.print(struct {
			Listed bool `json:"listed"`
		}{listed})
	}
	text := "It isn't on the list."
	if listed {
		text = "It is on the list."
	}
	_, err := fmt.Fprintln(o.stdout, text)
	return err
}

// typedPassword reads a password, the first line of standard input. A terminal doesn't show it.
func (o *options) typedPassword(ctx context.Context) ([]byte, error) {
	if file, ok := o.stdin.(*os.File); ok && isTerminal(file) {
		fmt.Fprint(o.stderr, "Password: ")
		defer fmt.Fprintln(o.stderr)
		show, err := hideTyping(int(file.Fd()))
		if err != nil {
			return nil, fmt.Errorf("hiding what is typed: %w", err)
		}
		defer show()
		defer context.AfterFunc(ctx, show)() // the next signal ends us at once, and would leave it hidden
	}
	line, err := bufio.NewReader(io.LimitReader(o.stdin, maxPassword+3)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	password := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	switch {
	case len(password) == 0:
		return nil, errors.New("the first line of standard input is empty: it must be the password")
	case len(password) > maxPassword:
		return nil, fmt.Errorf("the first line of standard input is longer than %d octets: it must be the password", maxPassword)
	}
	return password, nil
}

// hideTyping makes a terminal not show what is typed, until show is called.
func hideTyping(terminal int) (show func(), err error) {
	before, err := unix.IoctlGetTermios(terminal, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(terminal, unix.TCSETS, &hidden); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(terminal, unix.TCSETS, before) }, nil
}
