package testkit

import (
	"testing"

	"github.com/coreplica/coreplica/internal/kernelfs"
)

// Mount mounts one of the kernel's file systems for the time of a test, unless
// it is mounted already. [Tracefs] and [BPFFS] say whether that can be.
func Mount(tb testing.TB, fs kernelfs.FS) {
	tb.Helper()
	release, err := fs.Mount()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := release(); err != nil {
			tb.Error(err)
		}
	})
}
