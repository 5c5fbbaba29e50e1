package numa

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Placement says on which nodes the pages of some memory are.
type Placement struct {
	// PageBytes is the size of the pages that were asked about: the machine's
	// small ones, also where they are parts of huge ones.
	PageBytes int `json:"page_bytes"`
	Pages     int `json:"pages"`
	// Nodes has those that hold some, by ascending ID.
	Nodes []NodePages `json:"nodes"`
	// Absent pages are nowhere: not touched yet, swapped out, or read but
	// never written, which all share one page of zeros.
	Absent int `json:"absent"`
}

// NodePages is the number of pages on a node, and their percentage of the pages
// that are somewhere.
type NodePages struct {
	Node    int     `json:"node"`
	Pages   int     `json:"pages"`
	Percent float64 `json:"percent"`
}

// Present returns the number of pages that are somewhere.
func (p Placement) Present() int { return p.Pages - p.Absent }

// Percent returns the percentage of the present pages that are on a node; 0
// where none is present.
func (p Placement) Percent(node int) float64 {
	for _, n := range p.Nodes {
		if n.Node == node {
			return n.Percent
		}
	}
	return 0
}

func (p Placement) String() string {
	var parts []string
	for _, n := range p.Nodes {
		parts = append(parts, fmt.Sprintf("%.1f %% on node %d", n.Percent, n.Node))
	}
	if p.Absent > 0 || len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("%d of %d absent", p.Absent, p.Pages))
	}
	return fmt.Sprintf("%d pages: %s", p.Pages, strings.Join(parts, ", "))
}

// PlacementOf asks the kernel where the pages of memory are (move_pages(2)
// without a wish to move). It touches none, and costs about 80 ns a page. The
// answer holds for the moment: the kernel may migrate pages, and does where
// AutoNUMA is on.
func PlacementOf(at unsafe.Pointer, bytes uintptr) (Placement, error) {
	if at == nil || bytes == 0 {
		return Placement{PageBytes: os.Getpagesize()}, nil
	}
	page := uintptr(os.Getpagesize())
	first, last := uintptr(at)&^(page-1), (uintptr(at)+bytes-1)&^(page-1)
	pages := make([]uintptr, 0, (last-first)/page+1)
	for p := first; p <= last; p += page {
		pages = append(pages, p)
	}
	return placementOf(pages)
}

// SlicePlacement asks where the pages of a slice's array are.
func SlicePlacement[T any](s []T) (Placement, error) {
	return PlacementOf(unsafe.Pointer(unsafe.SliceData(s)), uintptr(cap(s))*unsafe.Sizeof(*new(T)))
}

// placementOf asks about pages by their addresses, a part at a time: the kernel
// looks no further than that before it lets others run.
func placementOf(pages []uintptr) (Placement, error) {
	const part = 4096
	p := Placement{PageBytes: os.Getpagesize(), Pages: len(pages)}
	on := map[int]int{}
	status := make([]int32, min(part, len(pages)))
	for chunk := range slices.Chunk(pages, part) {
		// Without nodes to move to, the kernel fills status and moves nothing.
		_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(len(chunk)), uintptr(unsafe.Pointer(&chunk[0])), 0,
			uintptr(unsafe.Pointer(&status[0])), 0)
		if errno != 0 {
			return Placement{}, fmt.Errorf("find pages by move_pages: %w", errno)
		}
		for _, s := range status[:len(chunk)] {
			switch {
			case s >= 0:
				on[int(s)]++
			case -s == int32(unix.ENOENT) || -s == int32(unix.EFAULT):
				p.Absent++
			default:
				return Placement{}, fmt.Errorf("find pages by move_pages: a page answers %w", unix.Errno(-s))
			}
		}
	}
	for node, n := range on {
		p.Nodes = append(p.Nodes, NodePages{node, n, 100 * float64(n) / float64(p.Present())})
	}
	slices.SortFunc(p.Nodes, func(a, b NodePages) int { return cmp.Compare(a.Node, b.Node) })
	return p, nil
}
