package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// LinkBufferBytes bounds what a link holds for a peer that reads slowly. Twice
// the largest frame: one can wait while another is on its way.
const LinkBufferBytes = 2 * MaxFrameBytes

// readBufferBytes lets one system call fetch several frames.
const readBufferBytes = 256 << 10

var (
	// ErrLinkFull says that a peer reads too slowly and the batch was dropped.
	ErrLinkFull = errors.New("the link is full")
	// ErrLinkClosed says that the link was closed here.
	ErrLinkClosed = errors.New("the link is closed")
)

// Pair makes the two ends of a link, to be handed to those who use it.
func Pair() (a, b *os.File, err error) { return pair(unix.SOCK_STREAM, "link") }

func pair(kind int, name string) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// Link carries frames to and from one peer. Any goroutine may send; one
// receives.
type Link struct {
	file    *os.File
	raw     syscall.RawConn
	dropped atomic.Uint64
	closed  chan struct{}
	written chan struct{} // closed once the writer has returned
	wake    chan struct{}

	mu      sync.Mutex
	waiting []byte
	writing bool
	room    chan struct{} // replaced and closed when room appears
	err     error
}

// NewLink takes over one end of a Pair.
func NewLink(file *os.File) *Link {
	l := &Link{
		file: file, closed: make(chan struct{}), written: make(chan struct{}),
		wake: make(chan struct{}, 1), room: make(chan struct{}),
	}
	// A file of our own making has one; without it all is left to the writer.
	l.raw, _ = file.SyscallConn()
	go l.write()
	return l
}

// Send queues a batch and never waits: where the peer reads too slowly, the
// batch is dropped and counted, and the error is ErrLinkFull. After a nil error
// the batch may be reused; whether the peer lives to read it is not known.
func (l *Link) Send(b *Batch) error {
	_, err := l.queue(b.Bytes())
	if errors.Is(err, ErrLinkFull) {
		l.dropped.Add(1)
	}
	return err
}

// SendWait is Send that waits for room.
func (l *Link) SendWait(ctx context.Context, b *Batch) error {
	frame := b.Bytes()
	for {
		room, err := l.queue(frame)
		if !errors.Is(err, ErrLinkFull) {
			return err
		}
		select {
		case <-room:
		case <-l.closed:
			return ErrLinkClosed
		case <-ctx.Done():
			return fmt.Errorf("send batch: %w", ctx.Err())
		}
	}
}

// Flush waits until the kernel has all that was queued.
func (l *Link) Flush(ctx context.Context) error {
	for {
		l.mu.Lock()
		idle, room, err := len(l.waiting) == 0 && !l.writing, l.room, l.err
		l.mu.Unlock()
		if idle || err != nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("flush link: %w", ctx.Err())
		}
	}
}

// Dropped counts the batches that Send dropped.
func (l *Link) Dropped() uint64 { return l.dropped.Load() }

func (l *Link) queue(frame []byte) (room <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	if len(l.waiting)+len(frame) > LinkBufferBytes {
		return l.room, ErrLinkFull
	}
	if len(l.waiting) == 0 && !l.writing {
		if frame = frame[l.tryWrite(frame):]; len(frame) == 0 {
			return nil, nil
		}
	}
	l.waiting = append(l.waiting, frame...)
	select {
	case l.wake <- struct{}{}:
	default: // The writer has been told already.
	}
	return nil, nil
}

// tryWrite writes what the socket has room for at once, which is most often all:
// to wake the writer for it would cost more than the writing. An error is left for
// the writer to find.
func (l *Link) tryWrite(frame []byte) (n int) {
	if l.raw == nil {
		return 0
	}
	_ = l.raw.Write(func(fd uintptr) bool {
		n, _ = unix.Write(int(fd), frame)
		return true
	})
	return max(n, 0)
}

// write swaps the waiting buffer for the one that it has written, so both are
// reused.
func (l *Link) write() {
	defer close(l.written)
	var out []byte
	for {
		l.mu.Lock()
		out, l.waiting = l.waiting, out[:0]
		l.writing = len(out) > 0
		if l.writing || l.err != nil {
			close(l.room)
			l.room = make(chan struct{})
		}
		failed := l.err != nil
		l.mu.Unlock()
		if failed {
			return
		}
		if len(out) > 0 {
			if _, err := l.file.Write(out); err != nil {
				l.fail(fmt.Errorf("write to peer: %w", err))
			}
			l.mu.Lock()
			l.writing = false
			if len(l.waiting) == 0 {
				close(l.room)
				l.room = make(chan struct{})
			}
			l.mu.Unlock()
			continue
		}
		select {
		case <-l.wake:
		case <-l.closed:
		}
	}
}

// fail keeps the first reason.
func (l *Link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// Receive reads frames until the peer closes (io.EOF), Close is called here
// (ErrLinkClosed), or a frame is damaged (ErrFrame: nothing after it can be
// trusted, close the link). A frame is valid during the call of handle only; an
// error of handle ends the reading.
func (l *Link) Receive(handle func(Frame) error) error {
	in := bufio.NewReaderSize(l.file, readBufferBytes)
	var buf []byte
	for {
		head, err := in.Peek(lengthBytes)
		if err != nil {
			return l.readError(err, len(head) > 0)
		}
		size, err := frameSize(head)
		if err != nil {
			return err
		}
		var data []byte
		if size <= readBufferBytes {
			data, err = in.Peek(size)
		} else {
			if cap(buf) < size {
				buf = make([]byte, size)
			}
			data = buf[:size]
			_, err = io.ReadFull(in, data)
		}
		if err != nil {
			return l.readError(err, true)
		}
		frame, err := Decode(data)
		if err != nil {
			return err
		}
		if err := handle(frame); err != nil {
			return err
		}
		if size <= readBufferBytes {
			_, _ = in.Discard(size) // It was peeked at.
		}
	}
}

func (l *Link) readError(err error, within bool) error {
	select {
	case <-l.closed:
		return ErrLinkClosed
	default:
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) {
		if within {
			return io.ErrUnexpectedEOF // The peer died while it wrote.
		}
		return io.EOF
	}
	return fmt.Errorf("read from peer: %w", err)
}

// Close ends both directions at once and drops what was not written: see Flush.
// It may be called twice.
func (l *Link) Close() error {
	l.mu.Lock()
	select {
	case <-l.closed:
		l.mu.Unlock()
		return nil
	default:
	}
	if l.err == nil {
		l.err = ErrLinkClosed
	}
	close(l.closed)
	l.mu.Unlock()
	err := l.file.Close()
	<-l.written
	return err
}
