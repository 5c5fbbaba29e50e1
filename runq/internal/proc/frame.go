package proc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
)

// A frame on the wire, little endian:
//
//	0  length of all that follows, uint32
//	4  CRC-32C of all that follows, uint32
//	8  version, uint8
//	9  kind, uint8: the caller's
//	10 zero, uint16
//	12 number of items, uint32
//	16 items, each a uvarint length and so many bytes
const (
	frameVersion      = 1
	lengthBytes       = 4
	headerBytes       = 16
	uvarintBytesLimit = 5
)

// MaxFrameBytes bounds a frame, so that a damaged length cannot ask for memory.
const MaxFrameBytes = 4 << 20

var (
	// ErrFrame says that bytes are no frame: a peer is broken, or not ours.
	ErrFrame = errors.New("damaged frame")
	// ErrFrameFull says that an item does not fit any more: send the batch first.
	ErrFrameFull = errors.New("the frame is full")
)

var emptyHeader [headerBytes]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch builds a frame in a buffer that it keeps. The zero value is an empty
// batch of kind 0.
type Batch struct {
	buf   []byte
	kind  byte
	count uint32
}

// Reset empties the batch and gives it a kind.
func (b *Batch) Reset(kind byte) {
	b.buf, b.kind, b.count = b.buf[:0], kind, 0
}

// Len returns the number of items.
func (b *Batch) Len() int { return int(b.count) }

// Append adds a copy of an item.
func (b *Batch) Append(item []byte) error {
	room, err := b.Extend(len(item))
	if err == nil {
		copy(room, item)
	}
	return err
}

// Extend adds an item of a size and returns it for the caller to fill
// before the next call. Its bytes are left from earlier batches.
func (b *Batch) Extend(sizeBytes int) ([]byte, error) {
	if len(b.buf) == 0 {
		b.buf = append(b.buf, emptyHeader[:]...)
	}
	if sizeBytes < 0 || sizeBytes > MaxFrameBytes || len(b.buf)+uvarintBytesLimit+sizeBytes > MaxFrameBytes {
		return nil, fmt.Errorf("append item of %d bytes to a frame of %d: %w (at most %d)", sizeBytes, len(b.buf), ErrFrameFull, MaxFrameBytes)
	}
	b.buf = binary.AppendUvarint(b.buf, uint64(sizeBytes))
	start := len(b.buf)
	b.buf = slices.Grow(b.buf, sizeBytes)[:start+sizeBytes]
	b.count++
	return b.buf[start:], nil
}

// Bytes seals the batch and returns the frame, valid until the next change.
func (b *Batch) Bytes() []byte {
	if len(b.buf) == 0 {
		b.buf = append(b.buf, emptyHeader[:]...)
	}
	binary.LittleEndian.PutUint32(b.buf, uint32(len(b.buf)-lengthBytes))
	b.buf[8], b.buf[9] = frameVersion, b.kind
	binary.LittleEndian.PutUint32(b.buf[12:], b.count)
	binary.LittleEndian.PutUint32(b.buf[4:], crc32.Checksum(b.buf[8:], castagnoli))
	return b.buf
}

// Frame is a checked frame. It lies in the buffer that it was decoded from.
type Frame struct {
	Kind  byte
	count int
	items []byte
}

// Len returns the number of items.
func (f Frame) Len() int { return f.count }

// Items walks over the items, which are valid as long as the frame is.
func (f Frame) Items() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := f.items; len(rest) > 0; {
			size, n := binary.Uvarint(rest)
			end := n + int(size)
			if !yield(rest[n:end:end]) {
				return
			}
			rest = rest[end:]
		}
	}
}

// frameSize reads the size of a frame from its first bytes.
func frameSize(head []byte) (int, error) {
	size := uint64(binary.LittleEndian.Uint32(head)) + lengthBytes
	if size < headerBytes || size > MaxFrameBytes {
		return 0, fmt.Errorf("%w: it claims %d bytes, allowed are %d to %d", ErrFrame, size, headerBytes, MaxFrameBytes)
	}
	return int(size), nil
}

// Decode checks one whole frame, each item's length included, so that Items
// cannot fail.
func Decode(data []byte) (Frame, error) {
	if len(data) < headerBytes {
		return Frame{}, fmt.Errorf("%w: %d bytes are less than a header", ErrFrame, len(data))
	}
	size, err := frameSize(data)
	if err != nil {
		return Frame{}, err
	}
	if size != len(data) {
		return Frame{}, fmt.Errorf("%w: it claims %d bytes and has %d", ErrFrame, size, len(data))
	}
	if sum := crc32.Checksum(data[8:], castagnoli); sum != binary.LittleEndian.Uint32(data[4:]) {
		return Frame{}, fmt.Errorf("%w: wrong checksum", ErrFrame)
	}
	if data[8] != frameVersion || data[10] != 0 || data[11] != 0 {
		return Frame{}, fmt.Errorf("%w: version %d, and this program speaks %d: run the same program on both ends", ErrFrame, data[8], frameVersion)
	}
	f := Frame{Kind: data[9], items: data[headerBytes:]}
	for rest := f.items; len(rest) > 0; f.count++ {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n) {
			return Frame{}, fmt.Errorf("%w: item %d is cut short", ErrFrame, f.count)
		}
		rest = rest[n+int(length):]
	}
	if claimed := binary.LittleEndian.Uint32(data[12:]); uint64(claimed) != uint64(f.count) {
		return Frame{}, fmt.Errorf("%w: it claims %d items and has %d", ErrFrame, claimed, f.count)
	}
	return f, nil
}
