// Command imapwarden stands in front of an IMAP server and asks for a second
// factor. This package has one file per subcommand and builds the program from
// its parts; what the parts know stays in their packages.
//
// Exit status: 0 done, 1 refused or failed, 2 wrong usage or configuration.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	_ "time/tzdata" // rules name time zones, and a container has none

	"github.com/spf13/cobra"

	"imapwarden/auth"
)

const defaultConfig = "/etc/imapwarden/imapwarden.toml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end, the second one doesn't ask.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are what every command takes, and where it reads and writes.
type options struct {
	config string
	json   bool

	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// print writes v as one line of JSON.
func (o *options) print(v any) error {
	e := json.NewEncoder(o.stdout)
	e.SetEscapeHTML(false) // an & in a URI is for people and shells, not for a web page
	return e.Encode(v)
}

// command is one to run next, under the same configuration.
func (o *options) command(args string) string {
	if o.config == usualConfig() {
		return program() + " " + args
	}
	return program() + " " + args + " --config " + o.config
}

// program is what to type to call this program again.
func program() string {
	path, _ := os.Executable() // without it, what was typed is good enough
	return called(path, os.Args[0])
}

// called looks for 'go run', which builds in a place that is gone or another the next time.
func called(path, typed string) string {
	if strings.Contains(path, "/go-build") {
		return "go run ./cmd/imapwarden"
	}
	return typed
}

func usualConfig() string { return cmp.Or(os.Getenv("IMAPWARDEN_CONFIG"), defaultConfig) }

// misuse is an error of usage or configuration: exit status 2.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

// errShown ends a command whose reader knows the reason already.
var errShown = errors.New("shown above")

// unprefixed is an error of policy's without the name of the package, which says nothing to those who read
// it beside a setting or a flag.
func unprefixed(err error) error {
	if err == nil {
		return nil
	}
	return unprefixedError{err}
}

type unprefixedError struct{ error }

func (p unprefixedError) Error() string { return strings.TrimPrefix(p.error.Error(), "policy: ") }

func (p unprefixedError) Unwrap() error { return p.error }

// run runs one command and returns its exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o := &options{stdin: stdin, stdout: stdout, stderr: stderr}
	begun := false
	root := rootCommand(o)
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	_, misused := errors.AsType[misuse](err)
	_, refused := errors.AsType[*auth.Refusal](err)
	switch {
	case errors.Is(err, errShown):
	case refused && !misused:
		fmt.Fprintf(stderr, "imapwarden: refused: %v\n", err)
	default:
		fmt.Fprintf(stderr, "imapwarden: %v\n", err)
	}
	// Cobra finds what is wrong with commands, flags and arguments before any
	// command of ours begins.
	if !begun {
		fmt.Fprintf(stderr, "Run '%s --help' to see how it is used.\n", cmd.CommandPath())
		return 2
	}
	if misused {
		return 2
	}
	return 1
}

func rootCommand(o *options) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "imapwarden",
		Short: "A second factor in front of an IMAP server",
		Long: `imapwarden stands in front of an IMAP server, asks mail programs for a second
factor, stops password guessing, and otherwise stays out of the way.

To see it at work on this machine, with nothing to set up:  imapwarden demo`,
		SilenceErrors: true, // run says them
		SilenceUsage:  true,
	})
	flags := root.PersistentFlags()
	flags.StringVar(&o.config, "config", usualConfig(), "the configuration `file` (or set $IMAPWARDEN_CONFIG)")
	flags.BoolVar(&o.json, "json", false, "print one JSON object, or one a line for lists")
	root.AddCommand(
		serveCommand(o),
		demoCommand(o),
		initCommand(o),
		checkCommand(o),
		certificateCommand(o),
		accountCommand(o),
		appPasswordCommand(o),
		grantCommand(o),
		sessionCommand(o),
		banCommand(o),
		passwordsCommand(o),
		reportCommand(o),
		auditCommand(o),
		alertsCommand(o),
		explainCommand(o),
		keyCommand(o),
		versionCommand(o),
	)
	return root
}

// group is a command that only has others: used alone, it says which, and fails.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		guess := ""
		cmd.SuggestionsMinimumDistance = 2 // letters between what was typed and what was meant
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			guess = "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), guess)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SetOut(cmd.ErrOrStderr())
		if err := cmd.Help(); err != nil {
			return err
		}
		return misuse{errShown}
	}
	return cmd
}

// takes says which arguments a command wants, each exactly once.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing", names[len(args)])
		case len(args) == len(names):
			return nil
		}
		hint := ""
		if len(names) == 0 && cmd.Name() == "check" {
			hint = "; a configuration file is named with --config"
		}
		return fmt.Errorf("%q is too much%s", args[len(names)], hint)
	}
}

// line writes a row of a table, its cells with tabs between them, fit for a terminal.
func line(table io.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	fmt.Fprintln(table, strings.Join(cells, "\t"))
}

// printable makes text from outside fit for a terminal: what a client says of itself
// must not move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
