package policy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// build saves a filter of lists.
func build(t testing.TB, b *FilterBuilder, lists ...string) Filter {
	t.Helper()
	defer b.Close()
	for _, list := range lists {
		if _, err := b.Read(t.Context(), strings.NewReader(list), AnyForm); err != nil {
			t.Fatal(err)
		}
	}
	f, err := b.Save(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// passwords are n of them, beginning with number from, one a line.
func passwords(from, n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "password%d\n", from+i)
	}
	return text.String()
}

func TestFilterBuilder(t *testing.T) {
	tests := []struct {
		name   string
		shard  int // keys
		lists  []string
		want   int // of password0 and on
		shards int
	}{
		{"one password", 0, []string{passwords(0, 1)}, 1, 1},
		{"in memory", 0, []string{passwords(0, 1000)}, 1000, 1},
		{"exactly as many as have room", 1000, []string{passwords(0, 1000)}, 1000, 1},
		{"one more", 1000, []string{passwords(0, 1001)}, 1001, 2},
		{"several shards", 1000, []string{passwords(0, 20_000)}, 20_000, 32},
		{"as many shards as can be", 20, []string{passwords(0, 7_000)}, 7_000, 256},
		{"several lists", 1000, []string{passwords(0, 3000), passwords(3000, 10), passwords(3010, 1990)}, 5000, 8},
		{"the same twice", 1000, []string{passwords(0, 5000), passwords(0, 5000)}, 5000, 16},
		{"one, again and again", 10, []string{strings.Repeat("password0\n", 5000)}, 1, 1},
		{"a few, again and again", 1000, []string{strings.Repeat(passwords(0, 600), 50)}, 600, 32},
		{"passwords and hashes", 0, []string{passwords(0, 10), hashOf("password9") + "\n" + hashOf("password10") + ":3\n"}, 11, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "filter")
			saved := build(t, &FilterBuilder{Path: path, Shard: tt.shard}, tt.lists...)
			list, err := OpenCommon(path)
			if err != nil {
				t.Fatal(err)
			}
			octets, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if saved.Keys != uint64(tt.want) || list.Len() != saved.Keys || saved.Octets != int64(len(octets)) {
				t.Errorf("saved %+v, opened %d, octets %d; want %d", saved, list.Len(), len(octets), tt.want)
			}
			if shards := binary.LittleEndian.Uint32(octets[12:]); shards != uint32(tt.shards) {
				t.Errorf("%d shards, want %d", shards, tt.shards)
			}
			for i := range tt.want {
				if !list.Has(fmt.Appendf(nil, "password%d", i)) {
					t.Fatalf("password%d isn't on the list", i)
				}
			}
			wrong := 0
			for i := range 10_000 {
				if list.Has(fmt.Appendf(nil, "other%d", i)) {
					wrong++
				}
			}
			if wrong > 3 { // 0.15 would be usual
				t.Errorf("%d of 10,000 others are on the list", wrong)
			}
			onlyFile(t, path)
		})
	}
}

// onlyFile sees that nothing remains beside the file.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s remains", e.Name())
		}
	}
}

func TestFilterBuilderErrors(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	alike := func(n int) string { // hashes with the same first octet
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "00%014X%024d\n", i, 0)
		}
		return text.String()
	}
	tests := []struct {
		name, list string
		form       ListForm
		shard      int
		ctx        context.Context
		want       string
	}{
		{"nothing", "\n", AnyForm, 0, t.Context(), "there is no password in it"},
		{"passwords where hashes were meant", "sesame\n", SHA1Form, 0, t.Context(), "line 1 isn't a SHA-1"},
		{"hashes that begin alike", alike(4000), AnyForm, 1000, t.Context(), "hashes that begin alike"},
		{"interrupted", passwords(0, 4000), AnyForm, 1000, ended, "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "filter")
			if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			b := &FilterBuilder{Path: path, Shard: tt.shard}
			defer b.Close()
			_, err := b.Read(tt.ctx, strings.NewReader(tt.list), tt.form)
			if err == nil {
				_, err = b.Save(tt.ctx)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "sesame") {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if text, err := os.ReadFile(path); string(text) != "before" {
				t.Errorf("what was there is %q, %v", text, err)
			}
			onlyFile(t, path)
		})
	}
	b := &FilterBuilder{Path: filepath.Join(t.TempDir(), "nowhere", "filter")}
	if n, err := b.Read(t.Context(), strings.NewReader(hashOf("x")+"\na\x00\n"), PlainForm); err != nil || n != (ListCount{1, 1}) {
		t.Errorf("a hash read as a password: %+v, %v", n, err)
	}
	if _, err := b.Save(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such folder: %v", err)
	}
}

// sampleFilter is a filter of four shards, two of them without keys.
func sampleFilter(t testing.TB) []byte {
	path := filepath.Join(t.TempDir(), "filter")
	var text strings.Builder
	for i := range 6 {
		fmt.Fprintf(&text, "00%014X%024d\n80%014[1]X%024[2]d\n", i, 0)
	}
	build(t, &FilterBuilder{Path: path, Shard: 4}, text.String())
	octets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// Whatever octet is damaged and wherever the file ends, that is noticed.
func TestFilterDamaged(t *testing.T) {
	whole := sampleFilter(t)
	parse := func(octets []byte) error {
		_, err := readFuse(bytes.NewReader(octets), int64(len(octets)))
		return err
	}
	if err := parse(whole); err != nil {
		t.Fatal(err)
	}
	for i := len(fuseMagic); i < len(whole); i++ {
		for _, flip := range []byte{1, 0x80, 0xff} {
			damaged := bytes.Clone(whole)
			damaged[i] ^= flip
			if parse(damaged) == nil {
				t.Errorf("octet %d, xor %#x: no error", i, flip)
			}
		}
		if err := parse(whole[:i]); !errors.Is(err, errCutOff) {
			t.Errorf("cut off after octet %d: %v", i, err)
		}
	}
	if err := parse(append(bytes.Clone(whole), 0)); err == nil || !strings.Contains(err.Error(), "1 octets too many") {
		t.Errorf("too long: %v", err)
	}
	if err := parse(append(append(bytes.Clone(whole[:8]), 2), whole[9:]...)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("of the next version: %v", err)
	}
	// The file became shorter between a look at its size and its reading.
	if _, err := readFuse(bytes.NewReader(whole[:len(whole)-1]), int64(len(whole))); !errors.Is(err, errCutOff) {
		t.Errorf("cut off while it is read: %v", err)
	}
}

// What a filter says of its own shape is believed no more for its checksum being right.
func TestFilterShape(t *testing.T) {
	part := fusePart{SegmentLength: 4, SegmentCount: 1, Keys: 1}
	tests := []struct {
		name   string
		header fuseHeader
		parts  []fusePart
		prints int
		fine   bool
	}{
		{"sound", fuseHeader{Shards: 1, Keys: 1}, []fusePart{part}, 12, true},
		{"no keys", fuseHeader{Shards: 1}, []fusePart{{}}, 0, true},
		{"no shards", fuseHeader{}, nil, 0, false},
		{"three shards", fuseHeader{Shards: 3, Keys: 3}, []fusePart{part, part, part}, 36, false},
		{"too many shards", fuseHeader{Shards: 512}, make([]fusePart, 512), 0, false},
		{"other keys in all", fuseHeader{Shards: 1, Keys: 2}, []fusePart{part}, 12, false},
		{"more keys than fingerprints", fuseHeader{Shards: 1, Keys: 13}, []fusePart{{SegmentLength: 4, SegmentCount: 1, Keys: 13}}, 12, false},
		{"no keys, but a seed", fuseHeader{Shards: 1}, []fusePart{{Seed: 1}}, 0, false},
		{"no segment", fuseHeader{Shards: 1, Keys: 1}, []fusePart{{SegmentLength: 4, Keys: 1}}, 8, false},
		{"segments of no length", fuseHeader{Shards: 1, Keys: 1}, []fusePart{{SegmentCount: 1, Keys: 1}}, 0, false},
		{"segments of three", fuseHeader{Shards: 1, Keys: 1}, []fusePart{{SegmentLength: 3, SegmentCount: 1, Keys: 1}}, 9, false},
		{"segments too long", fuseHeader{Shards: 1, Keys: 1}, []fusePart{{SegmentLength: 1 << 19, SegmentCount: 1, Keys: 1}}, 3 << 19, false},
		{"more than the file has", fuseHeader{Shards: 1, Keys: 1}, []fusePart{{SegmentLength: 4, SegmentCount: 1 << 20, Keys: 1}}, 12, false},
		{"more than there can be", fuseHeader{Shards: 1, Keys: 1}, []fusePart{{SegmentLength: 1 << 18, SegmentCount: 1<<32 - 1, Keys: 1}}, 12, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prints := make([]byte, tt.prints*printSize)
			tt.header.Magic, tt.header.Version = [8]byte([]byte(fuseMagic)), fuseVersion
			tt.header.Checksum = crc32.Checksum(prints, castagnoli)
			octets := append(headOf(tt.header, tt.parts), prints...)
			f, err := readFuse(bytes.NewReader(octets), int64(len(octets)))
			if (err == nil) != tt.fine {
				t.Fatal(err)
			}
			if err == nil {
				f.has(0)
				f.has(1<<64 - 1)
			}
		})
	}
}

// FilterErrs is what strangers to the list are told.
func TestFilterErrs(t *testing.T) {
	const n, tries = 200_000, 4_000_000
	draw := rand.New(rand.NewPCG(5, 1))
	path := filepath.Join(t.TempDir(), "filter")
	b := &FilterBuilder{Path: path, Shard: 50_000}
	defer b.Close()
	var text strings.Builder
	for range n {
		fmt.Fprintf(&text, "%016X%024d\n", draw.Uint64(), 0)
	}
	f := build(t, b, text.String())
	octets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	filter, err := readFuse(bytes.NewReader(octets), int64(len(octets)))
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for range tries {
		if filter.has(draw.Uint64()) {
			wrong++
		}
	}
	t.Logf("%d of %d are wrong, 1 in %d; %.3f octets a key", wrong, tries, tries/max(wrong, 1), float64(f.Octets)/n)
	// 61 are usual, and 5 standard deviations are 39.
	if wrong < 22 || wrong > 100 {
		t.Errorf("%d of %d are wrong, want some %d", wrong, tries, tries/FilterErrs)
	}
	if each := float64(f.Octets) / n; each > 2.5 {
		t.Errorf("%.3f octets a key", each)
	}
}

func FuzzFilter(f *testing.F) {
	whole := sampleFilter(f)
	f.Add(whole, uint64(1))
	f.Add(whole[:len(whole)/2], uint64(1<<63))
	f.Add([]byte(fuseMagic), uint64(0))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, input []byte, key uint64) {
		octets := resigned(input)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		filter, err := readFuse(bytes.NewReader(octets), int64(len(octets)))
		runtime.ReadMemStats(&after)
		// Beside the fingerprints: the head, a shard's description and a buffer for each.
		if most := uint64(3*len(octets) + 256<<10); after.TotalAlloc-before.TotalAlloc > most {
			t.Errorf("%d octets allocated for %d", after.TotalAlloc-before.TotalAlloc, len(octets))
		}
		if err != nil {
			return
		}
		filter.has(key)
		filter.has(^key)
		if got := octetsOf(t, filter, octets); !bytes.Equal(got, octets) {
			t.Errorf("read %x, and wrote %x", octets, got)
		}
	})
}

// resigned has the right checksums, as far as there is room: else no fuzzer gets beyond them.
func resigned(input []byte) []byte {
	octets := bytes.Clone(input)
	if len(octets) < headerSize {
		return octets
	}
	end := headerSize + int(min(binary.LittleEndian.Uint32(octets[12:]), maxShards))*partSize
	if len(octets) < end+checksumSize {
		return octets
	}
	binary.LittleEndian.PutUint32(octets[headerSize-checksumSize:], crc32.Checksum(octets[end+checksumSize:], castagnoli))
	binary.LittleEndian.PutUint32(octets[end:], crc32.Checksum(octets[:end], castagnoli))
	return octets
}

// octetsOf writes a filter that was read from octets.
func octetsOf(t *testing.T, f *fuse, octets []byte) []byte {
	header, parts, err := readHead(bytes.NewReader(octets), int64(len(octets)))
	if err != nil {
		t.Fatal(err)
	}
	var prints []byte
	for _, shard := range f.shards {
		for _, fingerprint := range shard.Fingerprints {
			prints = binary.LittleEndian.AppendUint16(prints, fingerprint)
		}
	}
	header.Checksum = crc32.Checksum(prints, castagnoli)
	return append(headOf(header, parts), prints...)
}
