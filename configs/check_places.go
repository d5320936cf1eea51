package configs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
	"golang.org/x/text/language"
)

// This file judges where the accounts of a rule may be: networks from files, countries, owners.

// networkFile refuses a file in which a line is neither a network nor an address. What a line
// may be is what policy.ReadNetworks takes.
func (c *checker) networkFile(key, path string) {
	if path == "" {
		c.refuse(key, path, "must be the path of a file with a network or an address a line")
		return
	}
	file, err := openRegular(path)
	if err != nil {
		c.refuse(key, path, "%v", unreadable(err))
		return
	}
	defer file.Close()
	bad, err := badNetworks(file)
	if err != nil {
		c.refuse(key, path, "%v", unreadable(err))
		return
	}
	if len(bad) == 0 {
		return
	}
	const most = 5
	more := ""
	if len(bad) > most {
		more = fmt.Sprintf(" and %d more", len(bad)-most)
		bad = bad[:most]
	}
	c.refuse(key, path, "each line must be a network or an address, such as 203.0.113.0/24 or 2001:db8::1; these aren't: %s%s", strings.Join(bad, ", "), more)
}

// badNetworks returns the numbers of the lines that are neither a network nor an address. What
// stands there isn't shown: a file that was named by mistake may hold secrets.
func badNetworks(r io.Reader) (bad []string, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		if i := strings.IndexAny(text, "#;"); i >= 0 { // a comment
			text = text[:i]
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		_, prefixErr := netip.ParsePrefix(text)
		if _, addrErr := netip.ParseAddr(text); prefixErr != nil && addrErr != nil {
			bad = append(bad, fmt.Sprintf("line %d", n))
		}
	}
	return bad, lines.Err()
}

// openRegular doesn't wait for somebody to write into a pipe.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("must be a regular file")
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

var countryCode = regexp.MustCompile(`^[A-Z]{2}$`)

// places judges the countries and owners, and then asks for the files that know them.
func (c *checker) places(key string, r Rule) {
	good := true
	for j, code := range r.Countries {
		key := fmt.Sprintf("%s.countries[%d]", key, j)
		c.country(key, code)
		good = good && !c.failed[key]
	}
	for j, owner := range r.Owners {
		key := fmt.Sprintf("%s.owners[%d]", key, j)
		if owner == 0 {
			c.refuse(key, 0, "must be the number of an autonomous system, from 1 on, such as 64496 for AS64496")
		}
		good = good && !c.failed[key]
	}
	if good && len(r.Countries) > 0 && c.Geo.Countries == "" {
		c.add(key+".countries", key+".countries: nothing says where addresses are: name a file such as GeoLite2-Country.mmdb in geo.countries", false)
	}
	if good && len(r.Owners) > 0 && c.Geo.Owners == "" {
		c.add(key+".owners", key+".owners: nothing says whose addresses are: name a file such as GeoLite2-ASN.mmdb in geo.owners", false)
	}
}

// country refuses what no code can be, and warns of those that no file has: a rule against
// "UK" would let the United Kingdom in.
func (c *checker) country(key, code string) {
	if !countryCode.MatchString(code) {
		c.refuse(key, code, `must be the two capital letters of a country (ISO 3166-1), such as "DE"`)
		return
	}
	region, err := language.ParseRegion(code)
	if err != nil || !region.IsCountry() {
		c.warn(key, code, "never used: no country has these letters (ISO 3166-1)")
	} else if now := region.Canonicalize().String(); now != code {
		c.warn(key, code, "never used: the country's letters are %q (ISO 3166-1)", now)
	}
}

// geoFiles refuses files of another kind. What can't be read at all is for geo to say.
func (c *checker) geoFiles() {
	c.geoFile("geo.countries", c.Geo.Countries, "countries", []any{"country", "iso_code"}, []any{"registered_country", "iso_code"})
	c.geoFile("geo.owners", c.Geo.Owners, "owners", []any{"autonomous_system_number"})
}

// geoFile looks for the first record that has what the paths lead to. The file, of tens of
// megabytes, isn't read as a whole: serve goes through all of it.
func (c *checker) geoFile(key, path, what string, paths ...[]any) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return
	}
	db, err := maxminddb.Open(path)
	switch _, system := errors.AsType[*fs.PathError](err); {
	case system:
		return
	case err != nil:
		c.refuse(key, path, "must be in MaxMind's format (.mmdb): %v", err)
		return
	}
	defer db.Close()
	for result := range db.Networks() {
		for _, path := range paths {
			var value any
			if err := result.DecodePath(&value, path...); err == nil && value != nil {
				return
			}
		}
	}
	c.refuse(key, path, "there are no %s in it, it is of type %.50q: name another file", what, db.Metadata.DatabaseType)
}
