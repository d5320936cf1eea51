package policy

import (
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Geo says where addresses are, as far as files in MaxMind's format say so. Its zero value
// knows nothing.
type Geo struct {
	Countries *File[*Atlas[string]] // by ISO 3166-1 alpha-2; nil: absent
	Owners    *File[*Atlas[uint32]] // by autonomous system; nil: absent

	// Refuse: a rule that needs a file which is absent denies all that its other matchers
	// fit, whatever else it says. Otherwise it is passed over.
	Refuse bool
}

// An Atlas is the places of addresses. It doesn't change, and is all in memory: a file that
// is mapped into it would end the program when somebody cuts it short.
type Atlas[V comparable] struct {
	db     *maxminddb.Reader
	places map[uintptr]V // by the offsets of the records, of which many networks share one
}

// Of returns the place of the address, false where the atlas doesn't know it.
func (a *Atlas[V]) Of(addr netip.Addr) (V, bool) {
	result := a.db.Lookup(addr)
	if !result.Found() {
		var none V
		return none, false
	}
	place, ok := a.places[result.Offset()]
	return place, ok
}

// OpenCountries reads a file such as GeoLite2-Country.mmdb or GeoLite2-City.mmdb. The country is
// that of the address, or else that of its owner. Errors are as those of [Open].
func OpenCountries(path string) (*File[*Atlas[string]], error) {
	return Open(path, func(r io.Reader, size int64) (*Atlas[string], error) {
		return readAtlas[string](r, size, "countries", []any{"country", "iso_code"}, []any{"registered_country", "iso_code"})
	})
}

// OpenOwners reads a file such as GeoLite2-ASN.mmdb or GeoIP2-ISP.mmdb. Errors are as
// those of [Open].
func OpenOwners(path string) (*File[*Atlas[uint32]], error) {
	return Open(path, func(r io.Reader, size int64) (*Atlas[uint32], error) {
		return readAtlas[uint32](r, size, "owners", []any{"autonomous_system_number"})
	})
}

// maxAtlas is far above the largest of these files, which have tens of megabytes.
const maxAtlas = 1 << 30

// readAtlas goes through the whole file, so that damage shows here and not when somebody signs
// in. Of each record it takes the first path that leads to something; what names that.
func readAtlas[V comparable](r io.Reader, size int64, what string, paths ...[]any) (*Atlas[V], error) {
	if size > maxAtlas {
		return nil, fmt.Errorf("larger than %d octets", maxAtlas)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	db, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("must be in MaxMind's format (.mmdb): %w", err)
	}
	a := &Atlas[V]{db: db, places: make(map[uintptr]V)}
	var none V
	seen := make(map[uintptr]bool)
	for result := range db.Networks() {
		if err := result.Err(); err != nil {
			return nil, fmt.Errorf("damaged: %w", err)
		}
		offset := result.Offset()
		if seen[offset] {
			continue
		}
		seen[offset] = true
		place, err := placeOf[V](result, paths)
		if err != nil {
			return nil, fmt.Errorf("damaged, or not about %s but of type %.50q: %w", what, db.Metadata.DatabaseType, err)
		}
		if place != none {
			a.places[offset] = place
		}
	}
	if len(a.places) == 0 {
		return nil, fmt.Errorf("there are no %s in it, it is of type %.50q: name another file", what, db.Metadata.DatabaseType)
	}
	return a, nil
}

func placeOf[V comparable](result maxminddb.Result, paths [][]any) (place V, err error) {
	var none V
	for _, path := range paths {
		if err = result.DecodePath(&place, path...); err != nil || place != none {
			return place, err
		}
	}
	return none, nil
}

// fits says if the address is in one of the countries, and belongs to one of the owners, where
// such are given. Where no file says no, but one is absent, nobody can tell: known is false.
func (g *Geo) fits(addr netip.Addr, countries []string, owners []uint32) (fits, known bool) {
	if len(countries) == 0 && len(owners) == 0 {
		return true, true
	}
	if g == nil {
		return false, false
	}
	inCountry, countryKnown := isIn(g.Countries, addr, countries)
	ofOwner, ownerKnown := isIn(g.Owners, addr, owners)
	if countryKnown && !inCountry || ownerKnown && !ofOwner {
		return false, true
	}
	return inCountry && ofOwner, countryKnown && ownerKnown
}

// isIn says if the address is in one of the places; known is false where no file says so.
func isIn[V comparable](file *File[*Atlas[V]], addr netip.Addr, places []V) (in, known bool) {
	if len(places) == 0 {
		return true, true
	}
	if file == nil {
		return false, false
	}
	atlas, known := file.Value()
	if !known {
		return false, false
	}
	place, ok := atlas.Of(addr)
	return ok && slices.Contains(places, place), true
}

// refuses says what becomes of rules whose files are absent.
func (g *Geo) refuses() bool { return g != nil && g.Refuse }
