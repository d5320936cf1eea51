package policy

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadNetworks(t *testing.T) {
	text := "\ufeff# our VPN\r\n\r\n  203.0.113.0/24  # office\n2001:db8::1\n198.51.100.77/24 ; SBL1\n::ffff:192.0.2.0/120\n\t\n203.0.113.0/24\n10.0.0.1"
	set, err := ReadNetworks(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if set.Len() != 5 {
		t.Errorf("%d networks", set.Len())
	}
	for addr, want := range map[string]bool{
		"203.0.113.9": true, "203.0.114.0": false,
		"2001:db8::1": true, "2001:db8::2": false,
		"198.51.100.1": true, "192.0.2.9": true, "::ffff:192.0.2.9": true,
		"10.0.0.1": true, "10.0.0.2": false, "::ffff:10.0.0.1": true,
	} {
		if got := set.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if empty, err := ReadNetworks(strings.NewReader("# none today\n")); err != nil || empty.Len() != 0 {
		t.Errorf("a list without any: %v", err)
	}
}

func TestReadNetworksSaysWhatIsWrong(t *testing.T) {
	long := strings.Repeat("1", 100_000)
	for text, want := range map[string][]string{
		"10.0.0.0/8\n10.0.0.0/33\n\n# x\noffice\n": {"line 2: must be a network or an address, such as 203.0.113.0/24", "line 5: must"},
		"10.0.0.0/8 192.0.2.0/24":                  {"line 1: must"},
		"010.0.0.1":                                {"line 1: must"},
		strings.Repeat("x\n", 15):                  {"line 10: ", "and 5 more bad lines"},
		"10.0.0.0/8\n" + long:                      {"line 2: ", "too long"},
	} {
		_, err := ReadNetworks(strings.NewReader(text))
		if err == nil {
			t.Errorf("%.30q: no error", text)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%.30q: %v: doesn't say %q", text, err, w)
			}
		}
		if strings.Contains(err.Error(), "office") {
			t.Errorf("shows what stands in the file: %v", err)
		}
	}
}

// What was read and what bart makes of it is what each network by itself says.
func FuzzReadNetworks(f *testing.F) {
	f.Add("10.0.0.0/8\n2001:db8::/32 # doc\n::ffff:192.0.2.1", "10.1.2.3")
	f.Add("::/0", "::ffff:192.0.2.1")
	f.Add("fe80::1%eth0\n0.0.0.0/0", "fe80::1")
	f.Fuzz(func(t *testing.T, text, address string) {
		set, err := ReadNetworks(strings.NewReader(text))
		addr, addrErr := netip.ParseAddr(address)
		if err != nil || addrErr != nil {
			return
		}
		want := false
		for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, ";")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			p, err := parseNetwork(line)
			if err != nil {
				t.Fatalf("%q was taken: %v", line, err)
			}
			want = want || p.Contains(addr.Unmap().WithZone(""))
		}
		if got := set.Contains(addr); got != want {
			t.Errorf("%s in %q: %v", addr, text, got)
		}
	})
}

func TestOpenNetworks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vpn.txt")
	write(t, path, "203.0.113.0/24\nno\n")
	_, err := OpenNetworks(path)
	if want := "policy: reading " + path + ": line 2: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	write(t, path, "203.0.113.0/24\n")
	file, err := OpenNetworks(path)
	if err != nil {
		t.Fatal(err)
	}
	both := Rule{Name: "r", Networks: NewNetworkSet(prefixes("192.0.2.0/24")...), NetworkFiles: []*File[*NetworkSet]{file}}
	fromFile := Rule{Name: "r", NetworkFiles: []*File[*NetworkSet]{file}}
	for _, tt := range []struct {
		rule Rule
		addr string
		want bool
	}{
		{both, "192.0.2.1", true},
		{both, "203.0.113.1", true},
		{both, "198.51.100.1", false},
		{fromFile, "203.0.113.1", true},
		{fromFile, "192.0.2.1", false},
	} {
		if got := (Rules{tt.rule}).Match(Subject{Addr: netip.MustParseAddr(tt.addr)}).Rule != ""; got != tt.want {
			t.Errorf("%s: %v", tt.addr, got)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// manyNetworks is a list with n different ones, of all lengths.
func manyNetworks(n int) string {
	var b strings.Builder
	for i := range n {
		switch addr := netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 0}); {
		case i%4 == 3:
			fmt.Fprintf(&b, "2001:db8:%x:%x::/64\n", i>>16, i&0xffff)
		default:
			fmt.Fprintf(&b, "%s/%d\n", addr, 24+i%9)
		}
	}
	return b.String()
}

func TestMatchManyNetworksWithoutAllocation(t *testing.T) {
	set, err := ReadNetworks(strings.NewReader(manyNetworks(10_000)))
	if err != nil || set.Len() != 10_000 {
		t.Fatal(set.Len(), err)
	}
	rules := Rules{{Name: "r", Networks: set, TLS: []string{"1.3"}, Programs: []string{"a*"}}}
	s := Subject{Addr: netip.MustParseAddr("::ffff:1.1.0.1"), TLS: "1.3", Program: "abc"}
	if got := rules.Match(s).Rule; got != "r" {
		t.Errorf("matched %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { rules.Match(s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReadNetworks(b *testing.B) {
	text := manyNetworks(100_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadNetworks(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatchManyNetworks(b *testing.B) {
	set, err := ReadNetworks(strings.NewReader(manyNetworks(100_000)))
	if err != nil {
		b.Fatal(err)
	}
	rules := Rules{{Name: "r", Networks: set}}
	for name, addr := range map[string]string{"IPv4": "1.1.0.1", "IPv6": "2001:db8:1:3::1", "none": "198.51.100.1"} {
		s := Subject{Addr: netip.MustParseAddr(addr)}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rules.Match(s)
			}
		})
	}
}
