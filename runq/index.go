package runq

// index finds the place of a task by its key. Keys that follow one another share a
// page, and whoever asks for one asks for the next: a map is looked into once a
// page, not once a task.
type index struct {
	pages map[uint64]*page
	// hot is the page that was used last, spare one that is empty.
	hot, spare *page
}

// pageKeys is how many keys share a page: a power of two.
const pageKeys = 256

type page struct {
	number uint64
	used   int
	places [pageKeys]int32 // Plus one; 0 is none.
}

func newIndex() index { return index{pages: map[uint64]*page{}} }

// page returns the page of a key, or nil.
func (x *index) page(key uint64) *page {
	if p := x.hot; p != nil && p.number == key/pageKeys {
		return p
	}
	p := x.pages[key/pageKeys]
	if p != nil {
		x.hot = p
	}
	return p
}

// get returns the place of a key.
func (x *index) get(key uint64) (place int32, ok bool) {
	p := x.page(key)
	if p == nil {
		return 0, false
	}
	place = p.places[key%pageKeys] - 1
	return place, place >= 0
}

// set gives a key that has none a place.
func (x *index) set(key uint64, place int32) {
	p := x.page(key)
	if p == nil {
		if p, x.spare = x.spare, nil; p == nil {
			p = &page{}
		}
		p.number = key / pageKeys
		x.pages[p.number], x.hot = p, p
	}
	p.places[key%pageKeys] = place + 1
	p.used++
}

// remove takes a key out that has a place, and returns the place.
func (x *index) remove(key uint64) (place int32) {
	p := x.page(key)
	at := &p.places[key%pageKeys]
	place, *at = *at-1, 0
	if p.used--; p.used == 0 {
		delete(x.pages, p.number)
		x.hot, x.spare = nil, p
	}
	return place
}
