package numa

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxObjects bounds the walk through a value that [Build] made.
const maxObjects = 1 << 20

// Landed says where a value on Go's heap came to lie.
type Landed struct {
	// Node is where it should lie.
	Node int `json:"node"`
	// Placement is of all pages that hold a part of the value that was seen.
	Placement Placement `json:"placement"`
	// Objects were seen. Truncated is true where there were more. The inner
	// tables of maps and channels cannot be seen at all, what their keys and
	// values point to can.
	Objects   int  `json:"objects"`
	Truncated bool `json:"truncated"`
}

// Percent is the share of the pages that are on the node.
func (l Landed) Percent() float64 { return l.Placement.Percent(l.Node) }

func (l Landed) String() string {
	more := ""
	if l.Truncated {
		more = " or more"
	}
	return fmt.Sprintf("%.1f %% on node %d, %d objects%s, %s", l.Percent(), l.Node, l.Objects, more, l.Placement)
}

// Build runs make on a thread that is bound to the CPUs of a node, has the kernel
// find the pages of what it made that nobody has touched yet, and reports what
// came of it. It is best effort: the heap hands out pages that other threads
// touched before, and the share says how often. A value that must be on its node
// belongs into a [Block].
func Build[T any](t *Topology, node int, make func() T) (value T, landed Landed, err error) {
	cpus := t.UsableCPUs(node)
	if len(cpus) == 0 {
		return value, landed, fmt.Errorf("build on node %d: it has no CPU that this process may use", node)
	}
	done := false
	err = bound(cpus[:1], func(int) error {
		value, done = make(), true
		w := walk(value)
		// A fresh slice of the heap is zeroed by not being there, and would else
		// land where it is first used. The kernel touches pages without changing
		// them, on the node of who asks. Linux before 5.14 refuses; then they
		// are reported as absent.
		advisePages(w.sorted(), unix.MADV_POPULATE_WRITE)
		landed, err = w.landed(node)
		return err
	})
	if err != nil {
		return value, landed, fmt.Errorf("build on node %d (the value was made: %v): %w", node, done, err)
	}
	return value, landed, nil
}

// WhereIs follows all pointers from a value and asks where the pages are that it
// came by. No other goroutine may change the value meanwhile.
func WhereIs(value any, node int) (Landed, error) { return walk(value).landed(node) }

func walk(value any) *walker {
	w := &walker{page: uintptr(os.Getpagesize()), seen: map[visit]bool{}, pages: map[uintptr]bool{}, holds: map[reflect.Type]bool{}}
	w.queue(reflect.ValueOf(value))
	w.run()
	return w
}

// sorted returns the addresses of the pages.
func (w *walker) sorted() []uintptr { return slices.Sorted(maps.Keys(w.pages)) }

func (w *walker) landed(node int) (Landed, error) {
	placement, err := placementOf(w.sorted())
	if err != nil {
		return Landed{}, err
	}
	return Landed{Node: node, Placement: placement, Objects: len(w.seen), Truncated: w.truncated}, nil
}

// visit tells objects apart; the same address is a struct and its first field.
type visit struct {
	at uintptr
	of reflect.Type
	n  int
}

// walker collects the pages of a value. It keeps a list instead of calling
// itself: a linked list of a million elements would be that deep.
type walker struct {
	page      uintptr
	seen      map[visit]bool
	pages     map[uintptr]bool
	todo      []reflect.Value
	truncated bool
	// holds remembers which types have pointers to follow.
	holds map[reflect.Type]bool
}

// pointers reports whether there is anything to follow in a type.
func (w *walker) pointers(t reflect.Type) bool {
	has, known := w.holds[t]
	if !known {
		has = PointerFree(t) != nil
		w.holds[t] = has
	}
	return has
}

func (w *walker) queue(v reflect.Value) {
	if v.IsValid() {
		w.todo = append(w.todo, v)
	}
}

func (w *walker) run() {
	for len(w.todo) > 0 && !w.truncated {
		v := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		w.value(v)
	}
}

// object notes memory and reports whether it is new.
func (w *walker) object(at uintptr, bytes uintptr, of reflect.Type, n int) bool {
	if at == 0 || bytes == 0 {
		return false
	}
	if len(w.seen) >= maxObjects {
		w.truncated = true
		return false
	}
	key := visit{at, of, n}
	if w.seen[key] {
		return false
	}
	w.seen[key] = true
	for p := at &^ (w.page - 1); p < at+bytes; p += w.page {
		w.pages[p] = true
	}
	return true
}

func (w *walker) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && w.object(v.Pointer(), v.Type().Elem().Size(), v.Type(), 1) {
			w.queue(v.Elem())
		}
	case reflect.String:
		if text := v.String(); text != "" {
			w.object(uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(len(text)), v.Type(), len(text))
		}
	case reflect.Slice:
		elem := v.Type().Elem()
		if v.Cap() > 0 && w.object(v.Pointer(), uintptr(v.Cap())*elem.Size(), v.Type(), v.Cap()) && w.pointers(elem) {
			w.elements(v)
		}
	case reflect.Array:
		if w.pointers(v.Type()) {
			w.elements(v)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if w.pointers(v.Type().Field(i).Type) {
				w.queue(v.Field(i))
			}
		}
	case reflect.Interface:
		w.queue(v.Elem())
	case reflect.Map:
		w.entries(v)
	}
}

func (w *walker) elements(v reflect.Value) {
	for i := range v.Len() {
		w.queue(v.Index(i))
	}
}

// entries follows keys and values, of which reflection gives copies.
func (w *walker) entries(v reflect.Value) {
	key, value := w.pointers(v.Type().Key()), w.pointers(v.Type().Elem())
	if v.IsNil() || !key && !value {
		return
	}
	for entry := v.MapRange(); entry.Next(); {
		if key {
			w.queue(entry.Key())
		}
		if value {
			w.queue(entry.Value())
		}
	}
}
