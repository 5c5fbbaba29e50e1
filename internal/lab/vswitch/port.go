package vswitch

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// maxPath is the longest path of a unix socket in bytes: sun_path has 108, and
// QEMU wants a NUL at the end.
const maxPath = 107

// PathTooLongError says that a socket's path does not fit into an address.
type PathTooLongError struct{ Path string }

func (e *PathTooLongError) Error() string {
	return fmt.Sprintf("socket path %s has %d bytes, more than the %d that a unix socket can have: take a folder with a shorter path, e.g. below /tmp", e.Path, len(e.Path), maxPath)
}

// Port is where one guest's network card is plugged in.
type Port struct {
	Name string
	// LocalPath and RemotePath are the sockets as QEMU sees them: it binds the
	// first and sends to the second.
	LocalPath, RemotePath string
}

// Netdev returns the value of QEMU's -netdev for the port.
func (p Port) Netdev(id string) string {
	quote := func(s string) string { return strings.ReplaceAll(s, ",", ",,") } // QEMU's way to write a comma
	return fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", quote(id), quote(p.LocalPath), quote(p.RemotePath))
}

// port is a [Port] at work. The switch's lock guards received and inbound.
type port struct {
	Port
	conn     *net.UnixConn
	raw      syscall.RawConn
	guest    *unix.SockaddrUnix
	received PortCounters
	inbound  map[string]*inbound // by the port that the frames come from
	wake     chan struct{}       // has room for one: something was queued
	done     chan struct{}       // closed when the port is removed
}

// inbound is a link as the port at its end has it.
type inbound struct {
	queue    *faults.Queue[[]byte]
	counters Counters
}

func openPort(dir, name string) (*port, error) {
	p := &port{
		Port:    Port{name, filepath.Join(dir, name+".guest"), filepath.Join(dir, name+".switch")},
		inbound: map[string]*inbound{},
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	for _, path := range []string{p.RemotePath, p.LocalPath} {
		if len(path) > maxPath {
			return nil, &PathTooLongError{path}
		}
	}
	if err := removeStale(p.RemotePath); err != nil {
		return nil, err
	}
	var err error
	if p.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: p.RemotePath, Net: "unixgram"}); err != nil {
		return nil, err
	}
	if p.raw, err = p.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.guest = &unix.SockaddrUnix{Name: p.LocalPath}
	return p, nil
}

// removeStale removes a socket that nobody is bound to any more, as a killed
// switch leaves it.
func removeStale(path string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	switch {
	case err == nil:
		return errors.Join(conn.Close(), fmt.Errorf("socket %s is in use: another switch has this folder, take one of your own", path))
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("look for a switch at %s: %w", path, err)
}

// close closes the socket and removes both of the port's files: QEMU leaves its
// own behind.
func (p *port) close() error {
	err := p.conn.Close()
	for _, path := range []string{p.RemotePath, p.LocalPath} {
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// connect makes the link from another port.
func (p *port) connect(from string, o Options) {
	p.inbound[from] = &inbound{queue: faults.NewQueue[[]byte](o.QueueFrames, o.QueueBytes)}
}

// push counts a frame that was offered to a link and queues it.
func (p *port) push(now time.Duration, f Forward, frame []byte) {
	in := p.inbound[f.Link.From]
	in.counters.decided(f.Decision, in.queue.Push(now, f.Decision, frame, len(frame)), len(frame))
	select {
	case p.wake <- struct{}{}:
	default: // It will look anyway.
	}
}

// pop returns the frame that has been due longest and its link, or when to look
// again and no link.
func (p *port) pop(now time.Duration) (frame []byte, from *inbound, next time.Duration) {
	next = now + time.Hour // Long: something that is queued wakes the sender.
	for _, in := range p.inbound {
		if due, waiting := in.queue.Next(); waiting && due < next {
			next, from = due, in
		}
	}
	if from == nil {
		return nil, nil, next
	}
	frame, ok := from.queue.Pop(now)
	if !ok {
		return nil, nil, max(next, now)
	}
	return frame, from, next
}

// send sends one frame to the guest. It waits while the guest's receive queue is
// full, until the port is removed.
func (p *port) send(frame []byte) error {
	const shortest, longest = 100 * time.Microsecond, 2 * time.Millisecond
	for pause := shortest; ; pause = min(2*pause, longest) {
		var err error
		if e := p.raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT, p.guest) }); e != nil {
			return e // The socket is closed.
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
		// The poller cannot tell when a peer that we are not connected to has
		// room again.
		select {
		case <-p.done:
			return net.ErrClosed
		case <-time.After(pause):
		}
	}
}
