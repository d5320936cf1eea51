package sqlite_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"imapwarden/auth"
	"imapwarden/store/sqlite"
)

// childStore names, in a process that TestTwoProcesses started, the file to share.
const childStore = "IMAPWARDEN_TEST_STORE"

const sharedSteps = 100

// The command line opens the store while the server runs: each code counts once
// all the same, and what the one wrote stays when it is killed.
func TestTwoProcesses(t *testing.T) {
	if path := os.Getenv(childStore); path != "" {
		child(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	must(t, s.PutAccount(t.Context(), auth.Account{Name: "alice", TOTP: &auth.TOTP{ID: "t"}}))

	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTwoProcesses$")
	cmd.Env = append(os.Environ(), childStore+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewReader(out)

	_, err = lines.ReadString('\n') // it has opened the store
	must(t, err)
	_, err = fmt.Fprintln(in, "go")
	must(t, err)
	mine := spendShared(t, s)
	var theirs [sharedSteps + 1]int
	for step := 1; step <= sharedSteps; step++ {
		_, err := fmt.Fscanln(lines, &theirs[step])
		must(t, err)
	}
	must(t, cmd.Process.Kill())

	for step := 1; step <= sharedSteps; step++ {
		// None where the other had got ahead to a later step.
		if n := mine[step] + theirs[step]; n > 1 || step == sharedSteps && n != 1 {
			t.Errorf("step %d has %d winners", step, n)
		}
	}
	mark, err := s.Mark(t.Context(), "child")
	must(t, err)
	if mark != "was here" {
		t.Errorf("the mark is %q: what a killed process wrote is gone", mark)
	}
}

func child(t *testing.T, path string) {
	s, err := sqlite.Open(t.Context(), path)
	must(t, err)
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	won := spendShared(t, s)
	must(t, s.SetMark(t.Context(), "child", "was here"))
	for _, n := range won[1:] {
		fmt.Println(n)
	}
	in.ReadString('\n') // until it is killed, or its parent ends
}

func spendShared(t *testing.T, s *sqlite.Store) (won [sharedSteps + 1]int) {
	for step := int64(1); step <= sharedSteps; step++ {
		ok, err := s.SpendStep(t.Context(), "t", step)
		must(t, err)
		if ok {
			won[step] = 1
		}
	}
	return won
}
