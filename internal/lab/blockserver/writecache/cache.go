package writecache

import (
	"fmt"
	"slices"

	"github.com/coreplica/coreplica/internal/lab/draw"
)

// overhead is what the cache adds to the limit for each version of a sector:
// about what the maps and headers take, and enough that sectors of zeros, which
// have no bytes, are bounded as well.
const overhead = 128

// The kinds of decision, as keys of the draw.
const (
	kindCut uint64 = iota + 1
	kindDestage
)

// Options of a cache.
type Options struct {
	// SectorBytes is what is written whole or not at all: 512 or 4096.
	SectorBytes int
	// LimitBytes bounds the memory of the cache.
	LimitBytes int
	// Seed decides what survives and which sectors a full cache stores first.
	Seed uint64
	// KeepAll makes every write survive: the control for tests that lose some.
	KeepAll bool
}

// Sector is the content of one sector.
type Sector struct {
	Number int64
	Data   []byte // SectorBytes of them, or nil for a hole, which reads as zeros
}

// Cut says what a loss of power did, in sectors. Volatile = Newest + Older +
// Lost.
type Cut struct {
	Number   uint64 // of the cut, from 0
	Volatile int    // written since they were last durable
	Newest   int    // hold their last write
	Older    int    // hold an earlier write that was volatile, too
	Lost     int    // hold what was durable before
}

// Cache holds what is volatile. It is not safe for concurrent use.
type Cache struct {
	options Options
	// versions has the writes to a sector since it was last durable, the oldest
	// first.
	versions map[int64][][]byte
	// order has the same sectors, so that a draw can name one; place says where.
	order    []int64
	place    map[int64]int
	bytes    int
	cuts     uint64
	destaged uint64
}

// New returns an empty cache. It fails on a sector size other than 512 or 4096
// and on a limit below 16 sectors.
func New(o Options) (*Cache, error) {
	if o.SectorBytes != 512 && o.SectorBytes != 4096 {
		return nil, fmt.Errorf("write cache: sectors of %d bytes: take 512 or 4096", o.SectorBytes)
	}
	if least := 16 * (o.SectorBytes + overhead); o.LimitBytes < least {
		return nil, fmt.Errorf("write cache: a limit of %d bytes holds nothing: take %d or more", o.LimitBytes, least)
	}
	return &Cache{options: o, versions: map[int64][][]byte{}, place: map[int64]int{}}, nil
}

// Room returns the sectors that must be stored before n more can be written:
// none, while there is room. A real disk writes back, too, when its cache is
// full; which sectors is up to the seed. Call [Cache.Stored] with them. At most
// [Cache.MaxSectors] can be asked for.
func (c *Cache) Room(n int) []Sector {
	need := c.bytes + n*(c.options.SectorBytes+overhead) - c.options.LimitBytes
	if need <= 0 {
		return nil
	}
	var out []Sector
	// The order is drawn by shuffling the front of the list, so that no sector
	// comes twice.
	for i := 0; need > 0 && i < len(c.order); i++ {
		j := i + int(draw.Below(draw.Bits(c.options.Seed, kindDestage, c.destaged), uint64(len(c.order)-i)))
		c.destaged++
		c.swap(i, j)
		number := c.order[i]
		out = append(out, c.newest(number))
		need -= c.cost(number)
	}
	return out
}

// MaxSectors is the most that one call of [Cache.Room] can make room for.
func (c *Cache) MaxSectors() int {
	return c.options.LimitBytes / (c.options.SectorBytes + overhead)
}

// Write adds a volatile write of one sector. The data is copied; nil is a hole.
// It panics on data of another length than a sector's: that is a mistake of the
// program.
func (c *Cache) Write(s Sector) {
	if s.Data != nil && len(s.Data) != c.options.SectorBytes {
		panic(fmt.Sprintf("writecache: a sector of %d bytes, want %d", len(s.Data), c.options.SectorBytes))
	}
	if _, known := c.place[s.Number]; !known {
		c.place[s.Number] = len(c.order)
		c.order = append(c.order, s.Number)
	}
	c.versions[s.Number] = append(c.versions[s.Number], slices.Clone(s.Data))
	c.bytes += len(s.Data) + overhead
}

// Read puts what is volatile of the sectors from number on over what the medium
// has of them. The buffer is a multiple of a sector.
func (c *Cache) Read(number int64, buffer []byte) {
	if len(c.order) == 0 {
		return
	}
	for sector := range slices.Chunk(buffer, c.options.SectorBytes) {
		if versions := c.versions[number]; versions != nil {
			if newest := versions[len(versions)-1]; newest != nil {
				copy(sector, newest)
			} else {
				clear(sector)
			}
		}
		number++
	}
}

// Volatile returns what a flush must store: the last write of each sector, in
// ascending order. Call [Cache.Stored] with it.
func (c *Cache) Volatile() []Sector {
	out := make([]Sector, 0, len(c.order))
	for _, number := range slices.Sorted(slices.Values(c.order)) {
		out = append(out, c.newest(number))
	}
	return out
}

// Stored says that the sectors are durable as they were last written.
func (c *Cache) Stored(sectors []Sector) {
	for _, s := range sectors {
		c.Forget(s.Number)
	}
}

// Forget drops what is volatile of a sector, because something newer than all of
// it is durable: a write with forced unit access.
func (c *Cache) Forget(number int64) {
	i, known := c.place[number]
	if !known {
		return
	}
	c.bytes -= c.cost(number)
	last := len(c.order) - 1
	c.swap(i, last)
	c.order = c.order[:last]
	delete(c.place, number)
	delete(c.versions, number)
}

// ForgetRange is [Cache.Forget] for n sectors from number on.
func (c *Cache) ForgetRange(number, n int64) {
	if n <= int64(len(c.order)) {
		for i := range n {
			c.Forget(number + i)
		}
		return
	}
	for _, volatile := range slices.Clone(c.order) {
		if volatile >= number && volatile < number+n {
			c.Forget(volatile)
		}
	}
}

// PowerCut empties the cache and returns what the medium gets of it: for each
// sector nothing, or what one of the writes left, any of them alike.
func (c *Cache) PowerCut() ([]Sector, Cut) {
	cut := Cut{Number: c.cuts, Volatile: len(c.order)}
	c.cuts++
	var out []Sector
	for _, number := range slices.Sorted(slices.Values(c.order)) {
		versions := c.versions[number]
		k := len(versions)
		kept := k // how many of the writes reached the medium
		if !c.options.KeepAll {
			bits := draw.Bits(c.options.Seed, kindCut, cut.Number, uint64(number), uint64(k))
			kept = int(draw.Below(bits, uint64(k)+1))
		}
		switch kept {
		case 0:
			cut.Lost++
			continue
		case k:
			cut.Newest++
		default:
			cut.Older++
		}
		out = append(out, Sector{number, versions[kept-1]})
	}
	clear(c.versions)
	clear(c.place)
	c.order, c.bytes = c.order[:0], 0
	return out, cut
}

// Len returns how many sectors are volatile.
func (c *Cache) Len() int { return len(c.order) }

// Bytes returns the memory in use, by the measure of Options.LimitBytes.
func (c *Cache) Bytes() int { return c.bytes }

func (c *Cache) newest(number int64) Sector {
	versions := c.versions[number]
	return Sector{number, versions[len(versions)-1]}
}

func (c *Cache) cost(number int64) int {
	sum := 0
	for _, data := range c.versions[number] {
		sum += len(data) + overhead
	}
	return sum
}

func (c *Cache) swap(i, j int) {
	c.order[i], c.order[j] = c.order[j], c.order[i]
	c.place[c.order[i]], c.place[c.order[j]] = i, j
}
