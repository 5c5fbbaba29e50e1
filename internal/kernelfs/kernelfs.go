package kernelfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// FS is one of the kernel's file systems at the place where everybody looks for
// it (Documentation/trace/ftrace.rst, bpf(2)).
type FS struct {
	kind, at string
	magic    int64
}

// The file systems.
var (
	Tracefs = FS{"tracefs", "/sys/kernel/tracing", unix.TRACEFS_MAGIC}
	BPFFS   = FS{"bpf", "/sys/fs/bpf", unix.BPF_FS_MAGIC}
)

// String returns where it belongs.
func (f FS) String() string { return f.at }

// Mounted reports whether it is where it belongs.
func (f FS) Mounted() bool {
	var st unix.Statfs_t
	return unix.Statfs(f.at, &st) == nil && int64(st.Type) == f.magic
}

// Mount mounts it where it belongs, unless it is there already. The returned
// function takes it away again if it was not there before; what others began to
// use meanwhile stays.
func (f FS) Mount() (release func() error, err error) {
	if f.Mounted() {
		return func() error { return nil }, nil
	}
	if err := unix.Mount("nodev", f.at, f.kind, 0, ""); err != nil {
		return nil, fmt.Errorf("mount %s: %w; as root: mount -t %s nodev %s", f.kind, err, f.kind, f.at)
	}
	return func() error {
		err := unix.Unmount(f.at, 0)
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", f.at, err)
		}
		return nil
	}, nil
}
