package protocol

import "slices"

// table finds the place of a task by its ID: open addressing with linear probing,
// over the array that holds the tasks. A step asks for an ID half a dozen times,
// and hashing 24 bytes anew costs more than all else that it does.
type table struct {
	// places are places in the tasks plus one; 0 is free. The length is a power
	// of two and at least twice the number of entries.
	places []int32
	n      int
}

// minTable is the smallest length, a cache line.
const minTable = 16

// hashOf spreads IDs whose numbers follow one another over a table of a power of
// two: Fibonacci hashing (Knuth, The Art of Computer Programming, section 6.4).
func hashOf(id TaskID) uint64 {
	return (id.N ^ uint64(id.Incarnation)<<40 ^ uint64(id.Core)<<56) * 0x9e3779b97f4a7c15
}

// at returns where an ID stands, or the free slot where it would.
func (t *table) at(tasks []task, id TaskID) (slot uint64, place int32) {
	mask := uint64(len(t.places) - 1)
	for slot = hashOf(id) >> 32 & mask; ; slot = (slot + 1) & mask {
		p := t.places[slot]
		if p == 0 {
			return slot, -1
		}
		if have := &tasks[p-1].ID; have.N == id.N && have.Stream == id.Stream {
			return slot, p - 1
		}
	}
}

// find returns the place of an ID, or -1.
func (t *table) find(tasks []task, id TaskID) int32 {
	if t.n == 0 {
		return -1
	}
	_, place := t.at(tasks, id)
	return place
}

// add enters a place whose task has its ID, which is in no other place.
func (t *table) add(tasks []task, place int32) {
	if 2*(t.n+1) > len(t.places) {
		old := t.places
		t.places = make([]int32, max(minTable, 2*len(old)))
		for _, p := range old {
			if p != 0 {
				slot, _ := t.at(tasks, tasks[p-1].ID)
				t.places[slot] = p
			}
		}
	}
	slot, _ := t.at(tasks, tasks[place].ID)
	t.places[slot] = place + 1
	t.n++
}

// remove takes an ID out, before its task is cleared, and moves those up that
// stood behind it for want of room.
func (t *table) remove(tasks []task, id TaskID) {
	hole, place := t.at(tasks, id)
	if place < 0 {
		return
	}
	t.n--
	mask := uint64(len(t.places) - 1)
	for next := (hole + 1) & mask; t.places[next] != 0; next = (next + 1) & mask {
		home := hashOf(tasks[t.places[next]-1].ID) >> 32 & mask
		if (next-home)&mask >= (next-hole)&mask {
			t.places[hole] = t.places[next]
			hole = next
		}
	}
	t.places[hole] = 0
}

func (t *table) clone() table { return table{slices.Clone(t.places), t.n} }
