package uring

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrDisabled means that this kernel, or who set it up, does not let this
// process use io_uring. The error that wraps it says the fix.
var ErrDisabled = errors.New("io_uring is not available")

// ErrFull is returned by [Ring.PrepareWrite] when the ring holds as many writes
// as it can. Submit them first.
var ErrFull = errors.New("the submission queue is full")

// ErrClosed is returned by a ring after [Ring.Close].
var ErrClosed = errors.New("the ring is closed")

// MaxEntries is the kernel's own limit (IORING_MAX_ENTRIES).
const MaxEntries = 32768

// The part of include/uapi/linux/io_uring.h that is used here.
const (
	offSQRing = 0
	offSQEs   = 0x10000000

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featRWCurPos   = 1 << 3 // Linux 5.6, as IORING_OP_WRITE.

	enterGetEvents = 1 << 0

	opWrite = 23
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     sqOffsets
	cq                                                                     cqOffsets
}

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

// sqe is struct io_uring_sqe, as a write uses it.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off           uint64
	addr          uint64
	len           uint32
	rwFlags       uint32
	userData      uint64
	_             [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// The kernel reads these by their size; a wrong one must not compile.
var (
	_ [120]byte = [unsafe.Sizeof(params{})]byte{}
	_ [64]byte  = [unsafe.Sizeof(sqe{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(cqe{})]byte{}
)

// Completion is the end of one write.
type Completion struct {
	// UserData is what the write was prepared with.
	UserData uint64
	// Result is the number of bytes written, or a negative errno.
	Result int32
}

// Errno returns the error of the write; 0 means that it wrote Result bytes.
func (c Completion) Errno() unix.Errno {
	if c.Result >= 0 {
		return 0
	}
	return unix.Errno(-c.Result)
}

// Ring is one io_uring. It belongs to one goroutine at a time.
type Ring struct {
	fd      int
	entries uint32
	rings   []byte // both queues
	sqeMem  []byte

	sqHead, sqTail *uint32 // The kernel moves the head, we the tail.
	sqMask         uint32
	sqArray        []uint32
	sqes           []sqe
	tail           uint32 // sqTail as we have prepared it, not yet published

	cqHead, cqTail *uint32 // We move the head, the kernel the tail.
	cqMask         uint32
	cqes           []cqe
}

// New sets up a ring that takes at least so many writes between two
// submissions.
func New(entries int) (*Ring, error) {
	if entries < 1 || entries > MaxEntries {
		return nil, fmt.Errorf("set up io_uring: %d entries, want 1 to %d: use a smaller batch", entries, MaxEntries)
	}
	var p params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, setupError(errno, sysctl())
	}
	r := &Ring{fd: int(fd), entries: p.sqEntries}
	unix.CloseOnExec(r.fd)
	const needed = featSingleMmap | featNoDrop | featRWCurPos
	if p.features&needed != needed {
		return nil, errors.Join(fmt.Errorf("set up io_uring: %w: it is older than Linux 5.6; boot a newer kernel", ErrDisabled), r.Close())
	}
	if err := r.attach(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("set up io_uring: %w", err), r.Close())
	}
	return r, nil
}

// sysctl returns the text of the switch that turns io_uring off, if there is
// one.
func sysctl() string {
	text, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	if err != nil {
		return "" // Before Linux 6.6 there is no such switch.
	}
	return strings.TrimSpace(string(text))
}

// setupError says why io_uring was refused and what helps.
func setupError(errno unix.Errno, disabled string) error {
	switch {
	case errno == unix.ENOSYS:
		return fmt.Errorf("set up io_uring: %w: %w: the kernel is built without it; choose another mirror", ErrDisabled, errno)
	case errno == unix.EPERM && disabled == "2":
		return fmt.Errorf("set up io_uring: %w: %w: run `sysctl kernel.io_uring_disabled=0`", ErrDisabled, errno)
	case errno == unix.EPERM && disabled == "1":
		return fmt.Errorf("set up io_uring: %w: %w: run as root, or `sysctl kernel.io_uring_disabled=0`", ErrDisabled, errno)
	case errno == unix.EPERM:
		return fmt.Errorf("set up io_uring: %w: %w: a seccomp filter refuses it; allow io_uring_setup in the container's profile", ErrDisabled, errno)
	case errno == unix.ENOMEM:
		return fmt.Errorf("set up io_uring: %w: raise `ulimit -l` or use a smaller batch", errno)
	}
	return fmt.Errorf("set up io_uring: %w", errno)
}

// attach maps the queues. With IORING_FEAT_SINGLE_MMAP both are in one piece.
func (r *Ring) attach(p *params) (err error) {
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	const protection, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, offSQRing, int(size), protection, flags); err != nil {
		return fmt.Errorf("map queues: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), protection, flags); err != nil {
		return fmt.Errorf("map submission entries: %w", err)
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[at])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.ringMask)
	r.sqArray = unsafe.Slice(word(p.sq.array), p.sqEntries)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.tail = atomic.LoadUint32(r.sqTail)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.ringMask)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	return nil
}

// Entries is the number of writes that can be prepared between two submissions:
// what was asked for, rounded up to a power of two.
func (r *Ring) Entries() int { return int(r.entries) }

// PrepareWrite puts a write into the submission queue. The buffer must stay
// where it is, and unchanged, until the write's completion was reaped: give one
// that lies outside of Go's heap, or keep it alive.
func (r *Ring) PrepareWrite(fd int, buf []byte, offset int64, userData uint64) error {
	if r.fd < 0 {
		return ErrClosed
	}
	if len(buf) == 0 || offset < 0 || len(buf) > 1<<31-1 {
		return unix.EINVAL
	}
	if r.tail-atomic.LoadUint32(r.sqHead) >= r.entries {
		return ErrFull
	}
	at := r.tail & r.sqMask
	r.sqes[at] = sqe{
		opcode:   opWrite,
		fd:       int32(fd),
		off:      uint64(offset),
		addr:     uint64(uintptr(unsafe.Pointer(&buf[0]))),
		len:      uint32(len(buf)),
		userData: userData,
	}
	r.sqArray[at] = at
	r.tail++
	return nil
}

// SubmitAndWait hands all prepared writes to the kernel, in one system call if
// no signal comes between, and waits until n completions can be reaped. It
// returns an error when the kernel did not take a write; what it took completes
// all the same.
//
// The system call is made without a word to Go's scheduler: it is meant for a
// locked thread that has a processor of its own.
func (r *Ring) SubmitAndWait(n int) error {
	if r.fd < 0 {
		return ErrClosed
	}
	// The store publishes the entries: what was written to them before is
	// seen by whoever sees the tail.
	atomic.StoreUint32(r.sqTail, r.tail)
	for {
		waiting := r.tail - atomic.LoadUint32(r.sqHead)
		if waiting == 0 && r.Ready() >= n {
			return nil
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(waiting), uintptr(n), enterGetEvents, 0, 0)
		switch errno {
		case 0, unix.EINTR:
		case unix.EAGAIN, unix.EBUSY:
			// The kernel is short of memory for a moment, or wants its
			// completions reaped first. The caller of a full batch
			// cannot help it, so the truth goes up.
			return fmt.Errorf("submit to io_uring: %w: use a smaller batch", errno)
		default:
			return fmt.Errorf("submit to io_uring: %w", errno)
		}
	}
}

// Discard takes back what was prepared and not taken by the kernel, and returns
// how many writes that were. It belongs after a failed [Ring.SubmitAndWait]: what
// is left there would go out with the next batch.
func (r *Ring) Discard() int {
	n := r.Unsubmitted()
	if n > 0 {
		// The kernel looks at the queue during a system call only, since
		// no thread of its own polls it.
		r.tail -= uint32(n)
		atomic.StoreUint32(r.sqTail, r.tail)
	}
	return n
}

// Ready is the number of completions that can be reaped.
func (r *Ring) Ready() int {
	if r.fd < 0 {
		return 0
	}
	return int(atomic.LoadUint32(r.cqTail) - *r.cqHead)
}

// Unsubmitted is the number of prepared writes that the kernel has not taken.
func (r *Ring) Unsubmitted() int {
	if r.fd < 0 {
		return 0
	}
	return int(r.tail - atomic.LoadUint32(r.sqHead))
}

// Reap takes the oldest completion. It returns false when there is none.
func (r *Ring) Reap() (Completion, bool) {
	if r.Ready() == 0 {
		return Completion{}, false
	}
	head := *r.cqHead // Only we write it.
	e := r.cqes[head&r.cqMask]
	// The entry is copied before the kernel may write over it.
	atomic.StoreUint32(r.cqHead, head+1)
	return Completion{UserData: e.userData, Result: e.res}, true
}

// Close gives the ring back. It is idempotent. Writes that were submitted and
// not reaped may still be under way: their buffers must not be reused.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	var errs []error
	for _, memory := range [][]byte{r.rings, r.sqeMem} {
		if memory != nil {
			errs = append(errs, unix.Munmap(memory))
		}
	}
	errs = append(errs, unix.Close(r.fd))
	*r = Ring{fd: -1}
	return errors.Join(errs...)
}
