package load

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/mirrorcost/internal/uring"
)

// ErrNoHook is returned by [Start] in a program that has not called [Hook].
var ErrNoHook = errors.New("this program cannot run the load as a process of its own: call load.Hook() first thing in main, and in TestMain of tests")

// ErrDied is wrapped by the error of a call whose load process ended by itself,
// or was killed by somebody else.
var ErrDied = errors.New("the load process died")

// ErrClosed is returned by calls after [Process.Close].
var ErrClosed = errors.New("the load process is closed")

// ErrUringDisabled is wrapped by the error of [Start] where a leg wants io_uring
// and this kernel does not give it. The error says the fix.
var ErrUringDisabled = uring.ErrDisabled

// ErrMoved is wrapped by the error of a block whose pinned thread may run
// elsewhere by now: when a CPU goes offline the kernel moves the threads that are
// pinned to it, and silently forgets that they were.
var ErrMoved = errors.New("a pinned thread was moved: its CPU went offline, or the cpuset changed; run again and leave the CPUs as they are")

// WriteError is a write that did not reach its file whole. It ended its block.
type WriteError struct {
	// Op is "pwrite", "io_uring write" or "fdatasync". In the last case the
	// write itself was whole, and is not durable.
	Op     string
	Path   string
	Offset int64
	Wanted int
	Wrote  int
	// Err is io.ErrShortWrite or a unix.Errno.
	Err error
}

func (e *WriteError) Error() string {
	text := fmt.Sprintf("%s of %d bytes at %d of %s wrote %d: %v", e.Op, e.Wanted, e.Offset, e.Path, e.Wrote, e.Err)
	switch {
	case errors.Is(e.Err, unix.ENOSPC):
		text += ": make the device larger or the files smaller"
	case errors.Is(e.Err, unix.EFBIG):
		text += ": raise `ulimit -f` or make the files smaller"
	case errors.Is(e.Err, unix.EINVAL) && e.Op != opSync:
		text += ": direct writes need a multiple of the device's block size"
	}
	return text
}

func (e *WriteError) Unwrap() error { return e.Err }

// The values of [WriteError.Op].
const (
	opPwrite = "pwrite"
	opUring  = "io_uring write"
	opSync   = "fdatasync"
)

// failure is an error on its way from the child to the parent. Behind the
// process border errors.Is and errors.As must still find what they would have
// found in front of it.
type failure struct {
	Message string        `json:"message"`
	Errno   int           `json:"errno,omitempty"`
	Uring   bool          `json:"uring_disabled,omitempty"`
	Moved   bool          `json:"moved,omitempty"`
	Write   *writeFailure `json:"write,omitempty"`
}

// writeFailure is a [WriteError] whose cause is the failure's Errno; 0 is a
// short write.
type writeFailure struct {
	Op     string `json:"op"`
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Wanted int    `json:"wanted"`
	Wrote  int    `json:"wrote"`
}

// pack makes an error ready for the way; nil stays nil.
func pack(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Message: err.Error(), Uring: errors.Is(err, uring.ErrDisabled), Moved: errors.Is(err, ErrMoved)}
	var errno unix.Errno
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	}
	var write *WriteError
	if errors.As(err, &write) {
		f.Write = &writeFailure{write.Op, write.Path, write.Offset, write.Wanted, write.Wrote}
	}
	return f
}

// unpack is the inverse of pack, but for errors that nobody can act upon.
func (f *failure) unpack() error {
	switch {
	case f == nil:
		return nil
	case f.Write != nil:
		w := &WriteError{f.Write.Op, f.Write.Path, f.Write.Offset, f.Write.Wanted, f.Write.Wrote, io.ErrShortWrite}
		if f.Errno != 0 {
			w.Err = unix.Errno(f.Errno)
		}
		return w
	}
	e := &remoteError{message: f.Message}
	if f.Errno != 0 {
		e.causes = append(e.causes, unix.Errno(f.Errno))
	}
	if f.Uring {
		e.causes = append(e.causes, uring.ErrDisabled)
	}
	if f.Moved {
		e.causes = append(e.causes, ErrMoved)
	}
	return e
}

// remoteError says what an error of the child said, and is what it was.
type remoteError struct {
	message string
	causes  []error
}

func (e *remoteError) Error() string   { return e.message }
func (e *remoteError) Unwrap() []error { return e.causes }
