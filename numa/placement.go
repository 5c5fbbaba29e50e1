package numa

import (
	"cmp"
	"encoding/binary"
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
// without a wish to move). It brings none in, and costs about 80 ns a page. The
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
		status := status[:len(chunk)]
		if err := movePages(chunk, status); err != nil {
			return Placement{}, err
		}
		if hidden := hiddenPages(chunk, status); len(hidden) > 0 {
			advisePages(hidden, unix.MADV_POPULATE_READ)
			if err := movePages(chunk, status); err != nil {
				return Placement{}, err
			}
		}
		for _, s := range status {
			switch {
			case s >= 0:
				on[int(s)]++
			case absent(s):
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

// movePages fills status with the node of each page, or a negative errno. Without
// nodes to move to, the kernel moves nothing.
func movePages(pages []uintptr, status []int32) error {
	_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(len(pages)), uintptr(unsafe.Pointer(&pages[0])), 0,
		uintptr(unsafe.Pointer(&status[0])), 0)
	if errno != 0 {
		return fmt.Errorf("find pages by move_pages: %w", errno)
	}
	return nil
}

// absent reports whether a status of move_pages is that of a page that is nowhere.
func absent(status int32) bool {
	return -status == int32(unix.ENOENT) || -status == int32(unix.EFAULT)
}

// hiddenPages returns the pages that move_pages calls absent and that are there
// all the same. Linux 6.1 to 6.5 overlooks those that AutoNUMA took the access
// from, to see who asks for them next ("mm/gup: reintroduce FOLL_NUMA as
// FOLL_HONOR_NUMA_FAULT" mended it). A look for reading, as any thread of the
// program may take at any time, gives the access back.
func hiddenPages(pages []uintptr, status []int32) (hidden []uintptr) {
	if !slices.ContainsFunc(status, absent) {
		return nil
	}
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil // Then the kernel's answer has to do.
	}
	defer pagemap.Close()
	const present = 1 << 63 // Documentation/admin-guide/mm/pagemap.rst
	var entry [8]byte
	for i, p := range pages {
		if !absent(status[i]) {
			continue
		}
		_, err := pagemap.ReadAt(entry[:], int64(p)/int64(os.Getpagesize())*int64(len(entry)))
		if err == nil && binary.NativeEndian.Uint64(entry[:])&present != 0 {
			hidden = append(hidden, p)
		}
	}
	return hidden
}

// advisePages gives an advice about pages in ascending order, run by run. What
// the kernel refuses stays as it is.
func advisePages(pages []uintptr, advice int) {
	size := uintptr(os.Getpagesize())
	for i := 0; i < len(pages); {
		end := i + 1
		for end < len(pages) && pages[end] == pages[end-1]+size {
			end++
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, pages[i], uintptr(end-i)*size, uintptr(advice))
		i = end
	}
}
