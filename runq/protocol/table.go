package protocol

import "slices"

// table finds the place of a task by its ID. Numbers of a stream follow one another,
// and so do the slots that they belong to: batches go through adjacent memory, and
// most IDs stand where they belong. One whose slot is taken, by another stream or by
// a task that is older by the length of the table, stands among the others.
type table struct {
	// places are places in the tasks plus one; 0 is free. The length is a power
	// of two and at least twice the number of entries.
	places []int32
	others strays
	n      int
}

// minTable is the smallest length, a cache line.
const minTable = 16

// slot is where an ID belongs: streams begin at places that have nothing to do with
// one another (Fibonacci hashing: Knuth, The Art of Computer Programming, section 6.4).
func (t *table) slot(id *TaskID) uint64 {
	return (id.N + (uint64(id.Incarnation)<<8|uint64(id.Core))*0x9e3779b97f4a7c15>>32) & uint64(len(t.places)-1)
}

// find returns the place of an ID, or -1.
func (t *table) find(tasks []task, id *TaskID) int32 {
	if t.n == 0 {
		return -1
	}
	if p := t.places[t.slot(id)]; p != 0 && tasks[p-1].is(id) {
		return p - 1
	}
	return t.others.find(tasks, id)
}

// is reports whether the entry is that of an ID.
func (t *task) is(id *TaskID) bool { return t.ID.N == id.N && t.ID.Stream == id.Stream }

// add enters a place whose task has its ID, which is in no other place.
func (t *table) add(tasks []task, place int32) {
	if 2*(t.n+1) > len(t.places) {
		old, others := t.places, t.others.places
		t.places, t.others = make([]int32, max(minTable, 2*len(old))), strays{}
		for _, list := range [][]int32{old, others} {
			for _, p := range list {
				if p != 0 {
					t.put(tasks, p-1)
				}
			}
		}
	}
	t.put(tasks, place)
	t.n++
}

func (t *table) put(tasks []task, place int32) {
	if slot := t.slot(&tasks[place].ID); t.places[slot] == 0 {
		t.places[slot] = place + 1
	} else {
		t.others.add(tasks, place)
	}
}

// remove takes a place out, before its task is cleared.
func (t *table) remove(tasks []task, place int32) {
	if slot := t.slot(&tasks[place].ID); t.places[slot] == place+1 {
		t.places[slot] = 0
	} else {
		t.others.remove(tasks, place)
	}
	t.n--
}

func (t *table) clone() table { return table{slices.Clone(t.places), t.others.clone(), t.n} }

// strays find places by ID with open addressing and linear probing.
type strays struct {
	places []int32 // As a table's.
	n      int
}

// hashOf spreads IDs whose numbers follow one another over a table of a power of
// two.
func hashOf(id *TaskID) uint64 {
	return (id.N ^ uint64(id.Incarnation)<<40 ^ uint64(id.Core)<<56) * 0x9e3779b97f4a7c15 >> 32
}

// at returns where an ID stands, or the free slot where it would.
func (t *strays) at(tasks []task, id *TaskID) (slot uint64, place int32) {
	mask := uint64(len(t.places) - 1)
	for slot = hashOf(id) & mask; ; slot = (slot + 1) & mask {
		p := t.places[slot]
		if p == 0 {
			return slot, -1
		}
		if tasks[p-1].is(id) {
			return slot, p - 1
		}
	}
}

// find returns the place of an ID, or -1.
func (t *strays) find(tasks []task, id *TaskID) int32 {
	if t.n == 0 {
		return -1
	}
	_, place := t.at(tasks, id)
	return place
}

func (t *strays) add(tasks []task, place int32) {
	if 2*(t.n+1) > len(t.places) {
		old := t.places
		t.places = make([]int32, max(minTable, 2*len(old)))
		for _, p := range old {
			if p != 0 {
				slot, _ := t.at(tasks, &tasks[p-1].ID)
				t.places[slot] = p
			}
		}
	}
	slot, _ := t.at(tasks, &tasks[place].ID)
	t.places[slot] = place + 1
	t.n++
}

// remove takes a place out, and moves those up that stood behind it for want of
// room.
func (t *strays) remove(tasks []task, place int32) {
	hole, _ := t.at(tasks, &tasks[place].ID)
	t.n--
	mask := uint64(len(t.places) - 1)
	for next := (hole + 1) & mask; t.places[next] != 0; next = (next + 1) & mask {
		home := hashOf(&tasks[t.places[next]-1].ID) & mask
		if (next-home)&mask >= (next-hole)&mask {
			t.places[hole] = t.places[next]
			hole = next
		}
	}
	t.places[hole] = 0
}

func (t *strays) clone() strays { return strays{slices.Clone(t.places), t.n} }
