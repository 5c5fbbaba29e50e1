package shm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mfdNoexecSeal is MFD_NOEXEC_SEAL, known since Linux 6.3.
const mfdNoexecSeal = 0x8

// create makes a file of memory that can neither shrink nor grow: a shorter file
// would end whoever touches its former end.
func create(name string, bytes int64) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|mfdNoexecSeal)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if err := unix.Ftruncate(fd, bytes); err != nil {
		return nil, errors.Join(fmt.Errorf("ftruncate: %w", err), file.Close())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("seal: %w", err), file.Close())
	}
	return file, nil
}

// reserve takes the file's pages now.
func reserve(file *os.File, bytes int64) error {
	err := unix.Fallocate(int(file.Fd()), 0, 0, bytes)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(file.Fd()), 0, 0, bytes)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("take %d bytes of memory: %w: the machine or its control group has not as much left, take fewer slots, a smaller arena or fewer workers", bytes, err)
	}
	if err != nil {
		return fmt.Errorf("take %d bytes of memory: %w", bytes, err)
	}
	return nil
}

// mapping is a file in memory. It begins at a boundary of huge pages in a range of
// addresses that is larger.
type mapping struct {
	bytes []byte
	whole []byte
}

// hugeBytes is what one entry of a page table's second level maps on x86 and arm64
// with pages of 4 KiB.
const hugeBytes = 2 << 20

func mapShared(file *os.File, bytes uint64) (m mapping, err error) {
	size := uintptr(bytes) + hugeBytes
	base, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return m, fmt.Errorf("find addresses: %w", err)
	}
	m.whole = unsafe.Slice((*byte)(base), size)
	at := unsafe.Add(base, -uintptr(base)&(hugeBytes-1))
	if _, err = unix.MmapPtr(int(file.Fd()), 0, at, uintptr(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return m, errors.Join(err, m.unmap())
	}
	m.bytes = unsafe.Slice((*byte)(at), bytes)
	return m, nil
}

func (m mapping) unmap() error {
	if err := unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.whole)), uintptr(len(m.whole))); err != nil {
		return fmt.Errorf("unmap memory: %w", err)
	}
	return nil
}

// fill takes all pages of a file that are missing, as huge ones where the kernel
// lets us: what it takes apart page by page when a worker dies is time in which
// nobody can be sure yet that it is dead. A page of each is touched first, which
// says on which node it shall lie. Linux before 6.1 has small ones.
func fill(file *os.File, m mapping) error {
	if end, err := unix.Seek(int(file.Fd()), 0, unix.SEEK_HOLE); err == nil && end == int64(len(m.bytes)) {
		return nil
	}
	huge := len(m.bytes) &^ (hugeBytes - 1)
	for at := 0; at < huge; at += hugeBytes {
		if err := unix.Madvise(m.bytes[at:at+os.Getpagesize()], unix.MADV_POPULATE_WRITE); err != nil {
			huge = 0
		}
	}
	if huge > 0 {
		_ = unix.Madvise(m.bytes[:huge], unix.MADV_COLLAPSE)
	}
	return reserve(file, int64(len(m.bytes)))
}

// Ready returns zeroed memory of this process whose pages are there, huge ones where
// the kernel has them, and touched: below a hypervisor that shadows page tables, the
// kernel's having them is not all that a first access waits for. It begins on a page,
// and is never given back: workers end with what they have.
func Ready(bytes int) []byte {
	whole := (bytes + hugeBytes - 1) &^ (hugeBytes - 1) // Small pages at the end would be as many again.
	memory, err := unix.Mmap(-1, 0, whole+hugeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, bytes)
	}
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(memory))) & (hugeBytes - 1))
	memory = memory[off : off+whole]
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(memory, unix.MADV_POPULATE_WRITE) // Else each comes when it is touched.
	for at := 0; at < len(memory); at += os.Getpagesize() {
		memory[at] = 0
	}
	return memory[:bytes:bytes]
}
