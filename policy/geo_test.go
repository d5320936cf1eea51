package policy

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// atlas is a file in MaxMind's format, with a record for each network.
func atlas(t testing.TB, kind string, version int, records map[string]mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IPVersion: version, IncludeReservedNetworks: true, BuildEpoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range slices.Sorted(maps.Keys(records)) { // a network before those in it
		record := records[network]
		_, ipNet, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(ipNet, record); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func inCountry(key, code mmdbtype.String) mmdbtype.Map {
	return mmdbtype.Map{
		"continent": mmdbtype.Map{"code": mmdbtype.String("EU")},
		key:         mmdbtype.Map{"geoname_id": mmdbtype.Uint32(1), "iso_code": code, "names": mmdbtype.Map{"en": mmdbtype.String("A country")}},
	}
}

func ownedBy(number mmdbtype.Uint32) mmdbtype.Map {
	return mmdbtype.Map{"autonomous_system_number": number, "autonomous_system_organization": mmdbtype.String("An owner")}
}

func countries(t testing.TB) string {
	both := inCountry("country", "AT")
	both["registered_country"] = mmdbtype.Map{"iso_code": mmdbtype.String("DE")}
	return atlas(t, "GeoLite2-Country", 6, map[string]mmdbtype.Map{
		"192.0.2.0/24":    inCountry("country", "DE"),
		"198.51.100.0/24": both,
		"203.0.113.0/24":  inCountry("registered_country", "FR"),
		"203.0.113.64/26": {"continent": mmdbtype.Map{"code": mmdbtype.String("EU")}}, // a satellite over everywhere
		"2001:db8::/32":   inCountry("country", "DE"),
	})
}

func owners(t testing.TB) string {
	return atlas(t, "GeoLite2-ASN", 6, map[string]mmdbtype.Map{
		"192.0.2.0/25":    ownedBy(64496),
		"198.51.100.0/24": ownedBy(64497),
		"2001:db8::/48":   ownedBy(64496),
	})
}

func TestRulePlaces(t *testing.T) {
	dir := t.TempDir()
	countryPath, ownerPath := filepath.Join(dir, "country.mmdb"), filepath.Join(dir, "asn.mmdb")
	write(t, countryPath, countries(t))
	write(t, ownerPath, owners(t))
	countryFile, err := OpenCountries(countryPath)
	if err != nil {
		t.Fatal(err)
	}
	ownerFile, err := OpenOwners(ownerPath)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := OpenCountries(filepath.Join(dir, "none.mmdb"))
	if gone == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("absent: %v", err)
	}
	var (
		all           = &Geo{Countries: countryFile, Owners: ownerFile, Refuse: true}
		skips         = &Geo{Owners: ownerFile}
		refuses       = &Geo{Owners: ownerFile, Refuse: true}
		refusesUnread = &Geo{Countries: gone, Owners: ownerFile, Refuse: true}

		matched, passed = Ruling{Rule: "r", ReadOnly: true}, Ruling{Rule: "next"}
		refused         = Ruling{Rule: "r", Denied: true}
	)
	german := []string{"CH", "DE"}
	tests := []struct {
		name      string
		geo       *Geo
		countries []string
		owners    []uint32
		addr      string
		want      Ruling
	}{
		{"country", all, german, nil, "192.0.2.1", matched},
		{"IPv4 in IPv6", all, german, nil, "::ffff:192.0.2.1", matched},
		{"IPv6", all, german, nil, "2001:db8::1", matched},
		{"IPv6 with a zone", all, german, nil, "2001:db8::1%eth0", matched},
		{"another country, though the owner's", all, german, nil, "198.51.100.1", passed},
		{"its country", all, []string{"AT"}, nil, "198.51.100.1", matched},
		{"no country but the owner's", all, []string{"FR"}, nil, "203.0.113.1", matched},
		{"no country", all, []string{"FR"}, nil, "203.0.113.65", passed},
		{"unknown address", all, german, nil, "10.0.0.1", passed},
		{"no address", all, german, []uint32{64496}, "", passed},
		{"owner", all, nil, []uint32{1, 64496}, "192.0.2.1", matched},
		{"another owner", all, nil, []uint32{1, 64496}, "198.51.100.1", passed},
		{"unknown owner", all, nil, []uint32{1, 64496}, "192.0.2.200", passed},
		{"both", all, german, []uint32{64496}, "192.0.2.1", matched},
		{"country only", all, german, []uint32{64496}, "192.0.2.200", passed},
		{"owner only", all, german, []uint32{64497}, "198.51.100.1", passed},

		{"absent, not needed", skips, nil, nil, "192.0.2.1", matched},
		{"absent, the other is there", refuses, nil, []uint32{64496}, "192.0.2.1", matched},
		{"absent, skipped", skips, german, nil, "192.0.2.1", passed},
		{"absent, skipped, the other fits", skips, german, []uint32{64496}, "192.0.2.1", passed},
		{"absent, refused", refuses, german, nil, "192.0.2.1", refused},
		{"absent, refused, the other fits", refuses, german, []uint32{64496}, "192.0.2.1", refused},
		{"absent, but the other says no", refuses, german, []uint32{64496}, "198.51.100.1", passed},
		{"not yet there, refused", refusesUnread, german, nil, "192.0.2.1", refused},
		{"no files at all", nil, german, nil, "192.0.2.1", passed},
		{"no files at all, owners", nil, nil, []uint32{64496}, "192.0.2.1", passed},
		{"no files at all, none needed", nil, nil, nil, "192.0.2.1", matched},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules := Rules{{Name: "r", Countries: tt.countries, Owners: tt.owners, Geo: tt.geo, ReadOnly: true}, {Name: "next"}}
			s := Subject{}
			if tt.addr != "" {
				s.Addr = netip.MustParseAddr(tt.addr)
			}
			if got := rules.Match(s); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if n := testing.AllocsPerRun(100, func() { rules.Match(s) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// Only what the other matchers fit is refused for want of a file.
func TestAbsentRefusesOnlyWhatFits(t *testing.T) {
	rules := Rules{{Name: "r", Accounts: []string{"alice"}, Countries: []string{"DE"}, Geo: &Geo{Refuse: true}}}
	for account, want := range map[string]Ruling{"alice": {Rule: "r", Denied: true}, "bob": {}} {
		if got := rules.Match(Subject{Account: account, Addr: atHome}); got != want {
			t.Errorf("%s: %+v", account, got)
		}
	}
}

// A file of IPv4 addresses knows no IPv6 one.
func TestAtlasOfIPv4Alone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "country.mmdb")
	write(t, path, atlas(t, "Some-Country", 4, map[string]mmdbtype.Map{"192.0.2.0/24": inCountry("country", "DE")}))
	file, err := OpenCountries(path)
	if err != nil {
		t.Fatal(err)
	}
	rules := Rules{{Name: "r", Countries: []string{"DE"}, Geo: &Geo{Countries: file, Refuse: true}}}
	for addr, want := range map[string]string{"192.0.2.1": "r", "::ffff:192.0.2.1": "r", "2001:db8::1": "", "198.51.100.1": ""} {
		if got := rules.Match(Subject{Addr: netip.MustParseAddr(addr)}).Rule; got != want {
			t.Errorf("%s: %q", addr, got)
		}
	}
}

func TestOpenAtlasSaysWhatIsWrong(t *testing.T) {
	country, asn := countries(t), owners(t)
	dir := t.TempDir()
	openCountries := func(path string) error { _, err := OpenCountries(path); return err }
	openOwners := func(path string) error { _, err := OpenOwners(path); return err }
	for name, tt := range map[string]struct {
		open func(string) error
		text string
		want []string
	}{
		"owners for countries": {openCountries, asn, []string{`no countries in it`, `"GeoLite2-ASN"`}},
		"countries for owners": {openOwners, country, []string{`no owners in it`, `"GeoLite2-Country"`}},
		"other types":          {openCountries, atlas(t, "Odd", 6, map[string]mmdbtype.Map{"192.0.2.0/24": {"country": mmdbtype.String("DE")}}), []string{"not about countries", `"Odd"`}},
		"nothing in it":        {openCountries, atlas(t, "None", 6, nil), []string{`no countries in it`}},
		"another format":       {openCountries, "192.0.2.0/24 DE\n", []string{"MaxMind's format"}},
		"empty":                {openOwners, "", []string{"MaxMind's format"}},
		"its end is missing":   {openCountries, country[:len(country)-200], []string{"MaxMind's format"}},
		"its middle is missing": {
			openCountries, country[:len(country)/4] + country[len(country)/2:],
			[]string{"policy: reading "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "x.mmdb")
			write(t, path, tt.text)
			err := tt.open(path)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(tt.want, "policy: reading "+path+": ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q doesn't say %q", err, want)
				}
			}
		})
	}
}

// Whatever is in the file, it is an error or an atlas that answers.
func FuzzReadAtlas(f *testing.F) {
	good := countries(f)
	f.Add([]byte(good))
	f.Add([]byte(owners(f)))
	f.Add([]byte(strings.Replace(good, "iso_code", "iso_cod\xe0", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readAtlas[string](bytes.NewReader(data), int64(len(data)), "countries", []any{"country", "iso_code"})
		if err != nil {
			return
		}
		for _, addr := range []string{"192.0.2.1", "2001:db8::1", "::"} {
			a.Of(netip.MustParseAddr(addr))
		}
		a.Of(netip.Addr{})
	})
}

func manyPlaces(b *testing.B) string {
	b.Helper()
	records := make(map[string]mmdbtype.Map)
	for i := range 100_000 {
		addr := netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 0})
		code := mmdbtype.String([]byte{byte('A' + i%26), byte('A' + i/26%10)})
		records[netip.PrefixFrom(addr, 24).String()] = inCountry("country", code)
	}
	return atlas(b, "GeoLite2-Country", 6, records)
}

func BenchmarkReadAtlas(b *testing.B) {
	data := manyPlaces(b)
	path := filepath.Join(b.TempDir(), "country.mmdb")
	write(b, path, data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenCountries(path); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatchCountry(b *testing.B) {
	path := filepath.Join(b.TempDir(), "country.mmdb")
	write(b, path, manyPlaces(b))
	file, err := OpenCountries(path)
	if err != nil {
		b.Fatal(err)
	}
	rules := Rules{{Name: "r", Countries: []string{"AA"}, Geo: &Geo{Countries: file}}}
	s := Subject{Addr: netip.MustParseAddr("1.1.0.1")}
	b.ReportAllocs()
	for b.Loop() {
		rules.Match(s)
	}
}
