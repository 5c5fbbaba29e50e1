package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// knell is a page that a worker shares with its opener, for the kernel to tell the
// end of the worker's loop in: a robust futex (Documentation/locking/robust-futexes.rst).
// The kernel walks the list of a thread that ends before anything else is taken
// apart, so the bell rings earlier than a pidfd does, by what the memory of the
// process costs. It only says that it is time to look: see [over].
type knell struct {
	// next and offset are struct robust_list_head. Only the dying thread's own
	// kernel reads them.
	next    unsafe.Pointer
	offset  uintptr
	pending unsafe.Pointer
	// entry is the only element of the list.
	entry unsafe.Pointer
	word  uint32
}

// Bits of a robust futex, from linux/futex.h.
const (
	futexWaiters = 1 << 31
	futexDied    = 1 << 30
	futexWait    = 0
	futexWake    = 1
)

// newKnell makes the page. Both sides map it by its file.
func newKnell() (*os.File, error) {
	fd, err := unix.MemfdCreate("runq-knell", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "runq-knell")
	if err := unix.Ftruncate(fd, int64(os.Getpagesize())); err != nil {
		return nil, errors.Join(fmt.Errorf("ftruncate: %w", err), file.Close())
	}
	return file, nil
}

func mapKnell(file *os.File) (*knell, error) {
	var page unsafe.Pointer
	err := control(file, func(fd int) (err error) {
		page, err = unix.MmapPtr(fd, 0, nil, uintptr(os.Getpagesize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("map a page: %w", err)
	}
	return (*knell)(page), nil
}

func (k *knell) unmap() error {
	return unix.MunmapPtr(unsafe.Pointer(k), uintptr(os.Getpagesize()))
}

// hang makes the kernel ring the bell when the calling thread, which stays this
// goroutine's for ever, ends. A list that the C library registered is replaced: no
// C code runs on such a thread.
func (k *knell) hang() error {
	runtime.LockOSThread()
	k.entry, k.next = unsafe.Pointer(k), unsafe.Pointer(&k.entry)
	k.offset = unsafe.Offsetof(k.word) - unsafe.Offsetof(k.entry)
	atomic.StoreUint32(&k.word, uint32(unix.Gettid())|futexWaiters)
	k.wake() // Who waits has seen another word.
	if _, _, errno := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(k)), unsafe.Offsetof(k.entry), 0); errno != 0 {
		return fmt.Errorf("set_robust_list: %w", errno)
	}
	return nil
}

// ring rings it by hand.
func (k *knell) ring() {
	atomic.StoreUint32(&k.word, futexDied)
	k.wake()
}

func (k *knell) wake() {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&k.word)), futexWake, 1, 0, 0, 0)
}

// await waits until it has been rung. It costs a thread.
func (k *knell) await() {
	for {
		word := atomic.LoadUint32(&k.word)
		if word&futexDied != 0 {
			return
		}
		// It returns when the word has changed, for a signal, and for nothing.
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&k.word)), futexWait, uintptr(word), 0, 0, 0)
	}
}
