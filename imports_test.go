// Package imapwarden has no code: the program is in cmd/imapwarden. This test
// holds DESIGN.md's table of who may import whom.
package imapwarden

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// edges is what a package may import of ours.
type edges struct {
	code  []string // its files
	tests []string // its test files, besides
}

// everything is for the one place that puts all parts together.
var everything = []string{"*"}

// table is a design decision: who changes it says so in the commit.
var table = map[string]edges{
	".": {},

	"cmd/imapwarden": {code: everything},

	"proxy":  {code: []string{"audit", "auth", "imap", "metrics", "policy", "relay"}, tests: []string{"certs", "store/memory"}},
	"admin":  {code: []string{"audit", "auth", "policy"}, tests: []string{"store/memory"}},
	"portal": {code: []string{"audit", "auth"}, tests: []string{"store/memory"}},

	"store":           {code: []string{"audit", "auth", "certs", "policy", "store/memory", "store/postgres", "store/redis", "store/sqlite"}, tests: []string{"store/storetest"}},
	"store/memory":    {code: []string{"audit", "auth", "certs", "policy"}, tests: []string{"store/storetest"}},
	"store/postgres":  {code: []string{"audit", "auth", "certs", "policy"}, tests: []string{"store/storetest"}},
	"store/redis":     {code: []string{"audit", "auth", "certs", "policy"}, tests: []string{"store/storetest"}},
	"store/sqlite":    {code: []string{"audit", "auth", "certs", "policy"}, tests: []string{"store/storetest"}},
	"store/storetest": {code: []string{"audit", "auth", "certs", "policy"}},

	// The domain knows none of ours, and least of all stores.
	"audit":   {},
	"auth":    {tests: []string{"store/memory"}},
	"certs":   {tests: []string{"store/memory"}},
	"configs": {},
	"demo":    {},
	"imap":    {},
	"metrics": {},
	"policy":  {},
	"relay":   {},

	// These meet the program as its users do.
	"bench":              {},
	"bench/internal/rig": {},
	"bench/login":        {code: []string{"audit", "auth", "bench/internal/rig", "store"}}, // to make 300,000 app passwords without as many commands
	"bench/relay":        {code: []string{"bench/internal/rig"}},
	"bench/spray":        {code: []string{"policy"}}, // it drives the decisions themselves, through days of virtual time
	"e2e":                {},
}

func TestImports(t *testing.T) {
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && (name == "tools" || name == "testdata" || len(name) > 1 && name[0] == '.'):
			return fs.SkipDir // tools is a module of its own
		case !entry.IsDir() && path.Ext(name) == ".go":
			checkImports(t, filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImports(t *testing.T, file string) {
	folder := path.Dir(file)
	allowed, known := table[folder]
	if !known {
		t.Errorf("%s: the folder %s isn't in DESIGN.md's table of packages", file, folder)
		return
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		ours, isOurs := strings.CutPrefix(imported, "imapwarden/")
		isTest := strings.HasSuffix(file, "_test.go")
		if !isOurs || slices.Contains(allowed.code, "*") || slices.Contains(allowed.code, ours) || isTest && (ours == folder || slices.Contains(allowed.tests, ours)) {
			continue
		}
		t.Errorf("%s imports %s, which DESIGN.md's table doesn't allow to %s", file, ours, folder)
	}
}
