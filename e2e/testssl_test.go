package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A finding is one line of what testssl.sh says.
type finding struct{ ID, Severity, Finding string }

// ofTheTest are findings about the test's own certificate, which no public CA has signed, and a name that no
// DNS knows. They say nothing of the proxy.
var ofTheTest = []string{
	"cert_chain_of_trust", "cert_trust", "cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL",
	"DNS_CAArecord", "OCSP_stapling", "cert_expirationStatus", "cert_extlifeSpan", "certificate_transparency",
	"overall_grade", "grade_cap_reason", "cert_notAfter", "engine_problem",
}

// testssl.sh from Debian's packages finds nothing above "low" on either listener.
func TestNothingForTestssl(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{more: "[limits]\nconnections_before_login = 1000\ntrusted = [\"127.0.0.0/8\"]\n"})
	for listener, options := range map[string][]string{
		w.implicit: nil,
		w.starttls: {"--starttls", "imap"},
	} {
		out := filepath.Join(t.TempDir(), "findings.json")
		command := exec.Command("testssl", append(options,
			"--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1",
			"--fast", "--protocols", "--server-defaults", "--fs", "--std", "--heartbleed", "--ccs", "--ticketbleed", "--robot", "--renegotiation", "--crime", "--tls-fallback",
			"--jsonfile", out, listener)...)
		text, err := command.CombinedOutput()
		written, readErr := os.ReadFile(out)
		if readErr != nil {
			t.Fatalf("testssl.sh wrote nothing: %v, %v\n%s", readErr, err, text)
		}
		var findings []finding
		if err := json.Unmarshal(written, &findings); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		seen := map[string]bool{}
		for _, f := range findings {
			id, _, _ := strings.Cut(f.ID, " ")
			seen[id] = true
			switch f.Severity {
			case "OK", "INFO", "LOW":
			default:
				if !slices.Contains(ofTheTest, id) {
					t.Errorf("%v: %s: %s, %s", options, f.Severity, f.ID, f.Finding)
				}
			}
		}
		for _, id := range []string{"TLS1", "TLS1_2", "TLS1_3", "heartbleed", "ROBOT"} {
			if !seen[id] {
				t.Errorf("%v: testssl.sh says nothing of %s\n%s", options, id, text)
			}
		}
	}
}
