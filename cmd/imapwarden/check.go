package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"imapwarden/configs"
)

func checkCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong or unwise in the configuration",
		Long: `Say everything that is wrong or unwise in the configuration: the file itself, and the
files and folders that it names, as the user who runs this may read them. It connects
to nothing: neither to the upstream nor to a running server.`,
		Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			config, problems := configs.Load(o.config)
			warnings := 0
			for _, p := range problems {
				if p.Warning {
					warnings++
				}
				if o.json {
					if err := o.print(p); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintln(o.stdout, p)
			}
			if !o.json {
				verdict := "it can be served"
				if config == nil {
					verdict = "it can't be served"
				}
				fmt.Fprintf(o.stdout, "%s: %s: %s, %s\n", o.config, verdict,
					count(len(problems)-warnings, "error"), count(warnings, "warning"))
			}
			if config == nil {
				return misuse{errShown}
			}
			return nil
		},
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// load returns the configuration for the other commands: all of it, or as much as the
// keys named need. Its errors go to standard error; what is only unwise is for check, and
// for serve's log.
func (o *options) load(keys ...string) (*configs.Config, []configs.Problem, error) {
	config, problems := configs.Load(o.config, keys...)
	if config != nil {
		return config, problems, nil
	}
	for _, p := range slices.DeleteFunc(problems, func(p configs.Problem) bool { return p.Warning }) {
		fmt.Fprintln(o.stderr, p)
	}
	return nil, nil, misuse{fmt.Errorf("%s is not a configuration that can be used: see above", o.config)}
}
