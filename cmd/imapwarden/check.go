package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"imapwarden/configs"
	"imapwarden/policy"
)

func checkCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong or unwise in the configuration",
		Long: `Say everything that is wrong or unwise in the configuration: the file itself, and the
files and folders that it names, as the user who runs this may read them: lists of
passwords and networks as a whole. It connects to nothing: neither to the upstream nor to a running server.`,
		Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			config, problems := configs.Load(o.config)
			if faults := o.faults(problems); len(faults) > 0 {
				config, problems = nil, append(problems, faults...)
			}
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

// faults are what keeps serve from starting, and configs can't know: files that are opened here as serve
// opens them. What it has said of a key is enough.
func (o *options) faults(known []configs.Problem) (found []configs.Problem) {
	add := func(key string, err error) {
		said := slices.ContainsFunc(known, func(p configs.Problem) bool { return p.Key == key && !p.Warning })
		if err != nil && !said {
			found = append(found, configs.Fault(o.config, key, fmt.Sprintf("%s: %v", key, unprefixed(err))))
		}
	}
	if config, _ := configs.Load(o.config, "passwords"); config != nil && config.Passwords.File != "" {
		_, err := policy.OpenCommon(config.Passwords.File)
		add("passwords.file", err)
	}
	config, _ := configs.Load(o.config, "rule", "geo")
	if config == nil {
		return found
	}
	for _, file := range openGeo(config, new(policy.Geo)) {
		if !errors.Is(file.err, fs.ErrNotExist) { // which serve starts without
			add(file.key, file.err)
		}
	}
	for i, r := range config.Rules {
		for j, path := range r.NetworkFiles {
			_, err := policy.OpenNetworks(path)
			add(fmt.Sprintf("rule[%d].network_files[%d]", i, j), err)
		}
	}
	return found
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
