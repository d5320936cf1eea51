package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what the Go tool wrote into the program.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, in its repository
	Time     string `json:"time,omitempty"`     // of that revision
	Modified bool   `json:"modified"`           // the source differed from that revision
	Go       string `json:"go"`
}

func versionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		Args:  takes(),
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if o.json {
				return o.print(b)
			}
			fmt.Fprintf(o.stdout, "imapwarden %s, %s\n", b.Version, b.Go)
			if b.Revision != "" {
				changed := ""
				if b.Modified {
					changed = ", changed since"
				}
				fmt.Fprintf(o.stdout, "built from %s of %s%s\n", b.Revision, b.Time, changed)
			}
			return nil
		},
	}
}

func readBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{Version: "unknown"}
	}
	b := build{Version: info.Main.Version, Go: info.GoVersion}
	if b.Version == "" {
		b.Version = "unknown"
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.Time = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}
