package policy

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/FastFilter/xorfilter"
)

const (
	shardKeys = 4 << 20
	keySize   = 8 // octets
)

// FilterErrs is how rarely a filter takes a password for one that is on its list: once in so many.
const FilterErrs = 1 << 16

// A FilterBuilder makes the filter that [OpenCommon] reads of lists of passwords, up to some 2
// billion of them. It needs some 250 MB of memory, however long the lists are, and 8 octets for each
// password beside Path if there are more than 4 million. It isn't safe for concurrent use.
type FilterBuilder struct {
	Path  string // what Save writes; whatever is there is replaced
	Shard int    // keys that a shard has, about; 0: 4,194,304

	keys       []uint64
	partitions []*os.File // by the first octet of keys; none while all keys have room in memory
	spilled    uint64     // keys that are in partitions
}

// A Filter says what was saved.
type Filter struct {
	Keys   uint64 // different passwords
	Octets int64  // of the file
}

// Read adds the passwords of a list.
func (b *FilterBuilder) Read(ctx context.Context, r io.Reader, form ListForm) (ListCount, error) {
	n, err := readList(bufio.NewReaderSize(r, listBuffer), form, func(key uint64) error {
		if len(b.keys) == b.shard() {
			if err := errors.Join(ctx.Err(), b.makeRoom()); err != nil {
				return err
			}
		}
		b.keys = append(b.keys, key)
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("policy: reading a list of passwords: %w", err)
	}
	return n, nil
}

// Save writes the filter, whole and on the disk or not at all. It can be called once.
func (b *FilterBuilder) Save(ctx context.Context) (Filter, error) {
	f, err := b.save(ctx)
	if err != nil {
		return Filter{}, fmt.Errorf("policy: writing filter %s: %w", b.Path, err)
	}
	return f, nil
}

// Close frees what Read needed.
func (b *FilterBuilder) Close() error {
	var errs []error
	for _, p := range b.partitions {
		errs = append(errs, p.Close())
	}
	b.partitions, b.keys = nil, nil
	return errors.Join(errs...)
}

func (b *FilterBuilder) shard() int {
	if b.Shard > 0 {
		return b.Shard
	}
	return shardKeys
}

// makeRoom makes room for at least half a shard of keys.
func (b *FilterBuilder) makeRoom() error {
	b.keys = distinct(b.keys)
	if len(b.keys) <= b.shard()/2 {
		return nil
	}
	return b.spill()
}

// spill moves the keys, which are in ascending order, to the partitions.
func (b *FilterBuilder) spill() error {
	if err := b.open(); err != nil {
		return err
	}
	b.spilled += uint64(len(b.keys))
	out := bufio.NewWriterSize(nil, listBuffer)
	for rest := b.keys; len(rest) > 0; {
		first := rest[0] >> 56
		end := len(rest)
		if first < maxShards-1 {
			end, _ = slices.BinarySearch(rest, (first+1)<<56)
		}
		out.Reset(b.partitions[first])
		if err := writeKeys(out, rest[:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	b.keys = b.keys[:0]
	return nil
}

func writeKeys(out *bufio.Writer, keys []uint64) error {
	var room [keySize]byte
	for _, key := range keys {
		binary.LittleEndian.PutUint64(room[:], key)
		out.Write(room[:]) // Flush says what was wrong
	}
	return out.Flush()
}

// open makes the partitions. They are files without a name, so that none remains however we end.
func (b *FilterBuilder) open() error {
	for len(b.partitions) < maxShards {
		file, err := os.CreateTemp(filepath.Dir(b.Path), ".passwords-*") // mode 0600
		if err != nil {
			return err
		}
		b.partitions = append(b.partitions, file)
		if err := os.Remove(file.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (b *FilterBuilder) save(ctx context.Context) (f Filter, err error) {
	b.keys = distinct(b.keys)
	switch {
	case b.partitions != nil:
		if err := b.spill(); err != nil {
			return f, err
		}
	case len(b.keys) == 0:
		return f, errNoPasswords
	}
	// Anybody may read it, such as the user that we serve as.
	temp, err := os.OpenFile(b.Path+"."+rand.Text()+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return f, err
	}
	defer os.Remove(temp.Name())
	f, err = b.write(ctx, temp)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return f, err
	}
	if err := os.Rename(temp.Name(), b.Path); err != nil {
		return f, err
	}
	return f, syncFolder(filepath.Dir(b.Path))
}

// write writes the shards, and then before them what they became.
func (b *FilterBuilder) write(ctx context.Context, to *os.File) (Filter, error) {
	parts := make([]fusePart, b.shards())
	begin := int64(headerSize + len(parts)*partSize + checksumSize)
	if _, err := to.Seek(begin, io.SeekStart); err != nil {
		return Filter{}, err
	}
	checksum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(to, checksum), listBuffer)
	header := fuseHeader{Magic: [8]byte([]byte(fuseMagic)), Version: fuseVersion, Shards: uint32(len(parts))}
	octets := begin
	var builder xorfilter.BinaryFuseBuilder
	for i := range parts {
		keys, err := b.keysOf(ctx, i, len(parts))
		if err != nil {
			return Filter{}, err
		}
		if parts[i], err = writeShard(out, &builder, keys); err != nil {
			return Filter{}, err
		}
		header.Keys += uint64(parts[i].Keys)
		octets += int64(parts[i].prints()) * printSize
	}
	if err := out.Flush(); err != nil {
		return Filter{}, err
	}
	header.Checksum = checksum.Sum32()
	_, err := to.WriteAt(headOf(header, parts), 0)
	return Filter{Keys: header.Keys, Octets: octets}, err
}

// shards is how many it takes, keys that are in several partitions twice included.
func (b *FilterBuilder) shards() int {
	n := 1
	for n < maxShards && b.spilled/uint64(n) > uint64(b.shard()) {
		n *= 2
	}
	return n
}

// keysOf returns the keys of shard i of n, each once.
func (b *FilterBuilder) keysOf(ctx context.Context, i, n int) ([]uint64, error) {
	if b.partitions == nil {
		return b.keys, nil
	}
	keys := b.keys[:0]
	each := maxShards / n
	for _, file := range b.partitions[i*each : (i+1)*each] {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if keys, err = b.readPartition(file, keys); err != nil {
			return nil, err
		}
	}
	b.keys = distinct(keys) // its room serves the next shard
	return b.keys, nil
}

// readPartition appends the keys of a partition. Lists may name a password any number of times, and
// it still takes no more memory than two shards do of different ones.
func (b *FilterBuilder) readPartition(file *os.File, keys []uint64) ([]uint64, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	most := 4 * b.shard()
	room := make([]byte, listBuffer)
	for {
		n, err := io.ReadFull(file, room)
		for octets := room[:n]; len(octets) > 0; octets = octets[keySize:] {
			keys = append(keys, binary.LittleEndian.Uint64(octets))
		}
		if len(keys) >= most {
			if keys = distinct(keys); len(keys) > most/2 {
				return nil, errors.New("there are more than 2 billion different passwords, or hashes that begin alike as those of passwords don't: leave some out")
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return keys, nil
		case err != nil:
			return nil, err
		}
	}
}

// writeShard writes the fingerprints of a shard with these keys.
func writeShard(w io.Writer, builder *xorfilter.BinaryFuseBuilder, keys []uint64) (fusePart, error) {
	if len(keys) == 0 {
		return fusePart{}, nil
	}
	f, err := xorfilter.BuildBinaryFuse[uint16](builder, keys)
	if err != nil {
		return fusePart{}, err
	}
	part := fusePart{Seed: f.Seed, SegmentLength: f.SegmentLength, SegmentCount: f.SegmentCount, Keys: uint32(len(keys))}
	var room [printSize]byte
	for _, fingerprint := range f.Fingerprints {
		binary.LittleEndian.PutUint16(room[:], fingerprint)
		if _, err := w.Write(room[:]); err != nil {
			return fusePart{}, err
		}
	}
	return part, nil
}

// headOf is what readHead reads.
func headOf(header fuseHeader, parts []fusePart) []byte {
	head, _ := binary.Append(nil, binary.LittleEndian, header) // all of a fixed size
	head, _ = binary.Append(head, binary.LittleEndian, parts)
	return binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
}

// syncFolder makes a rename in it last.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
