package numa

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/numa/ring"
)

// ErrWorkerClosed is returned to who asks a worker for something after Close.
var ErrWorkerClosed = errors.New("worker is closed")

const (
	// DefaultRing is the room for requests that wait: four batches, so that
	// producers fill some while one is handled.
	DefaultRing = 1024
	// DefaultBatch is the most that a handler gets at once.
	DefaultBatch = 256
	// checkEvery batches a worker reads its affinity: a microsecond of system
	// call over so many batches weighs nothing.
	checkEvery = 256
)

// Binding is where a worker belongs.
type Binding struct {
	// Index counts the workers of a pool from 0.
	Index int
	// Node is the memory node of the CPUs, or [Unknown].
	Node int
	// CPUs are those that the worker's thread may run on.
	CPUs List
}

// Handler handles a batch of requests on the worker's thread. The slice is the
// worker's again when the handler returns. A panic ends the program, as in any
// goroutine.
type Handler[T any] func(at Binding, batch []T)

// WorkerOptions are the choices for a worker. The zero value is usable.
type WorkerOptions struct {
	// Ring is the number of requests that may wait, DefaultRing if 0.
	Ring int
	// Batch is the most that a handler gets at once, DefaultBatch if 0.
	Batch int
	// Labels are added to the pprof labels "numa_node", "numa_cpus" and
	// "numa_worker", as alternating names and values.
	Labels []string
	// Logger hears when the kernel moved a thread; nil is silent.
	Logger *slog.Logger
}

func (o *WorkerOptions) defaults() error {
	if o.Ring == 0 {
		o.Ring = DefaultRing
	}
	if o.Batch == 0 {
		o.Batch = DefaultBatch
	}
	if o.Batch < 0 || o.Batch > ring.MaxCapacity {
		return fmt.Errorf("start worker: batch %d, want 1 to %d", o.Batch, ring.MaxCapacity)
	}
	if len(o.Labels)%2 != 0 {
		return fmt.Errorf("start worker: %d labels, want names and values in turn", len(o.Labels))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Worker is an operating system thread that is bound to CPUs and handles batches
// of requests. Its methods may be called by any goroutine, but Close, Run and
// Flush not from its own handler, which would wait for itself.
type Worker[T any] struct {
	at      Binding
	handle  Handler[T]
	options WorkerOptions
	ring    *ring.Ring[T]
	tid     int
	ended   chan struct{}
	err     error // Read after ended.

	// handled counts requests whose handler returned; written by the worker.
	handled  atomic.Uint64
	moves    atomic.Uint64
	rebounds atomic.Uint64

	// calls wait for the worker to have handled so many.
	calling atomic.Int32
	mu      sync.Mutex
	calls   []call
	closed  bool
}

// call is a function to run on the thread once so many requests are handled.
type call struct {
	after uint64
	f     func()
	done  chan struct{}
}

// StartWorker starts a worker on the given CPUs and returns when its thread is
// bound. Its error is a [*CPUError] where the kernel refused.
func StartWorker[T any](at Binding, handle Handler[T], o WorkerOptions) (*Worker[T], error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	r, err := ring.New[T](o.Ring)
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	at.CPUs = ListOf(at.CPUs...)
	w := &Worker[T]{at: at, handle: handle, options: o, ring: r, ended: make(chan struct{})}
	started := make(chan error)
	go w.thread(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	return w, nil
}

// Binding returns where the worker belongs.
func (w *Worker[T]) Binding() Binding { return w.at }

// Submit hands requests to the worker, in order, and waits for room in its ring.
// It returns how many were taken, which is all of them unless the worker was
// closed or ctx ended. It does not wait for them to be handled.
func (w *Worker[T]) Submit(ctx context.Context, requests ...T) (n int, err error) {
	n, err = w.ring.Push(ctx, requests...)
	return n, translate(err)
}

// TrySubmit hands over as many requests as there is room for and never waits.
func (w *Worker[T]) TrySubmit(requests []T) (n int, err error) {
	n, err = w.ring.TryPush(requests)
	return n, translate(err)
}

func translate(err error) error {
	if errors.Is(err, ring.ErrClosed) {
		return ErrWorkerClosed
	}
	return err
}

// Run runs f on the worker's thread, between two batches, and waits for it. When
// ctx ends it stops waiting, and f may still run.
func (w *Worker[T]) Run(ctx context.Context, f func()) error { return w.call(ctx, 0, f) }

// Flush waits until all that was submitted before is handled.
func (w *Worker[T]) Flush(ctx context.Context) error {
	return w.call(ctx, w.ring.Tail(), func() {})
}

func (w *Worker[T]) call(ctx context.Context, after uint64, f func()) error {
	c := call{after: after, f: f, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrWorkerClosed
	}
	w.calls = append(w.calls, c)
	w.calling.Add(1)
	w.mu.Unlock()
	w.ring.Wake()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("call worker: %w", context.Cause(ctx))
	}
}

// Close handles what was submitted and ends the thread's binding: the thread gets
// back exactly the affinity that it had. If the kernel refuses that, the thread
// ends instead and Close returns the error. It may be called more than once.
func (w *Worker[T]) Close() error {
	w.shut()
	<-w.ended
	return w.err
}

// shut lets the worker end. Calls that came before run; the order of the two
// steps sees to it that none comes after the worker looked for the last time.
func (w *Worker[T]) shut() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.ring.Close()
}

// thread is the worker's goroutine.
func (w *Worker[T]) thread(started chan<- error) {
	defer close(w.ended)
	runtime.LockOSThread()
	before, err := save()
	if err == nil {
		if err = bindThread(w.at.CPUs); err != nil {
			err = errors.Join(err, before.restore())
		}
	}
	if err != nil {
		runtime.UnlockOSThread()
		started <- err
		return
	}
	w.tid = unix.Gettid()
	started <- nil
	labels := append([]string{
		"numa_node", strconv.Itoa(w.at.Node), "numa_cpus", w.at.CPUs.String(), "numa_worker", strconv.Itoa(w.at.Index),
	}, w.options.Labels...)
	pprof.Do(context.Background(), pprof.Labels(labels...), func(context.Context) { w.loop() })
	if err := before.restore(); err != nil {
		w.err = fmt.Errorf("close worker on CPUs %s: %w", w.at.CPUs, err)
		return // Still locked: the thread ends here and nobody inherits the binding.
	}
	runtime.UnlockOSThread()
}

// loop handles batches until the ring is closed and empty, and the calls that
// came before that.
func (w *Worker[T]) loop() {
	buffer := make([]T, min(w.options.Batch, w.ring.Cap()))
	for batches := 0; ; batches++ {
		if n := w.ring.Pop(buffer); n > 0 {
			w.watch(batches%checkEvery == 0)
			w.handle(w.at, buffer[:n])
			clear(buffer[:n])
			w.handled.Add(uint64(n))
		} else if !w.ring.Wait() {
			w.runCalls()
			return
		}
		if w.calling.Load() > 0 {
			w.runCalls()
		}
	}
}

// runCalls runs the calls that are due.
func (w *Worker[T]) runCalls() {
	w.mu.Lock()
	handled := w.handled.Load()
	var due, rest []call
	for _, c := range w.calls {
		if c.after <= handled {
			due = append(due, c)
		} else {
			rest = append(rest, c)
		}
	}
	w.calls = rest
	w.calling.Store(int32(len(rest)))
	w.mu.Unlock()
	for _, c := range due {
		w.watch(true)
		c.f()
		close(c.done)
	}
}
