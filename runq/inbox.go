package runq

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/runq/protocol"
)

// inbox is what a worker has not looked at yet. Whoever puts something there
// wakes the worker only if it sleeps, and with one signal for a batch.
type inbox struct {
	mu     sync.Mutex
	evs    []protocol.Event
	bufs   [][]byte // What events from elsewhere lie in.
	free   [][]byte
	asleep bool
	alarm  alarm
}

// alarm is what a worker sleeps on.
type alarm interface {
	// ring ends a sleep, the present one or the next.
	ring()
	// sleep returns when it rings, or after a while.
	sleep(time.Duration)
}

func newInbox(a alarm) *inbox { return &inbox{alarm: a} }

// channelAlarm is for workers that are goroutines.
type channelAlarm struct {
	c     chan struct{}
	timer *time.Timer
}

func newChannelAlarm() *channelAlarm {
	return &channelAlarm{make(chan struct{}, 1), time.NewTimer(time.Hour)}
}

func (a *channelAlarm) ring() {
	select {
	case a.c <- struct{}{}:
	default:
	}
}

func (a *channelAlarm) sleep(d time.Duration) {
	a.timer.Reset(d)
	select {
	case <-a.c:
	case <-a.timer.C:
	}
}

// threadAlarm is for a worker with a thread of its own. It sleeps in the kernel:
// to be woken by Go's scheduler takes another thread, which on a busy machine has
// no CPU for longer than a lease.
type threadAlarm struct{ fd int }

func newThreadAlarm() (*threadAlarm, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	return &threadAlarm{fd}, nil
}

func (a *threadAlarm) ring() {
	one := [8]byte{1}
	_, _ = unix.Write(a.fd, one[:]) // It is full only where it rings already.
}

func (a *threadAlarm) sleep(d time.Duration) {
	timeout := unix.NsecToTimespec(max(d, 0).Nanoseconds())
	fds := [1]unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLIN}}
	if n, err := unix.Ppoll(fds[:], &timeout, nil); err == nil && n > 0 {
		var count [8]byte
		_, _ = unix.Read(a.fd, count[:]) // It rang, so there is something.
	}
}

// put copies events in. What they refer to belongs to the worker from now on.
func (b *inbox) put(evs ...protocol.Event) {
	b.mu.Lock()
	for len(evs) > 0 {
		ev, n := runOf(evs)
		b.evs, evs = append(b.evs, ev), evs[n:]
	}
	b.rouse()
	b.mu.Unlock()
}

// runBytes is how long the payloads of a run become, roughly: a frame has room for
// several.
const runBytes = 64 << 10

// runOf makes one event of the first ones that submit tasks which are alike, and
// returns how many they are.
func runOf(evs []protocol.Event) (ev protocol.Event, n int) {
	ev, n = evs[0], 1
	for n < len(evs) && ev.Kind == protocol.EventSubmit && len(ev.Payload) < runBytes && ev.Joins(&evs[n]) {
		n++
	}
	return ev, n
}

// give hands events over together with the memory that they lie in, and returns a
// slice for the next ones.
func (b *inbox) give(evs []protocol.Event, buf []byte) (spare []protocol.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bufs = append(b.bufs, buf)
	if len(b.evs) == 0 {
		b.evs, evs = evs, b.evs
	} else {
		b.evs = append(b.evs, evs...)
	}
	b.rouse()
	return evs[:0]
}

// mostFree bounds the memory that is kept for later.
const mostFree = 8

// buffer returns memory for events of some size.
func (b *inbox) buffer(size int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.free); n > 0 {
		buf := b.free[n-1]
		if b.free = b.free[:n-1]; cap(buf) >= size {
			return buf[:0]
		}
	}
	return make([]byte, 0, size)
}

// nudge wakes the worker.
func (b *inbox) nudge() {
	b.mu.Lock()
	b.rouse()
	b.mu.Unlock()
}

func (b *inbox) rouse() {
	if b.asleep {
		b.asleep = false
		b.alarm.ring()
	}
}

// take returns all events with the memory that they lie in, and leaves buf and bufs
// in their place: whoever takes has done with those.
func (b *inbox) take(buf []protocol.Event, bufs [][]byte) ([]protocol.Event, [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = append(b.free, bufs[:min(len(bufs), mostFree-len(b.free))]...)
	clear(bufs)
	evs, taken := b.evs, b.bufs
	b.evs, b.bufs = buf[:0], bufs[:0]
	return evs, taken
}

// doze says that the worker will sleep, unless there is something.
func (b *inbox) doze() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep = len(b.evs) == 0
	return b.asleep
}
