package configs

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// atlas is a file in MaxMind's format with one record.
func atlas(t *testing.T, kind string, record mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Insert(&net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}, record); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each text is one [[rule]] with a key in line 8.
func TestCheckPlaces(t *testing.T) {
	const (
		code  = `must be the two capital letters of a country (ISO 3166-1), such as "DE"`
		lines = `each line must be a network or an address, such as 203.0.113.0/24 or 2001:db8::1; these aren't: `
	)
	dir := folder(t)
	for name, text := range map[string]string{
		"vpn.txt":      "\ufeff# VPN\r\n203.0.113.0/24 # office\r\n\n2001:db8::1 ; SBL1\n::ffff:192.0.2.1\n",
		"empty.txt":    "",
		"bad.txt":      "203.0.113.0/24\n203.0.113.0/33\n\n# x\nsecret-word\n",
		"mail.txt":     strings.Repeat("Received: x\n", 9),
		"country.mmdb": atlas(t, "GeoLite2-Country", mmdbtype.Map{"registered_country": mmdbtype.Map{"iso_code": mmdbtype.String("DE")}}),
		"asn.mmdb":     atlas(t, "GeoLite2-ASN", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64496)}),
	} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		`network_files = ["vpn.txt", "empty.txt"]`:   nil,
		`network_files = [""]`:                       {`w.toml:8: rule[0].network_files[0] = "": must be the path of a file with a network or an address a line`},
		`network_files = ["vpn.txt", "nowhere.txt"]`: {`w.toml:8: rule[0].network_files[1] = "nowhere.txt": can't be read: no such file or directory (relative paths start at the configuration file's folder)`},
		`network_files = ["sub"]`:                    {`w.toml:8: rule[0].network_files[0] = "sub": can't be read: must be a regular file (relative paths start at the configuration file's folder)`},
		`network_files = ["bad.txt"]`:                {`w.toml:8: rule[0].network_files[0] = "bad.txt": ` + lines + `line 2, line 5`},
		`network_files = ["mail.txt"]`:               {`w.toml:8: rule[0].network_files[0] = "mail.txt": ` + lines + `line 1, line 2, line 3, line 4, line 5 and 4 more`},

		`countries = ["DE", "GB", "XK"]`: nil,
		`countries = ["de"]`:             {`w.toml:8: rule[0].countries[0] = "de": ` + code},
		`countries = ["DE", "DEU"]`:      {`w.toml:8: rule[0].countries[1] = "DEU": ` + code},
		`countries = ["UK"]`:             {`w.toml:8: warning: rule[0].countries[0] = "UK": never used: the country's letters are "GB" (ISO 3166-1)`},
		`countries = ["EL"]`:             {`w.toml:8: warning: rule[0].countries[0] = "EL": never used: no country has these letters (ISO 3166-1)`},
		`countries = ["EU"]`:             {`w.toml:8: warning: rule[0].countries[0] = "EU": never used: no country has these letters (ISO 3166-1)`},
		`owners = [64496, 4294967295]`:   nil,
		`owners = [0]`:                   {`w.toml:8: rule[0].owners[0] = 0: must be the number of an autonomous system, from 1 on, such as 64496 for AS64496`},

		// They don't fit everything.
		"network_files = ['vpn.txt']\n[[rule]]\naction = 'deny'":                                          nil,
		"network_files = ['vpn.txt']\nnetworks = ['0.0.0.0/0', '::/0']\n[[rule]]\nname = 'never reached'": {`w.toml:10: warning: rule[1]: never used, because rule[0] fits everything and comes first`},
		"countries = ['DE']\n[[rule]]\naction = 'deny'":                                                   nil,
		"owners = [64496]\n[[rule]]\naction = 'deny'":                                                     nil,
	} {
		got := said(t, dir, required+"geo.countries = 'country.mmdb'\ngeo.owners = 'asn.mmdb'\n[[rule]]\n"+text)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

func TestCheckTLSOfRules(t *testing.T) {
	want := []string{`w.toml:7: warning: rule[0].tls[1] = "1.2": never used: tls.min_version = "1.3" lets no such client in`}
	got := said(t, folder(t), required+"tls.min_version = '1.3'\n[[rule]]\ntls = ['1.3', '1.2']")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each text stands behind what is required, from line 5 on.
func TestCheckGeoFiles(t *testing.T) {
	dir := folder(t)
	for name, text := range map[string]string{
		"country.mmdb": atlas(t, "GeoLite2-Country", mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("DE")}}),
		"asn.mmdb":     atlas(t, "GeoLite2-ASN", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64496)}),
		"other.mmdb":   "192.0.2.0/24 DE\n",
		"empty.mmdb":   "",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	const format = "must be in MaxMind's format (.mmdb): "
	for text, want := range map[string][]string{
		"geo.countries = 'country.mmdb'\ngeo.owners = 'asn.mmdb'":                                                                   nil,
		"geo.countries = 'nowhere.mmdb'\n[[rule]]\nname = 'out'\ncountries = ['DE']\naction = 'deny'\n[[rule]]\ncountries = ['AT']": {`w.toml:5: warning: geo.countries = "nowhere.mmdb": there is no such file yet: until there is, rules with countries are skipped (geo.absent), and whom those with action = "deny" should refuse may come in ("out"); geo.absent = "refuse" keeps them out`},
		"geo.countries = 'nowhere.mmdb'": {`w.toml:5: warning: geo.countries = "nowhere.mmdb": there is no such file yet: until there is, rules with countries are skipped (geo.absent)`},
		"geo.countries = 'asn.mmdb'":     {`w.toml:5: geo.countries = "asn.mmdb": there are no countries in it, it is of type "GeoLite2-ASN": name another file`},
		"geo.owners = 'country.mmdb'":    {`w.toml:5: geo.owners = "country.mmdb": there are no owners in it, it is of type "GeoLite2-Country": name another file`},
		"geo.owners = 'other.mmdb'":      {`w.toml:5: geo.owners = "other.mmdb": ` + format},
		"geo.owners = 'empty.mmdb'":      {`w.toml:5: geo.owners = "empty.mmdb": ` + format},
		"[[rule]]\ncountries = ['DE']\nowners = [64496]": {
			`w.toml:6: rule[0].countries: nothing says where addresses are: name a file such as GeoLite2-Country.mmdb in geo.countries`,
			`w.toml:7: rule[0].owners: nothing says whose addresses are: name a file such as GeoLite2-ASN.mmdb in geo.owners`,
		},
	} {
		got := said(t, dir, required+text)
		for i := range got { // what the module says of the format is its own
			if before, _, found := strings.Cut(got[i], format); found {
				got[i] = before + format
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}
