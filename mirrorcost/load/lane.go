package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/mirrorcost/internal/uring"
)

// The raw system calls below pass an offset in one register.
const _ uintptr = 1 << 63

// leg is a spec with its files open.
type leg struct {
	spec  *Spec
	lanes []*lane
}

// lane is one thread's way to one leg's files.
type lane struct {
	files []file
	size  int
	batch int
	// memory holds batch buffers. It is outside of Go's heap and aligned to
	// pages, as direct writes want it.
	memory []byte
	ring   *uring.Ring // nil writes with pwrite
	whole  []int       // per write of a batch, the files that have it

	slots    uint64
	position uint64    // of "seq"
	random   *rand.PCG // of "rand", or nil
	stamp    uint64    // counts this lane's writes

	fsyncEvery int
	unsynced   int

	spin, spun, spins uint64

	// err ended the block.
	err error
}

type file struct {
	fd     int
	path   string
	device uint64
}

// stampBytes begin each write: the lane's count of writes, and the offset.
const stampBytes = 16

var openFlags = map[string]int{ModeDirect: unix.O_DIRECT, ModeBuffered: 0, ModeDsync: unix.O_DSYNC}

// openLeg opens what a spec names. What it has opened when it fails goes away
// with the process.
func openLeg(s *Spec) (*leg, error) {
	l := &leg{spec: s}
	for i, paths := range s.Targets {
		ln := &lane{
			size:       s.SizeBytes,
			batch:      s.batch(),
			slots:      s.slots(),
			fsyncEvery: s.FsyncEvery,
			spin:       s.SpinIterations,
		}
		if s.Pattern == PatternRand {
			ln.random = rand.NewPCG(s.Seed, s.Seed+uint64(i))
		}
		for _, path := range paths {
			f, err := openFile(path, openFlags[s.Mode])
			if err != nil {
				return nil, err
			}
			ln.files = append(ln.files, f)
		}
		if err := ln.prepare(s, i); err != nil {
			return nil, err
		}
		l.lanes = append(l.lanes, ln)
	}
	return l, nil
}

func openFile(path string, flags int) (file, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|flags, 0)
	if errors.Is(err, unix.EINVAL) && flags&unix.O_DIRECT != 0 {
		return file{}, fmt.Errorf("open %s: %w: its file system has no direct writes; use mode %q", path, err, ModeBuffered)
	}
	if err != nil {
		return file{}, fmt.Errorf("open %s: %w", path, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return file{}, errors.Join(fmt.Errorf("look at %s: %w", path, err), unix.Close(fd))
	}
	return file{fd, path, stat.Dev}, nil
}

// prepare gets the lane's memory, fills it with what no compression can make
// smaller, and sets up its ring.
func (l *lane) prepare(s *Spec, index int) (err error) {
	const protection, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_POPULATE
	if l.memory, err = unix.Mmap(-1, 0, l.batch*l.size, protection, flags); err != nil {
		return fmt.Errorf("get %d bytes for buffers: %w: use a smaller size or batch", l.batch*l.size, err)
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], s.Seed)
	binary.LittleEndian.PutUint64(seed[8:], uint64(index))
	if _, err := rand.NewChaCha8(seed).Read(l.memory); err != nil {
		return fmt.Errorf("fill buffers: %w", err)
	}
	if !s.Uring {
		return nil
	}
	l.whole = make([]int, l.batch)
	l.ring, err = uring.New(l.batch * len(l.files))
	return err
}

// write makes n writes, each to all files, and returns how many of them are
// whole. With fewer than n, err says what became of the first that is not.
//
// The system calls are raw: the Go scheduler does not hear of them, so the
// thread keeps its P (the right to run Go code) while it waits in the kernel.
// That is the point. With an ordinary call the runtime would take the P away
// from a write that is slow, wake another thread to use it, and make the writer
// queue for it afterwards: futex calls and context switches that nobody asked
// for, in the process that is being measured. The price would be other
// goroutines that starve; there is one P more than writers, which is enough for
// the two that talk to the parent. And since the collector is off, nobody waits
// for the writers to come to a stop.
//
// What is left of the scheduler is its watchdog, which asks whoever has run for
// 10 ms to step aside. Without signals the writer hears of it at its next
// function call, and hands over and comes back at once, some fifty times a
// second, on both legs alike. Ordinary system calls do not avoid that, and
// stepping aside of one's own accord between two writes is no cheaper.
func (l *lane) write(n int) (whole int) {
	if l.ring != nil {
		whole = l.writeBatch(n)
	} else {
		whole = l.writeEach(n)
	}
	if l.fsyncEvery > 0 && whole > 0 {
		if l.unsynced += whole; l.unsynced >= l.fsyncEvery && l.err == nil {
			l.unsynced = 0
			whole = l.sync(whole)
		}
	}
	return whole
}

// writeEach writes with one system call a file.
func (l *lane) writeEach(n int) (whole int) {
	for ; whole < n; whole++ {
		offset := l.next(l.memory)
		for i := range l.files {
			wrote, errno := pwrite(l.files[i].fd, l.memory, offset)
			if errno != 0 || wrote != l.size {
				l.fail(opPwrite, i, offset, wrote, errno)
				return whole
			}
		}
	}
	return whole
}

// pwrite is one system call, or more if signals come between before a byte is
// written.
func pwrite(fd int, buf []byte, offset int64) (int, unix.Errno) {
	for {
		wrote, _, errno := unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), uintptr(offset), 0, 0)
		switch errno {
		case 0:
			return int(wrote), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// writeBatch writes n blocks to all files with one system call.
func (l *lane) writeBatch(n int) (whole int) {
	files := len(l.files)
	for w := range n {
		buf := l.memory[w*l.size : (w+1)*l.size]
		offset := l.next(buf)
		l.whole[w] = 0
		for i := range l.files {
			if err := l.ring.PrepareWrite(l.files[i].fd, buf, offset, uint64(w*files+i)); err != nil {
				l.ring.Discard()
				l.failWith(opUring, i, offset, 0, err)
				return 0
			}
		}
	}
	// What was submitted is waited for in any case: its buffers are in use
	// until then.
	submitted := l.ring.SubmitAndWait(n * files)
	if submitted != nil {
		submitted = errors.Join(submitted, l.ring.SubmitAndWait(n*files-l.ring.Discard()))
	}
	for {
		c, ok := l.ring.Reap()
		if !ok {
			break
		}
		w, i := int(c.UserData)/files, int(c.UserData)%files
		if int(c.Result) == l.size {
			l.whole[w]++
		} else if l.err == nil {
			l.fail(opUring, i, l.stamped(w), max(int(c.Result), 0), c.Errno())
		}
	}
	for _, have := range l.whole[:n] {
		if have == files {
			whole++
		}
	}
	if l.err == nil && submitted != nil {
		l.failWith(opUring, 0, l.stamped(0), 0, submitted)
	}
	return whole
}

// sync makes all files of the lane durable. If one is not, the last write that
// it follows is not acknowledged.
func (l *lane) sync(whole int) int {
	for i := range l.files {
		_, _, errno := unix.RawSyscall(unix.SYS_FDATASYNC, uintptr(l.files[i].fd), 0, 0)
		if errno != 0 {
			l.fail(opSync, i, l.stamped(0), l.size, errno)
			return whole - 1
		}
	}
	return whole
}

// next chooses the place of the next write and stamps its buffer.
func (l *lane) next(buf []byte) (offset int64) {
	slot := l.position
	if l.random != nil {
		// The high half of the product is even over all slots.
		slot, _ = bits.Mul64(l.random.Uint64(), l.slots)
	} else if l.position++; l.position == l.slots {
		l.position = 0
	}
	offset = int64(slot) * int64(l.size)
	l.stamp++
	binary.LittleEndian.PutUint64(buf, l.stamp)
	binary.LittleEndian.PutUint64(buf[8:], uint64(offset))
	return offset
}

// stamped is the offset of a write of the batch.
func (l *lane) stamped(w int) int64 {
	return int64(binary.LittleEndian.Uint64(l.memory[w*l.size+8:]))
}

func (l *lane) fail(op string, i int, offset int64, wrote int, errno unix.Errno) {
	if errno == 0 {
		l.failWith(op, i, offset, wrote, io.ErrShortWrite)
		return
	}
	l.failWith(op, i, offset, wrote, errno)
}

func (l *lane) failWith(op string, i int, offset int64, wrote int, err error) {
	l.err = &WriteError{Op: op, Path: l.files[i].path, Offset: offset, Wanted: l.size, Wrote: wrote, Err: err}
}
