package numa

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"reflect"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Huge says which pages memory is made of.
type Huge int

// HugeNever uses the machine's small pages. HugeTransparent asks for huge ones
// and takes small ones where there are none. HugeReserved uses the reserved pool
// of 2 MiB pages or fails; such memory is populated at once, since a node without
// a page left would otherwise end the program at the first touch.
const (
	HugeNever Huge = iota
	HugeTransparent
	HugeReserved
)

// hugeBytes is the size of a huge page where small ones have 4 KiB.
const hugeBytes = 2 << 20

// AllocOptions are the choices for memory. The zero value is local memory in
// small pages that is populated as it is touched.
type AllocOptions struct {
	Policy Policy
	Huge   Huge
	// Populate touches every page at once, by the policy and, where that is
	// Local, from the calling thread.
	Populate bool
}

// Block is memory outside of Go's heap. The garbage collector neither scans nor
// frees it, and the race detector does not see it.
type Block[T any] struct {
	mapping []byte
	slice   []T
	policy  Policy
	closed  atomic.Bool
	err     error
}

// PointerError says why a type cannot live outside of Go's heap: the garbage
// collector would not see its pointers.
type PointerError struct {
	Type reflect.Type
	// Where is the path to the pointer, such as "Name" or "Items[].Next";
	// empty for the type itself.
	Where string
	Kind  reflect.Kind
}

func (e *PointerError) Error() string {
	at := ""
	if e.Where != "" {
		at = " in " + e.Where
	}
	return fmt.Sprintf("type %v has a pointer%s (%v): memory outside of Go's heap holds types without pointers only", e.Type, at, e.Kind)
}

// PointerFree returns a [*PointerError] where values of a type hold pointers.
func PointerFree(t reflect.Type) error {
	if t == nil {
		return &PointerError{t, "", reflect.Interface}
	}
	where, kind := findPointer(t)
	if kind == reflect.Invalid {
		return nil
	}
	return &PointerError{t, where, kind}
}

// findPointer returns the first pointer in a type, or Invalid. A type can
// contain itself only through a pointer, so this ends.
func findPointer(t reflect.Type) (where string, kind reflect.Kind) {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return "", reflect.Invalid
	case reflect.Array:
		if t.Len() == 0 {
			return "", reflect.Invalid
		}
		if where, kind = findPointer(t.Elem()); kind == reflect.Invalid {
			return "", kind
		}
		return join("[]", where), kind
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			where, kind = findPointer(f.Type)
			if kind != reflect.Invalid {
				return join(f.Name, where), kind
			}
		}
		return "", reflect.Invalid
	default:
		return "", t.Kind()
	}
}

// join joins steps of a path.
func join(step, rest string) string {
	if rest != "" && rest[0] != '[' {
		step += "."
	}
	return step + rest
}

// Alloc gives zeroed memory for n values under a policy, which holds before the
// first page is touched. The start is aligned to a page. Close it when no slice
// of it is in use any more: a use after that ends the program.
func Alloc[T any](n int, o AllocOptions) (*Block[T], error) {
	t := reflect.TypeFor[T]()
	if err := PointerFree(t); err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	over, total := bits.Mul64(uint64(max(n, 0)), uint64(t.Size()))
	const most = 1 << 47 // The address space of a process.
	if n < 1 || total == 0 || over > 0 || total > most {
		return nil, fmt.Errorf("allocate: %d values of %d bytes: want 1 byte to %d", n, t.Size(), uint64(most))
	}
	mapping, err := mapMemory(int(total), o)
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", total, err)
	}
	b := &Block[T]{mapping: mapping, policy: o.Policy}
	b.slice = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mapping))), n)
	return b, nil
}

// mapMemory maps, sets the policy and populates, or leaves nothing.
func mapMemory(bytes int, o AllocOptions) (memory []byte, err error) {
	if err := o.Policy.check(); err != nil {
		return nil, err
	}
	flags, page := unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, os.Getpagesize()
	switch o.Huge {
	case HugeNever:
	case HugeTransparent:
		page = hugeBytes
	case HugeReserved:
		page = hugeBytes
		flags |= unix.MAP_HUGETLB | unix.MAP_HUGE_2MB
	default:
		return nil, fmt.Errorf("there is no kind %d of huge pages", o.Huge)
	}
	bytes = (bytes + page - 1) / page * page
	memory, err = mmap(bytes, page, flags)
	if err != nil {
		if o.Huge == HugeReserved && errors.Is(err, unix.ENOMEM) {
			return nil, fmt.Errorf("mmap: no %d huge pages are free (%w): echo N > /sys/devices/system/node/nodeM/hugepages/hugepages-2048kB/nr_hugepages", bytes/page, err)
		}
		return nil, fmt.Errorf("mmap: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, munmap(memory))
			memory = nil
		}
	}()
	if o.Huge != HugeReserved {
		advice := unix.MADV_NOHUGEPAGE
		if o.Huge == HugeTransparent {
			advice = unix.MADV_HUGEPAGE
		}
		// A kernel without transparent huge pages refuses both, and uses
		// small ones.
		if err := unix.Madvise(memory, advice); err != nil && !errors.Is(err, unix.EINVAL) {
			return memory, fmt.Errorf("madvise: %w", err)
		}
	}
	if err := o.Policy.apply(memory); err != nil {
		return memory, err
	}
	if o.Populate || o.Huge == HugeReserved {
		return memory, populate(memory)
	}
	return memory, nil
}

// mmap maps memory that starts at a multiple of align, which the kernel does by
// itself for small pages and for reserved huge ones.
func mmap(bytes, align, flags int) ([]byte, error) {
	extra := 0
	if align > os.Getpagesize() && flags&unix.MAP_HUGETLB == 0 {
		extra = align
	}
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(bytes+extra), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, err
	}
	before := (align - int(uintptr(at)%uintptr(align))) % align
	if extra == 0 {
		before = 0
	}
	memory := unsafe.Slice((*byte)(unsafe.Add(at, before)), bytes)
	// What is cut off is whole pages, so both ends can go.
	if before > 0 {
		err = unix.MunmapPtr(at, uintptr(before))
	}
	if after := extra - before; after > 0 {
		err = errors.Join(err, unix.MunmapPtr(unsafe.Add(at, before+bytes), uintptr(after)))
	}
	return memory, err
}

func munmap(memory []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(memory)), uintptr(len(memory)))
}

// populate has the kernel touch every page, which tells an error where a touch
// of ours would end the program.
func populate(memory []byte) error {
	err := unix.Madvise(memory, unix.MADV_POPULATE_WRITE)
	if err != nil {
		return fmt.Errorf("populate memory: %w: the policy's nodes have no such pages left, or Linux is older than 5.14", err)
	}
	return nil
}

// Slice returns the values. It is nil after Close.
func (b *Block[T]) Slice() []T {
	if b.closed.Load() {
		return nil
	}
	return b.slice
}

// Policy returns the memory's policy.
func (b *Block[T]) Policy() Policy { return b.policy }

// Placement asks the kernel where the memory's pages are.
func (b *Block[T]) Placement() (Placement, error) {
	if b.closed.Load() {
		return Placement{}, errors.New("find pages: the memory is closed")
	}
	return PlacementOf(unsafe.Pointer(unsafe.SliceData(b.mapping)), uintptr(len(b.mapping)))
}

// Close gives the memory back. It may be called more than once, but not while
// another goroutine uses the memory.
func (b *Block[T]) Close() error {
	if !b.closed.CompareAndSwap(false, true) {
		return b.err
	}
	if err := munmap(b.mapping); err != nil {
		b.err = fmt.Errorf("free memory: %w", err)
	}
	return b.err
}
