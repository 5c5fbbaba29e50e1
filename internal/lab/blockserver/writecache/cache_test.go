package writecache

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newCache(t testing.TB, o Options) *Cache {
	t.Helper()
	if o.SectorBytes == 0 {
		o.SectorBytes = 512
	}
	if o.LimitBytes == 0 {
		o.LimitBytes = 1 << 20
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sector returns a sector whose bytes all are b; 0 is a hole.
func sector(number int64, b byte) Sector {
	if b == 0 {
		return Sector{number, nil}
	}
	return Sector{number, bytes.Repeat([]byte{b}, 512)}
}

// medium is what a test's disk holds: one byte stands for a sector.
type medium map[int64]byte

func (m medium) store(sectors []Sector) {
	for _, s := range sectors {
		m[s.Number] = 0
		if s.Data != nil {
			m[s.Number] = s.Data[0]
		}
	}
}

// oracle is the contract, spelled out: all that each sector may hold.
type oracle struct {
	durable medium
	since   map[int64][]byte // writes since the sector was last durable
}

func newOracle() *oracle { return &oracle{medium{}, map[int64][]byte{}} }

func (o *oracle) write(number int64, b byte) { o.since[number] = append(o.since[number], b) }
func (o *oracle) flush(number int64) {
	if w := o.since[number]; len(w) > 0 {
		o.durable[number] = w[len(w)-1]
		delete(o.since, number)
	}
}

func (o *oracle) flushAll() {
	for number := range o.since {
		o.flush(number)
	}
}

func (o *oracle) newest(number int64) byte {
	if w := o.since[number]; len(w) > 0 {
		return w[len(w)-1]
	}
	return o.durable[number]
}

func (o *oracle) allowed(number int64) []byte {
	return append([]byte{o.durable[number]}, o.since[number]...)
}

// The cache against the contract, in random histories with cuts.
func TestCacheKeepsTheContract(t *testing.T) {
	const sectors = 40
	rapid.Check(t, func(t *rapid.T) {
		keepAll := rapid.Bool().Draw(t, "keep all")
		limit := rapid.SampledFrom([]int{16 * (512 + overhead), 1 << 20}).Draw(t, "limit")
		c, err := New(Options{SectorBytes: 512, LimitBytes: limit, Seed: rapid.Uint64().Draw(t, "seed"), KeepAll: keepAll})
		if err != nil {
			t.Fatal(err)
		}
		disk, o := medium{}, newOracle()
		room := func(n int) {
			out := c.Room(n)
			disk.store(out)
			for _, s := range out {
				o.flush(s.Number)
			}
			c.Stored(out)
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			number := rapid.Int64Range(0, sectors-1).Draw(t, "sector")
			b := rapid.Byte().Draw(t, "byte")
			switch rapid.SampledFrom([]string{"write", "write", "write", "write", "fua", "flush", "cut"}).Draw(t, "step") {
			case "write":
				n := rapid.Int64Range(1, 8).Draw(t, "length")
				room(int(n))
				for i := range n {
					c.Write(sector(number+i, b))
					o.write(number+i, b)
				}
				if c.Bytes() > limit {
					t.Fatalf("the cache has %d bytes, its limit is %d", c.Bytes(), limit)
				}
			case "fua":
				disk.store([]Sector{sector(number, b)})
				c.Forget(number)
				o.write(number, b)
				o.flush(number)
			case "flush":
				out := c.Volatile()
				if !slices.IsSortedFunc(out, func(a, b Sector) int { return int(a.Number - b.Number) }) {
					t.Fatal("a flush is not in order")
				}
				disk.store(out)
				c.Stored(out)
				o.flushAll()
				if c.Len() != 0 || c.Bytes() != 0 {
					t.Fatalf("%d sectors, %d bytes are volatile after a flush", c.Len(), c.Bytes())
				}
			case "cut":
				cutPower(t, c, disk, o, keepAll)
			}
			compare(t, c, disk, o)
		}
	})
}

// cutPower cuts the power, checks what it left and lets the oracle go on from
// there.
func cutPower(t *rapid.T, c *Cache, disk medium, o *oracle, keepAll bool) {
	volatile := len(o.since)
	out, cut := c.PowerCut()
	disk.store(out)
	if cut.Volatile != volatile || cut.Newest+cut.Older+cut.Lost != volatile || keepAll && cut.Newest != volatile || len(out) != cut.Newest+cut.Older {
		t.Fatalf("%+v with %d volatile sectors, %d stored", cut, volatile, len(out))
	}
	for number := range maps.Keys(o.since) {
		if got := disk[number]; !slices.Contains(o.allowed(number), got) || keepAll && got != o.newest(number) {
			t.Fatalf("sector %d holds %d after the cut, allowed are %v", number, got, o.allowed(number))
		}
		o.durable[number] = disk[number]
	}
	clear(o.since)
}

// compare checks what a reader sees now.
func compare(t *rapid.T, c *Cache, disk medium, o *oracle) {
	if c.Len() != len(o.since) {
		t.Fatalf("%d sectors are volatile, want %d", c.Len(), len(o.since))
	}
	const count = 48
	buffer := make([]byte, count*512)
	for i := range buffer {
		buffer[i] = disk[int64(i/512)]
	}
	c.Read(0, buffer)
	for number := range int64(count) {
		read := buffer[number*512:][:512]
		if want := o.newest(number); bytes.Count(read, []byte{want}) != 512 {
			t.Fatalf("sector %d reads as %d…, want %d", number, read[0], want)
		}
		if got := disk[number]; got != o.durable[number] {
			t.Fatalf("the medium holds %d in sector %d, want %d", got, number, o.durable[number])
		}
	}
}

// Every history of up to four steps on two sectors: over enough seeds, just the
// outcomes that the contract allows come, and all of them do.
func TestExhaustively(t *testing.T) {
	steps := []string{"w0", "w1", "w01", "f0", "flush"}
	longest, count := 4, 5+25+125+625
	if testing.Short() {
		longest, count = 3, 5+25+125
	}
	var histories [][]string
	for depth, last := 0, [][]string{{}}; depth < longest; depth++ {
		var next [][]string
		for _, h := range last {
			for _, s := range steps {
				next = append(next, append(slices.Clone(h), s))
			}
		}
		histories = append(histories, next...)
		last = next
	}
	for _, history := range histories {
		seen := map[string]bool{}
		allowed := map[string]bool{}
		for seed := range uint64(300) {
			c, disk, o := newCache(t, Options{Seed: seed}), medium{}, newOracle()
			for i, step := range history {
				play(c, disk, o, step, byte(i+1))
			}
			for _, a := range o.allowed(0) {
				for _, b := range o.allowed(1) {
					allowed[string([]byte{a, b})] = true
				}
			}
			out, _ := c.PowerCut()
			disk.store(out)
			seen[string([]byte{disk[0], disk[1]})] = true
		}
		if !maps.Equal(seen, allowed) {
			t.Errorf("%s: seen %q, allowed %q", strings.Join(history, " "), slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(allowed)))
		}
	}
	if len(histories) != count {
		t.Errorf("%d histories", len(histories))
	}
}

// play does one step on cache and oracle alike.
func play(c *Cache, disk medium, o *oracle, step string, b byte) {
	switch step {
	case "w0", "w1", "w01":
		for _, digit := range step[1:] {
			number := int64(digit - '0')
			c.Write(sector(number, b))
			o.write(number, b)
		}
	case "f0":
		disk.store([]Sector{sector(0, b)})
		c.Forget(0)
		o.write(0, b)
		o.flush(0)
	case "flush":
		out := c.Volatile()
		disk.store(out)
		c.Stored(out)
		o.flushAll()
	}
}

func TestCutsAreAFunctionOfTheSeed(t *testing.T) {
	run := func(seed uint64, backwards bool) string {
		c := newCache(t, Options{Seed: seed})
		text := ""
		for cut := range 3 {
			for i := range int64(64) {
				if backwards {
					i = 63 - i
				}
				c.Write(sector(i, byte(cut+1)))
			}
			out, report := c.PowerCut()
			text += fmt.Sprintf("%+v|", report)
			for _, s := range out {
				text += fmt.Sprintf(" %d", s.Number)
			}
			text += "\n"
		}
		return text
	}
	first := run(1, false)
	if first != run(1, true) {
		t.Error("the order of writes to different sectors changes what survives")
	}
	if first == run(2, false) {
		t.Error("another seed leaves the same")
	}
	cuts := strings.Split(strings.TrimSpace(first), "\n")
	if strings.Split(cuts[0], "|")[1] == strings.Split(cuts[1], "|")[1] {
		t.Error("the second cut leaves the same sectors as the first")
	}
}

// A big write tears: some of its sectors survive, and about half.
func TestBigWritesTear(t *testing.T) {
	c := newCache(t, Options{Seed: 5, LimitBytes: 16 << 20})
	for i := range int64(10_000) {
		c.Write(sector(i, 1))
	}
	_, cut := c.PowerCut()
	if cut.Newest < 4750 || cut.Newest > 5250 || cut.Older != 0 { // five standard deviations
		t.Errorf("%+v: want about half", cut)
	}
}

// A full cache stores sectors from all over, not the oldest or the lowest.
func TestDestagingIsByTheSeed(t *testing.T) {
	pick := func(seed uint64) []int64 {
		c := newCache(t, Options{Seed: seed, LimitBytes: 1000 * (512 + overhead)})
		for i := range int64(1000) {
			c.Write(sector(i, 1))
		}
		var numbers []int64
		for _, s := range c.Room(100) {
			numbers = append(numbers, s.Number)
		}
		return numbers
	}
	first := pick(1)
	if len(first) != 100 || !slices.Equal(first, pick(1)) || slices.Equal(first, pick(2)) {
		t.Errorf("%d sectors, or not by the seed", len(first))
	}
	slices.Sort(first)
	if len(slices.Compact(first)) != 100 || first[0] > 150 || first[len(first)-1] < 850 {
		t.Errorf("sectors %v: want 100 from all over", first)
	}
	c := newCache(t, Options{})
	if c.Room(c.MaxSectors()) != nil {
		t.Error("an empty cache has no room")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{SectorBytes: 1024, LimitBytes: 1 << 20}, {SectorBytes: 512, LimitBytes: 1000}, {SectorBytes: 4096, LimitBytes: 16 * 4096}} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "take") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("half a sector was written")
		}
	}()
	newCache(t, Options{}).Write(Sector{0, make([]byte, 256)})
}
