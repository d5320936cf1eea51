// Command testcount reads the output of `go test -json` and says what a person
// wants to know: one line a package, all that a failed test printed, why a test
// was skipped, and in the end, alone on a line,
//
//	N passed, N failed, N skipped
//
// Tests and subtests count alike. A package that doesn't build, or ends outside
// a test, counts as one failure, and so does each argument: the name of a check
// that failed before. With CI in the environment a skipped test is a failure.
// The exit status is 0 where nothing failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// An event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output, instead of Package
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// A test is a test or subtest of a package; the package itself has no name.
type test struct{ pkg, name string }

// results is what came so far.
type results struct {
	passed, failed, skipped int

	ci       bool
	output   map[test][]string
	tests    map[string]int // ended, by package
	failures map[string]int // of these, failed
	troubled []string       // names of failed and skipped tests, to repeat at the end
}

func main() {
	r := results{
		ci:       os.Getenv("CI") != "",
		output:   map[test][]string{},
		tests:    map[string]int{},
		failures: map[string]int{},
	}
	for _, check := range os.Args[1:] {
		r.failed++
		r.troubled = append(r.troubled, "FAIL "+check)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Println(lines.Text()) // of go itself, not of a test
			continue
		}
		r.add(e)
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "testcount: reading the tests' output:", err)
		r.failed++
	}
	if r.passed+r.failed+r.skipped == 0 {
		r.failed++
		r.troubled = append(r.troubled, "FAIL no test ran")
	}
	if len(r.troubled) > 0 {
		fmt.Println("\n" + strings.Join(r.troubled, "\n"))
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if r.failed > 0 || r.ci && r.skipped > 0 {
		os.Exit(1)
	}
}

// add counts one event. What a test prints is kept until it has ended, and
// shown where it failed.
func (r *results) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		r.output[t] = append(r.output[t], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, t)
	}
}

func (r *results) endTest(e event) {
	r.tests[e.Package]++
	name := e.Package + " " + e.Test
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.failures[e.Package]++
		r.troubled = append(r.troubled, "FAIL "+name)
		r.show(test{e.Package, e.Test})
	case "skip":
		r.skipped++
		r.troubled = append(r.troubled, "SKIP "+name)
		r.show(test{e.Package, e.Test})
	}
}

func (r *results) endPackage(e event) {
	// A package may fail without a failed test: it didn't build, panicked, or
	// its TestMain found something missing.
	if e.Action == "fail" && r.failures[e.Package] == 0 {
		r.failed++
		r.troubled = append(r.troubled, "FAIL "+e.Package)
		r.showAll(e.Package)
	}
	word := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "none"}[e.Action]
	fmt.Printf("%s %-30s %4d tests %7.1f s\n", word, e.Package, r.tests[e.Package], e.Elapsed)
	// The package may run again, otherwise built.
	delete(r.tests, e.Package)
	delete(r.failures, e.Package)
}

// showAll prints what the package printed, and those of its tests that never ended.
func (r *results) showAll(pkg string) {
	for t := range r.output {
		if t.pkg == pkg {
			r.show(t)
		}
	}
}

func (r *results) show(t test) { fmt.Print(strings.Join(r.output[t], "")) }
