package runq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Main runs a worker, and never returns, if this process was started as one. It
// comes first in main and in TestMain, behind the registration of handlers.
func Main() {
	started, is, err := proc.Child()
	if !is {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runq:", err)
		os.Exit(exitFailed)
	}
	code, err := work(started)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runq:", err)
	}
	os.Exit(code)
}

// loopNice puts a loop before what competes for its CPU.
const loopNice = -10

// flushPatience bounds the wait for last words to leave.
const flushPatience = 100 * time.Millisecond

// work lives one life of a worker.
func work(started *proc.Started) (code int, err error) {
	m, err := started.Boot.Receive()
	if err != nil || m.Kind != kindSetup || len(m.Files) < 2 {
		return exitFailed, fmt.Errorf("start worker %d: no setup came: %w", started.Index, errors.Join(err, errWire))
	}
	var s setup
	if err := json.Unmarshal(m.Data, &s); err != nil {
		return exitFailed, fmt.Errorf("start worker %d: %w", started.Index, err)
	}
	mem, err := shm.Attach(s.Config.Geometry, m.Files[1:])
	if err != nil {
		return exitFailed, fmt.Errorf("start worker %d: %w", started.Index, err)
	}
	now, err := clockSince(s.BaseNS)
	if err != nil {
		return exitFailed, err
	}
	alarm, err := newThreadAlarm()
	if err != nil {
		return exitFailed, fmt.Errorf("start worker %d: %w", started.Index, err)
	}
	c := &child{started: started, link: proc.NewLink(m.Files[0]), run: s.Config.Run, in: newInbox(alarm)}
	w, err := newWorker(workerConfig{
		cfg: s.Config, core: s.Core, mem: mem, in: c.in, now: now, began: s.Began, post: c.post,
		maxPayload: s.MaxPayload, handlers: s.Handlers, taskLease: s.TaskLease,
	})
	if err != nil {
		return exitFailed, fmt.Errorf("start worker %d: %w", started.Index, err)
	}
	w.ready()
	// The loop must never wait for a handler's turn to end, so there is one for
	// each handler, for the loop and for the link. More would look for work.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), s.Handlers+2))
	died, _, err := proc.Watch(started.Opener)
	if err != nil {
		return exitFailed, fmt.Errorf("start worker %d: watch the opener: %w", started.Index, err)
	}
	// When the link is cut, the opener is gone or has closed it: the same to us.
	cut := make(chan error, 1)
	go func() { cut <- c.hear(w) }()
	go func() {
		select {
		case <-died:
		case err := <-cut:
			if !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "runq: hear the opener:", err)
			}
		}
		c.orphan.Do(func() { time.AfterFunc(s.Grace, func() { os.Exit(exitOrphan) }) })
		w.doom()
	}()
	c.bound(w, s)
	if w.node.Exited() {
		c.flush()
		return exitFenced, nil
	}
	w.pool.ended.Wait()
	c.flush()
	return exitDone, nil
}

// ready makes memory ready for a takeover, which would spend most of its time on
// pages that nobody has touched.
func (w *worker) ready() {
	geo := w.cfg.Geometry
	w.mem.Touch(w.core)
	w.exec.Reserve(w.cfg.K)
	w.node.Lend(protocol.NewScratch(geo, shm.Ready(protocol.ScratchBytes(geo))))
	for i := range w.programs {
		p := make([]protocol.Effect, protocol.LongestProgram(geo, w.cfg.K))
		clear(p)
		w.programs[i] = p[:0]
	}
}

// clockSince reads the run's clock: the monotonic clock, which all processes of a
// machine share.
func clockSince(baseNS int64) (func() clock.Instant, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, fmt.Errorf("read clock: %w", err)
	}
	start, off := time.Now(), clock.Instant(ts.Nano()-baseNS)
	return func() clock.Instant { return off.Add(time.Since(start)) }, nil
}

// child is a worker process's end of the link.
type child struct {
	started *proc.Started
	link    *proc.Link
	run     uint64
	in      *inbox
	batch   proc.Batch
	missed  bool // Something that was said was dropped.
	orphan  sync.Once
}

// bound runs the loop on a thread that is bound to its CPU, or on any thread where
// that CPU has left.
func (c *child) bound(w *worker, s setup) {
	// Several handlers may want several CPUs.
	w.home = &home{cpu: s.CPU, whole: s.Handlers == 1}
	loop := func() {
		w.home.settle()
		// Handlers may take the CPU for long, and the loop, which needs little
		// of it, loses its lease if it comes late. Without the right to this
		// it is as others are.
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), loopNice)
		if err := c.started.TellEnd(); err != nil {
			fmt.Fprintln(os.Stderr, "runq:", err) // Then its end is known a little later.
		}
		w.run(s.Crashed)
	}
	b, err := numa.StartWorker(numa.Binding{Index: int(s.Core), Node: s.Node, CPUs: numa.ListOf(s.CPU)}, func(numa.Binding, []struct{}) {}, numa.WorkerOptions{Ring: 2, Batch: 1})
	if err != nil {
		// Its CPU has left. The loop binds itself when it is back.
		fmt.Fprintln(os.Stderr, "runq: the loop is not bound:", err)
		runtime.LockOSThread() // And this thread ends with the process.
		loop()
		return
	}
	if err := b.Run(context.Background(), loop); err != nil {
		fmt.Fprintln(os.Stderr, "runq:", err) // Without a limit of time it runs.
	}
}

// hear takes frames from the opener until the link is cut.
func (c *child) hear(w *worker) error {
	var evs []protocol.Event
	return c.link.Receive(func(f proc.Frame) error {
		if f.Kind == frameStop {
			w.doom()
			return nil
		}
		evs = evs[:0]
		size := 0
		for item := range f.Items() {
			size += len(item)
		}
		// One copy for all: the frame's memory is the link's again soon.
		keep := c.in.buffer(size)
		for item := range f.Items() {
			from := len(keep)
			keep = append(keep, item...)
			ev, err := readEvent(keep[from:len(keep):len(keep)], c.run)
			if err != nil {
				return err
			}
			evs = append(evs, ev)
		}
		evs = c.in.give(evs, keep)
		return nil
	})
}

// post says what the worker has to say. It never waits: what a slow opener has no
// room for is dropped, and the opener asks again when it hears of that.
func (c *child) post(notes []notice) {
	c.batch.Reset(frameNotices)
	if c.missed {
		c.missed = appendNotice(&c.batch, &notice{kind: noteMissed}) != nil
	}
	for i := range notes {
		err := appendNotice(&c.batch, &notes[i])
		if errors.Is(err, proc.ErrFrameFull) && c.batch.Len() > 0 {
			c.send()
			c.batch.Reset(frameNotices)
			err = appendNotice(&c.batch, &notes[i])
		}
		if err != nil {
			c.missed = true
		}
	}
	c.send()
}

func (c *child) send() {
	if err := c.link.Send(&c.batch); err != nil {
		c.missed = true
	}
}

func (c *child) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
	defer cancel()
	_ = c.link.Flush(ctx) // Nobody is left to tell.
}
