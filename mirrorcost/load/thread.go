package load

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// thread is one writer: a goroutine that never leaves its operating system
// thread. Between blocks it sleeps in a channel, which is a futex below.
type thread struct {
	index int
	tid   int
	begin chan struct{}
	end   chan struct{}
	// all are the CPUs that the thread may run on when a leg names none.
	all unix.CPUSet
	// pinned is the CPU that the thread is bound to, or -1.
	pinned    int
	latencies *recorder

	// The order is written before begin, and the outcome before end.
	order order
	outcome
}

// order is a thread's part of a block.
type order struct {
	lane  *lane
	cpu   int
	share uint64
	// limit in nanoseconds; 0 is none.
	limit int64
	// periodNs is the time between two writes of this thread, phaseNs that
	// from the block's start to the first; 0 is no pace.
	periodNs, phaseNs float64
	// start of the block.
	start int64
	// stop is set by a thread that failed, for the others.
	stop *atomic.Bool
}

// outcome is what a thread did of an order.
type outcome struct {
	first, last  int64
	acknowledged uint64
	late         uint64
	cpuNs        int64
	spinTimes    []int64
	err          error
}

// newOrder splits a block: each thread has its share exactly, the first ones
// one write more where it does not come out even, and its turn in the rate.
func newOrder(b *Block, l *leg, index int, stop *atomic.Bool) order {
	n := uint64(len(l.lanes))
	o := order{lane: l.lanes[index], cpu: -1, share: ^uint64(0), limit: int64(b.For), start: now(), stop: stop}
	if b.Writes > 0 {
		o.share = b.Writes / n
		if uint64(index) < b.Writes%n {
			o.share++
		}
	}
	if cpus := l.spec.CPUs; len(cpus) > 0 {
		o.cpu = cpus[index%len(cpus)]
	}
	if b.RatePerSecond > 0 {
		o.periodNs = 1e9 * float64(n) / b.RatePerSecond
		o.phaseNs = o.periodNs * float64(index) / float64(n)
	}
	return o
}

// epoch is the zero of now. Its reading of the monotonic clock, in the kernel's
// own count, is monotonicEpoch: absolute deadlines are given to the kernel.
var (
	epoch          = time.Now()
	monotonicEpoch = monotonicAt(epoch)
)

// monotonicAt returns CLOCK_MONOTONIC at a time. Go's monotonic time is that
// clock, but for its zero. The shortest of some tries is the one that nothing
// came between.
func monotonicAt(t time.Time) int64 {
	best, at := int64(1<<62), int64(0)
	for range 16 {
		var ts unix.Timespec
		before := time.Since(t)
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return 0 // Every kernel has this clock.
		}
		after := time.Since(t)
		if took := int64(after - before); took < best {
			best, at = took, ts.Nano()-int64(before)-took/2
		}
	}
	return at
}

// now is the monotonic time since epoch. time.Since reads the clock through the
// vDSO: no system call, no allocation.
func now() int64 { return int64(time.Since(epoch)) }

// startThread starts a writer and returns when it waits for orders.
func startThread(index int) (*thread, error) {
	t := &thread{
		index:     index,
		begin:     make(chan struct{}),
		end:       make(chan struct{}, 1),
		pinned:    -1,
		latencies: newRecorder(),
		outcome:   outcome{spinTimes: make([]int64, 0, maxTimed)},
	}
	go t.loop()
	<-t.end
	return t, t.err
}

func (t *thread) loop() {
	// Never unlocked: the thread ends with the process.
	runtime.LockOSThread()
	t.tid = unix.Gettid()
	name(fmt.Sprintf("load-%d", t.index))
	t.err = t.settle()
	t.end <- struct{}{}
	for range t.begin {
		t.outcome = outcome{spinTimes: t.spinTimes[:0]}
		if t.err = t.pin(); t.err == nil {
			t.run()
			t.err = errors.Join(t.err, t.stayed())
		}
		if t.err != nil {
			t.order.stop.Store(true)
		}
		t.end <- struct{}{}
	}
}

// settle makes the kernel wake the thread when it asked for it: by default a
// timer may be 50 µs late, so as to be handled together with another.
func (t *thread) settle() error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	if err := unix.SchedGetaffinity(0, &t.all); err != nil {
		return fmt.Errorf("get affinity: %w", err)
	}
	return nil
}

// pin binds the thread to the order's CPU, if it is not there already.
func (t *thread) pin() error {
	if t.order.cpu == t.pinned {
		return t.stayed()
	}
	set := t.all
	if t.order.cpu >= 0 {
		set.Zero()
		set.Set(t.order.cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread %d to CPU %d: %w: name CPUs that are online and in this process's cpuset", t.index, t.order.cpu, err)
	}
	t.pinned = t.order.cpu
	return nil
}

// stayed returns an error if a pinned thread is no longer bound to its CPU.
func (t *thread) stayed() error {
	if t.pinned < 0 {
		return nil
	}
	var now unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil {
		return fmt.Errorf("get affinity: %w", err)
	}
	if now.Count() != 1 || !now.IsSet(t.pinned) {
		return fmt.Errorf("thread %d on CPU %d: %w", t.index, t.pinned, ErrMoved)
	}
	return nil
}

// run is the hot loop. It allocates nothing, and reads the clock once a write:
// the end of one is the start of the next, unless the thread slept or spun in
// between.
//
// Latency counts from the start of service and not from the deadline, because
// what is asked here is what a write costs, and a queue in front of a slow leg
// would drown that. Whoever wants to know whether the rate was held looks at the
// late ones, which are counted: with none, the two are the same.
func (t *thread) run() {
	o := &t.order
	l := o.lane
	cpu, err := threadCPUNs()
	if err != nil {
		t.err = err
		return
	}
	start := now()
	t.first, t.last = start, start
	for t.acknowledged < o.share && !o.stop.Load() {
		if o.limit > 0 && start-o.start >= o.limit {
			break
		}
		n := int(min(uint64(l.batch), o.share-t.acknowledged))
		if o.periodNs > 0 {
			due := o.start + int64(o.phaseNs+o.periodNs*float64(t.acknowledged))
			if due <= start && t.acknowledged > 0 {
				t.late += uint64(n)
			}
			if due > start {
				if !o.sleepUntil(due) {
					break
				}
				start = now()
			}
			if t.acknowledged == 0 {
				t.first = start
			}
		}
		whole := l.write(n)
		end := now()
		if whole > 0 {
			t.latencies.record(end-start, uint64(whole))
			t.acknowledged += uint64(whole)
		}
		if l.spin > 0 {
			t.spin(l, uint64(whole))
			end = now()
		}
		t.last, start = end, end
		if l.err != nil {
			t.err, l.err = l.err, nil
			break
		}
	}
	after, err := threadCPUNs()
	if err != nil && t.err == nil {
		t.err = err
	}
	t.cpuNs = max(after-cpu, 0)
}

// timedEvery is how many spins go by for each one that is timed by the thread's
// CPU clock: few enough to weigh nothing, and a prime, lest it march in step with
// an fsync.
const timedEvery = 7

// maxTimed spins of a block are kept, so that the hot loop allocates nothing.
const maxTimed = 4096

// spin adds the known cost of so many writes.
func (t *thread) spin(l *lane, writes uint64) {
	if l.spins++; l.spins%timedEvery != 0 || len(t.spinTimes) == cap(t.spinTimes) || writes == 0 {
		l.spun = spin(l.spin*writes, l.spun)
		return
	}
	before := rawThreadCPUNs()
	l.spun = spin(l.spin*writes, l.spun)
	t.spinTimes = append(t.spinTimes, (rawThreadCPUNs()-before)/int64(writes))
}

// rawThreadCPUNs is [threadCPUNs] for the hot loop; it cannot fail where that
// has worked before.
func rawThreadCPUNs() int64 {
	var ts unix.Timespec
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

// nap is the longest sleep after which a thread looks whether it is still
// wanted.
const nap = int64(100 * time.Millisecond)

// sleepUntil sleeps until a deadline. It returns false where the block ends
// before it.
func (o *order) sleepUntil(due int64) bool {
	limit := due
	if o.limit > 0 {
		limit = min(due, o.start+o.limit)
	}
	for at := now(); at < limit; at = now() {
		if o.stop.Load() {
			return false
		}
		ts := unix.NsecToTimespec(monotonicEpoch + min(limit, at+nap))
		// A signal ends the sleep early; then the loop goes round.
		unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	}
	return limit == due
}

// name names the calling thread for ps and for the ledger. A name is a help and
// no more: an error is not worth a word.
func name(text string) {
	b := append([]byte(text), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}
