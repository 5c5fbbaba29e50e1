package numa

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/coreplica/coreplica/internal/testkit"
)

// AutoNUMA takes the access from pages to see who asks for them next, and some
// kernels call those absent. They are there all the same.
func TestPlacementOfHintedPages(t *testing.T) {
	testkit.Need(t, testkit.NUMA)
	const pages = 4000
	heap := make([]uint64, pages*4096/8)
	for i := 0; i < len(heap); i += 4096 / 8 {
		heap[i] = 1
	}
	at := uintptr(unsafe.Pointer(&heap[0])) &^ 4095
	addresses := make([]uintptr, pages)
	for i := range addresses {
		addresses[i] = at + uintptr(i)*4096
	}
	status := make([]int32, pages)
	overlooked := 0
	// The kernel looks at the memory of threads that run, every second of it.
	for end := time.Now().Add(3 * time.Second); overlooked == 0 && time.Now().Before(end); {
		for spin := time.Now(); time.Since(spin) < 100*time.Millisecond; {
		}
		if err := movePages(addresses, status); err != nil {
			t.Fatal(err)
		}
		for _, s := range status {
			if absent(s) {
				overlooked++
			}
		}
	}
	p, err := SlicePlacement(heap)
	if err != nil || p.Absent > 0 {
		t.Errorf("%s, %v; the kernel overlooked %d", p, err, overlooked)
	}
	t.Logf("the kernel overlooked %d pages of %d", overlooked, pages)
	runtime.KeepAlive(heap)
}
