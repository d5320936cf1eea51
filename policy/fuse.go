package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"

	"github.com/FastFilter/xorfilter"
)

// A filter's file, numbers in little endian:
//
//	fuseHeader              28 octets
//	a fusePart a shard      20 octets each
//	CRC-32C of all that      4 octets
//	the shards' fingerprints 2 octets each
//
// A key's shard is told by its first bits. The checksums are against disks and copies that were
// cut off; who may write to the file may leave passwords out as well.
const (
	fuseMagic   = "\x89imapwf\n" // no text begins so
	fuseVersion = 1

	headerSize   = 28
	partSize     = 20
	checksumSize = 4
	printSize    = 2

	maxShards        = 256
	maxSegmentLength = 1 << 18 // as in xorfilter
)

type fuseHeader struct {
	Magic    [8]byte
	Version  uint32
	Shards   uint32 // a power of two
	Keys     uint64
	Checksum uint32 // CRC-32C of all fingerprints
}

// A fusePart says what is needed of a shard beside its fingerprints. All of it is 0 where the
// shard has no keys.
type fusePart struct {
	Seed          uint64
	SegmentLength uint32 // a power of two
	SegmentCount  uint32
	Keys          uint32
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errCutOff  = errors.New("the filter is cut off: copy or build it anew")
	errDamaged = errors.New("the filter is damaged: copy or build it anew")
)

// fuse is a set of keys that is wrong about 1 in 65,536 of those that aren't in it: binary fuse
// filters with fingerprints of 16 bits (Graf and Lemire, "Binary Fuse Filters", 2022).
type fuse struct {
	keys   uint64
	shards []xorfilter.BinaryFuse[uint16]
	shift  int // of a key, so that its shard's number remains
}

func (f *fuse) has(key uint64) bool {
	shard := &f.shards[key>>f.shift]
	return len(shard.Fingerprints) > 0 && shard.Contains(key)
}

func (f *fuse) size() uint64 { return f.keys }

// readFuse reads a filter whose file has so many octets. It allocates no more than those.
func readFuse(r io.Reader, size int64) (*fuse, error) {
	header, parts, err := readHead(r, size)
	if err != nil {
		return nil, err
	}
	f := &fuse{keys: header.Keys, shift: shiftOf(len(parts))}
	checksum := crc32.New(castagnoli)
	in := io.TeeReader(r, checksum)
	for _, p := range parts {
		shard := p.filter()
		if err := readPrints(in, shard.Fingerprints); err != nil {
			return nil, err
		}
		f.shards = append(f.shards, shard)
	}
	if checksum.Sum32() != header.Checksum {
		return nil, errDamaged
	}
	return f, nil
}

// readHead reads what stands before the fingerprints, and sees that they are as many as the
// file has room for.
func readHead(r io.Reader, size int64) (header fuseHeader, parts []fusePart, err error) {
	head := make([]byte, headerSize, headerSize+maxShards*partSize+checksumSize)
	if err := readFull(r, head); err != nil {
		return header, nil, err
	}
	binary.Decode(head, binary.LittleEndian, &header) // of the right size
	switch shards := header.Shards; {
	case header.Version != fuseVersion:
		return header, nil, fmt.Errorf("the filter is of version %d, and this program reads version %d: build it anew", header.Version, fuseVersion)
	case shards > maxShards, bits.OnesCount32(shards) != 1:
		return header, nil, errDamaged
	}
	head = head[:headerSize+header.Shards*partSize+checksumSize]
	if err := readFull(r, head[headerSize:]); err != nil {
		return header, nil, err
	}
	signed := head[:len(head)-checksumSize]
	if crc32.Checksum(signed, castagnoli) != binary.LittleEndian.Uint32(head[len(signed):]) {
		return header, nil, errDamaged
	}
	parts = make([]fusePart, header.Shards)
	binary.Decode(head[headerSize:], binary.LittleEndian, parts) // of the right size
	var keys, prints uint64
	for _, p := range parts {
		if !p.sound() {
			return header, nil, errDamaged
		}
		keys += uint64(p.Keys)
		prints += p.prints()
	}
	want := uint64(len(head)) + prints*printSize // some 2^41 at most
	switch {
	case keys != header.Keys:
		return header, nil, errDamaged
	case uint64(size) < want:
		return header, nil, errCutOff
	case uint64(size) > want:
		return header, nil, fmt.Errorf("the filter has %d octets too many: copy or build it anew", uint64(size)-want)
	}
	return header, parts, nil
}

// sound says whether Contains looks only where fingerprints are. It has the segment at
// SegmentCount and the one after, and finds places within them by masks.
func (p fusePart) sound() bool {
	if p.Keys == 0 {
		return p == fusePart{}
	}
	return bits.OnesCount32(p.SegmentLength) == 1 && p.SegmentLength <= maxSegmentLength &&
		p.SegmentCount > 0 && p.prints() >= uint64(p.Keys) && p.prints() < 1<<32
}

// prints is how many fingerprints there are.
func (p fusePart) prints() uint64 {
	if p.Keys == 0 {
		return 0
	}
	return (uint64(p.SegmentCount) + 2) * uint64(p.SegmentLength)
}

// filter returns the shard, with room for its fingerprints.
func (p fusePart) filter() (f xorfilter.BinaryFuse[uint16]) {
	if p.Keys == 0 {
		return f
	}
	f.Seed = p.Seed
	f.SegmentLength, f.SegmentLengthMask = p.SegmentLength, p.SegmentLength-1
	f.SegmentCount, f.SegmentCountLength = p.SegmentCount, p.SegmentCount*p.SegmentLength
	f.Fingerprints = make([]uint16, p.prints())
	return f
}

// shiftOf is what leaves the number of a shard of a key, of so many.
func shiftOf(shards int) int { return 64 - bits.TrailingZeros(uint(shards)) }

func readPrints(r io.Reader, prints []uint16) error {
	room := make([]byte, min(len(prints)*printSize, listBuffer))
	for len(prints) > 0 {
		octets := room[:min(len(prints)*printSize, len(room))]
		if err := readFull(r, octets); err != nil {
			return err
		}
		for i := range len(octets) / printSize {
			prints[i] = binary.LittleEndian.Uint16(octets[i*printSize:])
		}
		prints = prints[len(octets)/printSize:]
	}
	return nil
}

func readFull(r io.Reader, octets []byte) error {
	_, err := io.ReadFull(r, octets)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCutOff
	}
	return err
}
