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
	b.evs = append(b.evs, evs...)
	b.rouse()
	b.mu.Unlock()
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

// take returns all events and leaves buf in their place.
func (b *inbox) take(buf []protocol.Event) []protocol.Event {
	b.mu.Lock()
	evs := b.evs
	b.evs = buf[:0]
	b.mu.Unlock()
	return evs
}

// doze says that the worker will sleep, unless there is something.
func (b *inbox) doze() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep = len(b.evs) == 0
	return b.asleep
}
