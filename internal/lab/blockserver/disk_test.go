package blockserver

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// sectors is the contract for one disk, byte by byte: what each sector holds
// durably, and what the writes since then made of it, the oldest first.
type sectors struct {
	size     int
	durable  [][]byte
	volatile [][][]byte
}

func newSectors(count, size int) *sectors {
	s := &sectors{size: size, durable: make([][]byte, count), volatile: make([][][]byte, count)}
	for i := range s.durable {
		s.durable[i] = make([]byte, size)
	}
	return s
}

func (s *sectors) newest(i int) []byte {
	if v := s.volatile[i]; len(v) > 0 {
		return v[len(v)-1]
	}
	return s.durable[i]
}

func (s *sectors) write(offset int, data []byte, fua bool) {
	for i := range s.durable {
		from, to := max(offset, i*s.size), min(offset+len(data), (i+1)*s.size)
		if from >= to {
			continue
		}
		b := slices.Clone(s.newest(i))
		copy(b[from-i*s.size:], data[from-offset:to-offset])
		s.volatile[i] = append(s.volatile[i], b)
		if fua {
			s.flush(i)
		}
	}
}

func (s *sectors) flush(i int) { s.durable[i], s.volatile[i] = s.newest(i), nil }

// allows reports whether a sector of the image may hold this.
func (s *sectors) allows(i int, got []byte) bool {
	return bytes.Equal(got, s.durable[i]) || slices.ContainsFunc(s.volatile[i], func(v []byte) bool { return bytes.Equal(got, v) })
}

// The whole disk, down to the file, against the contract. A small cache stores
// early, which the contract allows at any time: what the file then holds must be
// something that a power cut may leave.
func TestDiskKeepsTheContract(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		sector := rapid.SampledFrom([]int{512, 4096}).Draw(t, "sector")
		count := rapid.IntRange(1, 24).Draw(t, "sectors")
		o := Options{
			SizeBytes: int64(count * sector), SectorBytes: sector, Seed: rapid.Uint64().Draw(t, "seed"),
			CacheBytes: rapid.SampledFrom([]int{16 * (sector + 128), 1 << 20}).Draw(t, "cache"), KeepAll: rapid.Bool().Draw(t, "keep all"),
		}
		path := filepath.Join(dir, "image")
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		d, err := openDisk(path, o.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = d.file.Close() }() // It is only read from then on.
		want := newSectors(count, sector)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			step(t, d, want, o)
			check(t, d, want, path)
		}
	})
}

// step does one thing to disk and contract alike.
func step(t *rapid.T, d *disk, want *sectors, o Options) {
	size := int(o.SizeBytes)
	offset := rapid.IntRange(0, size).Draw(t, "offset")
	n := rapid.IntRange(0, size-offset).Draw(t, "length")
	b := rapid.Byte().Draw(t, "byte")
	flag := rapid.Bool().Draw(t, "fua")
	boot := d.boot()
	var err error
	switch rapid.SampledFrom([]string{"write", "write", "write", "zero", "zero hole", "trim", "flush", "cut"}).Draw(t, "step") {
	case "write":
		data := bytes.Repeat([]byte{b}, n)
		err = d.write(boot, int64(offset), data, flag)
		want.write(offset, data, flag)
	case "zero":
		err = d.zero(boot, int64(offset), int64(n), flag, false)
		want.write(offset, make([]byte, n), flag)
	case "zero hole":
		err = d.zero(boot, int64(offset), int64(n), flag, true)
		want.write(offset, make([]byte, n), flag)
	case "trim":
		err = d.trim(boot, int64(offset), int64(n), flag)
		first := (offset + want.size - 1) / want.size * want.size
		if last := (offset + n) / want.size * want.size; last > first {
			want.write(first, make([]byte, last-first), flag)
		}
	case "flush":
		err = d.flush(boot)
		for i := range want.durable {
			want.flush(i)
		}
	case "cut":
		if _, err = d.powerCut(); err != nil {
			t.Fatal(err)
		}
		if err := d.write(boot, 0, []byte{1}, true); err != errPowerLost {
			t.Fatalf("a write of the boot before the cut: %v", err)
		}
		file, err := os.ReadFile(d.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		for i := range want.durable {
			got := file[i*want.size:][:want.size]
			if !want.allows(i, got) || o.KeepAll && !bytes.Equal(got, want.newest(i)) {
				t.Fatalf("sector %d holds %x…, which no write left", i, got[:8])
			}
			want.durable[i], want.volatile[i] = bytes.Clone(got), nil
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// check compares what is read, all at once and in a piece, and the file.
func check(t *rapid.T, d *disk, want *sectors, path string) {
	all := make([]byte, d.size)
	if err := d.read(d.boot(), 0, all); err != nil {
		t.Fatal(err)
	}
	offset := rapid.IntRange(0, len(all)).Draw(t, "read at")
	piece := make([]byte, rapid.IntRange(0, len(all)-offset).Draw(t, "read"))
	if err := d.read(d.boot(), int64(offset), piece); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(piece, all[offset:offset+len(piece)]) {
		t.Fatalf("%d bytes at %d read otherwise than the whole", len(piece), offset)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want.durable {
		if got := all[i*want.size:][:want.size]; !bytes.Equal(got, want.newest(i)) {
			t.Fatalf("sector %d reads as %x…, want %x…", i, got[:8], want.newest(i)[:8])
		}
		if got := file[i*want.size:][:want.size]; !want.allows(i, got) {
			t.Fatalf("the file holds %x… in sector %d, which no write left", got[:8], i)
		}
	}
}

// A file that takes no more: what failed is neither lost from the cache nor
// called durable.
func TestAFailedFlushKeepsTheCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	d, err := openDisk(path, Options{SizeBytes: 1 << 20}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	writable := d.file
	defer func() { _ = writable.Close() }()
	if err := d.write(0, 0, []byte("precious"), false); err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = readOnly.Close() }()
	d.file = readOnly
	if err := d.flush(0); err == nil {
		t.Fatal("a flush into a file that cannot be written succeeded")
	}
	if err := d.write(0, 100, []byte("forced"), true); err == nil {
		t.Fatal("forced unit access into a file that cannot be written succeeded")
	}
	d.file = writable
	got := make([]byte, 8)
	if err := d.read(0, 0, got); err != nil || string(got) != "precious" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := d.flush(0); err != nil {
		t.Fatal(err)
	}
	if file, err := os.ReadFile(path); err != nil || string(file[:8]) != "precious" {
		t.Errorf("the file holds %q, %v", file[:8], err)
	}
}

// A trim of a big disk costs neither memory nor blocks.
func TestBigTrims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	const size = 1 << 32
	d, err := openDisk(path, Options{SizeBytes: size}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.file.Close() }()
	if err := d.write(0, size/2, bytes.Repeat([]byte{1}, 1<<20), false); err != nil {
		t.Fatal(err)
	}
	if err := d.write(0, size-512, []byte("last"), true); err != nil {
		t.Fatal(err)
	}
	if err := d.trim(0, 0, size-1, false); err != nil {
		t.Fatal(err)
	}
	if d.cache.Len() != 0 {
		t.Errorf("%d sectors are volatile", d.cache.Len())
	}
	got := make([]byte, 512)
	if err := d.read(0, size/2, got); err != nil || bytes.Count(got, []byte{0}) != 512 {
		t.Errorf("read %x…, %v after the trim", got[:8], err)
	}
	if err := d.read(0, size-512, got); err != nil || string(got[:4]) != "last" {
		t.Errorf("the last sector was trimmed in part only, and reads %q, %v", got[:4], err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil || stat.Blocks > 64 {
		t.Errorf("the image takes %d blocks, %v", stat.Blocks, err)
	}
}
