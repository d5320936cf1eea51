package imapwarden

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/dialog.md names exists, and so does every row.
func TestDialogTable(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		tests.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/dialog.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[^`/]*)(?:/([^`]*))?`").FindAllStringSubmatch(string(doc), -1)
	if len(names) < 100 {
		t.Fatalf("only %d tests are named", len(names))
	}
	for _, name := range names {
		if !strings.Contains(tests.String(), "func "+name[1]+"(") {
			t.Errorf("there is no %s", name[1])
		}
		if name[2] != "" && !strings.Contains(tests.String(), `"`+name[2]+`"`) {
			t.Errorf("%s has no row %q", name[1], name[2])
		}
	}
}
