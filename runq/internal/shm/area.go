package shm

import (
	"slices"
	"sync/atomic"

	"github.com/coreplica/coreplica/runq/protocol"
)

// area returns one of the places in a host's memory where a region of a log may
// lie, and its word in the directory.
func (m *Memory) area(log, host protocol.Core, i int) (words []uint64, directory *uint64) {
	size := areaWords(m.geo)
	at := (uint64(log)*protocol.SpareAreas + uint64(i)) * size
	return m.hosts[host][at : at+uint64(m.geo.RegionWords())], &m.control[m.geo.DirectoryOffset(log, host, i)]
}

// has reports whether there can be such a region.
func (m *Memory) has(id protocol.RegionID) bool {
	return int(id.Log) < m.geo.Cores && int(id.Host) < m.geo.Cores && id.Epoch > 0
}

// find returns the words of a region, or nil if the directory names none.
func (m *Memory) find(id protocol.RegionID) []uint64 {
	if !m.has(id) {
		return nil
	}
	for i := range protocol.SpareAreas {
		words, directory := m.area(id.Log, id.Host, i)
		if w := atomic.LoadUint64(directory); w != 0 && protocol.UnpackDirectory(w).Epoch == id.Epoch {
			return words
		}
	}
	return nil
}

// commit returns the commit word of a region, 0 where it is not there: memory
// that was lost, or that another region has.
func (m *Memory) commit(words []uint64, epoch uint32) uint64 {
	w := atomic.LoadUint64(&words[m.geo.CommitOffset()])
	if protocol.UnpackCommit(w).Epoch != epoch {
		return 0
	}
	return w
}

// open finds a region an area. The directory word comes first, so that nobody
// else takes the area, and the commit word last: until then the region is not
// there. The arena is not cleared, for a checksum stands in every reference to it.
func (m *Memory) open(id protocol.RegionID, word uint64, pulse func()) []uint64 {
	if !m.has(id) || word == 0 {
		return nil
	}
	words := m.find(id)
	for i := 0; words == nil && i < protocol.SpareAreas; i++ {
		candidate, directory := m.area(id.Log, id.Host, i)
		if atomic.CompareAndSwapUint64(directory, 0, word) {
			words = candidate
		}
	}
	if words == nil {
		return nil
	}
	atomic.StoreUint64(&words[m.geo.CommitOffset()], 0)
	for ring := range slices.Chunk(words[m.geo.SlotOffset(0):m.geo.ArenaOffset()], pulseWords) {
		clearWords(ring)
		pulse()
	}
	atomic.StoreUint64(&words[m.geo.CommitOffset()], protocol.CommitWord{Epoch: id.Epoch}.Pack())
	return words
}

// free gives back the areas of a log whose epoch is below one and not another,
// and whose writer may not write any more.
func (m *Memory) free(log protocol.Core, below, keep uint32, over func(protocol.DirectoryWord) bool) (freed int) {
	if int(log) >= m.geo.Cores {
		return 0
	}
	for host := range m.geo.Cores {
		for i := range protocol.SpareAreas {
			words, directory := m.area(log, protocol.Core(host), i)
			w := atomic.LoadUint64(directory)
			d := protocol.UnpackDirectory(w)
			if w == 0 || d.Epoch >= below || d.Epoch == keep || !over(d) {
				continue
			}
			// The commit word goes first: a free area must not hold a region.
			c := atomic.LoadUint64(&words[m.geo.CommitOffset()])
			if protocol.UnpackCommit(c).Epoch == d.Epoch {
				atomic.CompareAndSwapUint64(&words[m.geo.CommitOffset()], c, 0)
			}
			if atomic.CompareAndSwapUint64(directory, w, 0) {
				freed++
			}
		}
	}
	return freed
}

// Regions lists the regions of a log that are there, with the commit words.
func (m *Memory) Regions(log protocol.Core) (ids []protocol.RegionID, commits []protocol.CommitWord) {
	for host := range m.geo.Cores {
		for i := range protocol.SpareAreas {
			words, directory := m.area(log, protocol.Core(host), i)
			d := protocol.UnpackDirectory(atomic.LoadUint64(directory))
			if w := m.commit(words, d.Epoch); w != 0 {
				ids = append(ids, protocol.RegionID{Log: log, Host: protocol.Core(host), Epoch: d.Epoch})
				commits = append(commits, protocol.UnpackCommit(w))
			}
		}
	}
	return ids, commits
}

// FlipBit damages a record of a region, for trials that must see it noticed.
func (m *Memory) FlipBit(id protocol.RegionID, seq uint64, bit uint) bool {
	words := m.find(id)
	if words == nil {
		return false
	}
	at := &words[m.geo.SlotOffset(seq)+int(bit/64)%protocol.RecordWords]
	atomic.StoreUint64(at, atomic.LoadUint64(at)^1<<(bit%64))
	return true
}

// LoseControl clears the control page, for the same.
func (m *Memory) LoseControl() { clearWords(m.control) }
