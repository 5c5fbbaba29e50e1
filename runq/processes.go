package runq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// setup is what a worker process is told first.
type setup struct {
	Name       string          `json:"name"`
	Config     protocol.Config `json:"config"`
	Core       protocol.Core   `json:"core"`
	CPU        int             `json:"cpu"`
	Node       int             `json:"node"`
	Crashed    bool            `json:"crashed"`
	BaseNS     int64           `json:"base_ns"` // The monotonic clock at instant 0.
	Began      time.Time       `json:"began"`
	MaxPayload int             `json:"max_payload"`
	Handlers   int             `json:"handlers"`
	TaskLease  time.Duration   `json:"task_lease_ns"`
	Grace      time.Duration   `json:"grace_ns"`
}

const kindSetup = "setup"

// Exit codes of worker processes.
const (
	exitDone   = 0
	exitFailed = 1
	exitFenced = 3 // Another worker has taken its queue.
	exitOrphan = 4 // Who opened the queue is gone.
)

// birthPatience is how long a worker process may take to come to life: long, for a
// slow machine takes ten seconds, and only one that hangs takes more.
const birthPatience = 30 * time.Second

// processes are workers that are processes.
type processes struct {
	q    *Queue
	base int64

	mu    sync.Mutex
	live  []*process
	lives []uint64
	ended sync.WaitGroup
}

// process is one life of a worker.
type process struct {
	core  protocol.Core
	w     *proc.Worker
	link  *proc.Link
	mu    sync.Mutex // Of batch.
	batch proc.Batch
	lossy *atomic.Bool
	// before is the life before: a process that leaves it in the control page
	// never came to life.
	before uint32
}

func newProcesses(_ context.Context, q *Queue) (f fleet, err error) {
	p := &processes{q: q, live: make([]*process, q.opts.Workers), lives: make([]uint64, q.opts.Workers)}
	nodes := make([]int, len(q.seats))
	for i, s := range q.seats {
		nodes[i] = s.node
	}
	label := "runq"
	if q.opts.Name != "" {
		label += "-" + q.opts.Name
	}
	if q.mem, err = shm.NewShared(q.cfg.Geometry, label, nodes); err != nil {
		return nil, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, errors.Join(fmt.Errorf("read clock: %w", err), p.release())
	}
	p.base, q.began = now.Nano(), time.Now()
	q.now = func() clock.Instant { return clock.Instant(time.Since(q.began)) }
	return p, nil
}

func (f *processes) boot(core protocol.Core, crashed bool) (link, error) {
	q := f.q
	// It may take long, and others shall be killed meanwhile.
	if err := q.mem.Restore(core); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.isClosing() {
		return nil, ErrClosed
	}
	f.lives[core]++
	before := q.mem.Heartbeat(core).Incarnation
	w, err := proc.Spawn(int(core), f.lives[core], proc.SpawnOptions{Log: q.opts.Logger, Env: q.opts.Env, CPUs: numa.ListOf(q.seats[core].cpu)})
	if err != nil {
		return nil, err
	}
	l, err := f.greet(w, core, crashed)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	p := &process{core: core, w: w, link: l, before: before, lossy: &q.slots[core].lossy}
	f.live[core] = p
	f.ended.Go(func() { f.attend(p) })
	return p, nil
}

// greet hands a worker its memory and its link.
func (f *processes) greet(w *proc.Worker, core protocol.Core, crashed bool) (*proc.Link, error) {
	q := f.q
	data, err := json.Marshal(setup{
		Name: q.opts.Name, Config: q.cfg, Core: core, CPU: q.seats[core].cpu, Node: q.seats[core].node, Crashed: crashed, BaseNS: f.base, Began: q.began,
		MaxPayload: q.opts.MaxPayload, Handlers: q.opts.Handlers, TaskLease: q.opts.TaskLease, Grace: q.opts.Grace,
	})
	if err != nil {
		return nil, fmt.Errorf("greet worker %d: %w", core, err)
	}
	ours, theirs, err := proc.Pair()
	if err != nil {
		return nil, err
	}
	files := append([]*os.File{theirs}, q.mem.Files()...)
	err = w.Boot.Send(proc.Message{Kind: kindSetup, Peer: int(core), Life: w.Life, Data: data, Files: files})
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("greet worker %d: %w", core, err), ours.Close())
	}
	return proc.NewLink(ours), nil
}

// attend hears a worker until it is dead and all that it said was heard.
func (f *processes) attend(p *process) {
	q := f.q
	late := time.AfterFunc(birthPatience, func() {
		if q.mem.Heartbeat(p.core).Incarnation == p.before {
			_ = p.w.Kill() // It never came up. If it cannot be killed, nothing helps.
		}
	})
	dead := make(chan bool, 1)
	p.w.Over(func(exit proc.Exit) { dead <- f.bury(p, exit) })
	var notes []notice
	err := p.link.Receive(func(frame proc.Frame) error {
		notes = notes[:0]
		for item := range frame.Items() {
			n, err := readNotice(item, q.cfg.Run)
			if err != nil {
				return err
			}
			notes = append(notes, n)
		}
		q.take(p.core, notes)
		return nil
	})
	if errors.Is(err, proc.ErrFrame) || errors.Is(err, errWire) {
		q.opts.Logger.Error("worker sends what makes no sense", "worker", p.core, "error", err)
		_ = p.w.Kill()
	}
	crashed := <-dead
	late.Stop()
	if err := errors.Join(p.link.Close(), p.w.Close()); err != nil {
		q.opts.Logger.Error("close what belonged to a worker", "worker", p.core, "error", err)
	}
	q.restart(p.core, crashed)
}

// bury tells of a death when it is seen, which is as soon as the worker can do
// nothing more.
func (f *processes) bury(p *process, exit proc.Exit) (crashed bool) {
	q := f.q
	f.mu.Lock()
	if f.live[p.core] == p {
		f.live[p.core] = nil
	}
	f.mu.Unlock()
	life := q.mem.Heartbeat(p.core).Incarnation
	if life == p.before {
		life = 0
	}
	if exit.Code == exitFenced {
		q.fencedOff(p.core, life)
	}
	return q.died(p.core, life, exitError(exit))
}

// exitError describes an end that was not asked for.
func exitError(e proc.Exit) error {
	switch {
	case e.Signal != 0 && !e.Ours:
		return fmt.Errorf("ended by signal %v", e.Signal)
	case e.Code > 0 && e.Code != exitFenced:
		return fmt.Errorf("exit code %d", e.Code)
	}
	return nil
}

// post implements [link]. A batch that a slow worker has no room for is dropped,
// and asked again.
func (p *process) post(evs []protocol.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batch.Reset(frameEvents)
	for len(evs) > 0 {
		ev, n := runOf(evs)
		evs = evs[n:]
		err := appendEvent(&p.batch, &ev)
		if errors.Is(err, proc.ErrFrameFull) && p.batch.Len() > 0 {
			p.send()
			p.batch.Reset(frameEvents)
			err = appendEvent(&p.batch, &ev)
		}
		if err != nil {
			p.lossy.Store(true)
			return
		}
	}
	p.send()
}

func (p *process) send() {
	if err := p.link.Send(&p.batch); err != nil {
		p.lossy.Store(true)
	}
}

// process returns the process that is a given life.
func (f *processes) process(core protocol.Core, incarnation uint32) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.q.mem.Heartbeat(core).Incarnation > incarnation {
		return nil // It is over.
	}
	return f.live[core]
}

func (f *processes) kill(core protocol.Core, incarnation uint32) {
	if p := f.process(core, incarnation); p != nil {
		if err := p.w.Kill(); err != nil {
			f.q.opts.Logger.Error("kill worker", "worker", core, "error", err)
		}
	}
}

// signal is for trials.
func (f *processes) signal(core protocol.Core, sig syscall.Signal) error {
	f.mu.Lock()
	p := f.live[core]
	f.mu.Unlock()
	if p == nil {
		return errNoProcess
	}
	return proc.Signal(p.w.Pidfd(), sig)
}

// resetAffinity does nothing: a kill does it.
func (f *processes) resetAffinity(protocol.Core, uint32) {}

func (f *processes) pid(core protocol.Core) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.live[core]; p != nil {
		return p.w.PID()
	}
	return 0
}

func (f *processes) stop(ctx context.Context) error {
	f.mu.Lock()
	live := append([]*process(nil), f.live...)
	f.mu.Unlock()
	for _, p := range live {
		if p != nil {
			p.mu.Lock()
			p.batch.Reset(frameStop)
			p.send()
			p.mu.Unlock()
			// A worker that was stopped cannot end.
			_ = proc.Signal(p.w.Pidfd(), syscall.SIGCONT)
		}
	}
	ended := make(chan struct{})
	go func() {
		f.ended.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, p := range live {
		if p != nil {
			_ = p.w.Kill()
		}
	}
	<-ended
	return fmt.Errorf("workers were killed, for their handlers still ran: %w", context.Cause(ctx))
}

func (f *processes) release() error { return f.q.mem.Close() }
