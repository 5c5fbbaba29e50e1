package runq

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/bits"
	"time"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Options are the choices for a queue. The zero value is a worker process for
// each CPU that this process may use, with two copies of everything.
type Options struct {
	// Name is what the queue's processes and memory are called, and no two
	// queues of a user may have it at a time. Empty makes the queue nameless.
	Name string
	// CPUs are those that get a worker each. Nil is all that this process may
	// use.
	CPUs numa.List
	// Workers is how many there are, dealt out to the CPUs in turn; 0 is one
	// for each. They are numbered so that neighbours lie far apart, on other
	// nodes if possible: a queue's copies lie with the workers that follow.
	Workers int
	// Threads makes workers goroutines of this process: faster, and not proof
	// against any failure.
	Threads bool
	// K is how many copies there are, the owner's included; 0 is 2, or 1 where
	// there is one worker.
	K int
	// MinInSync is how many there must be to take tasks; 0 is K.
	MinInSync int
	// AllowSharedDomain lets copies lie in one failure domain where there are
	// fewer domains than copies.
	AllowSharedDomain bool
	// Lease is how long a silent worker keeps its queue; 0 is 250 ms, or 1 s
	// with Threads, where nothing but the scheduler silences one. A death is
	// seen at once, so this is for workers that hang. A machine that lets a
	// worker wait for longer sees takeovers from workers that live.
	Lease time.Duration
	// KillDeadline is how long a victim may take to exit; 0 is 500 ms.
	KillDeadline time.Duration
	// Grace is how long workers outlive who opened the queue; 0 is 1 s.
	Grace time.Duration
	// ResultRetention is how long a result waits for Wait; 0 is 5 minutes.
	ResultRetention time.Duration
	// TaskLease is how long an attempt may run before it is reported as stuck;
	// 0 is one minute. Nothing else happens to it.
	TaskLease time.Duration
	// Slots is how many records a log holds: a power of two, of which half are
	// room for tasks. 0 is by the number of workers.
	Slots int
	// ArenaBytes is the room for payloads and results of a log; 0 is by the
	// number of workers.
	ArenaBytes int
	// MaxPayload is the largest payload and result; 0 is a quarter of
	// ArenaBytes.
	MaxPayload int
	// MaxPending is how many tasks may be unfinished: further submissions wait.
	// 0 is half of what the logs have room for.
	MaxPending int
	// Handlers is how many run at once in a worker; 0 is 1.
	Handlers int
	// MaxCrashes is how many workers may die of a task; 0 is 3.
	MaxCrashes int
	// Env is added to the environment of worker processes.
	Env []string
	// Logger hears what workers and takeovers do; nil is silent.
	Logger *slog.Logger
	// Observe is called with what happens to workers and queues, one call at a
	// time and never for single tasks. It must not wait.
	Observe func(Happening)
}

// Bounds of a default shape: what all regions take, and one log.
const (
	defaultBytes = 128 << 20
	mostSlots    = 4096
	leastSlots   = 1024
	mostArena    = 1 << 20
	leastArena   = 64 << 10
)

// mostPayload leaves room in a frame for what goes with a payload.
const mostPayload = proc.MaxFrameBytes / 2

// maxWorkers is what the protocol's words have room for.
const maxWorkers = protocol.MaxCores

// withDefaults returns the options that are used, or what makes no sense.
func (o Options) withDefaults() (Options, error) {
	if len(o.CPUs) == 0 {
		top, err := numa.Local()
		if err != nil {
			return o, fmt.Errorf("find CPUs: %w", err)
		}
		o.CPUs = top.Limits.CPUs
	}
	o.CPUs = numa.ListOf(o.CPUs...)
	o.Workers = cmp.Or(o.Workers, min(len(o.CPUs), maxWorkers))
	o.K = cmp.Or(o.K, min(2, max(o.Workers, 1)))
	o.MinInSync = cmp.Or(o.MinInSync, o.K)
	lease := 250 * time.Millisecond
	if o.Threads {
		lease = time.Second
	}
	o.Lease = cmp.Or(o.Lease, lease)
	o.KillDeadline = cmp.Or(o.KillDeadline, 500*time.Millisecond)
	o.Grace = cmp.Or(o.Grace, time.Second)
	o.ResultRetention = cmp.Or(o.ResultRetention, 5*time.Minute)
	o.TaskLease = cmp.Or(o.TaskLease, time.Minute)
	regions := o.Workers * o.Workers * protocol.SpareAreas
	share := defaultBytes / max(regions, 1) / 2
	o.Slots = cmp.Or(o.Slots, min(max(floorPower(share/(protocol.RecordWords*8)), leastSlots), mostSlots))
	o.ArenaBytes = cmp.Or(o.ArenaBytes, min(max(share, leastArena), mostArena))
	o.MaxPayload = cmp.Or(o.MaxPayload, min(max(o.ArenaBytes/4-longHeader, 1), mostPayload))
	o.MaxPending = cmp.Or(o.MaxPending, max(o.Workers*o.Slots/4, 1))
	o.Handlers = cmp.Or(o.Handlers, 1)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Workers < 1 || o.Workers > maxWorkers:
		return o, fmt.Errorf("%d workers: want 1 to %d: %w", o.Workers, maxWorkers, ErrInvalid)
	case o.Handlers < 1 || o.MaxPending < 1 || o.MaxCrashes < 0 || o.ArenaBytes < 1 || o.MaxPayload < 1:
		return o, fmt.Errorf("handlers, bounds and sizes must be above 0: %w", ErrInvalid)
	case o.MaxPayload+longHeader > o.ArenaBytes:
		return o, fmt.Errorf("payloads of %d bytes do not fit an arena of %d: %w", o.MaxPayload, o.ArenaBytes, ErrInvalid)
	case !o.Threads && o.MaxPayload > mostPayload:
		return o, fmt.Errorf("payloads of %d bytes: worker processes take %d at most: %w", o.MaxPayload, mostPayload, ErrInvalid)
	case min(o.Lease, o.KillDeadline, o.Grace, o.ResultRetention, o.TaskLease) < 0:
		return o, fmt.Errorf("a time is below 0: %w", ErrInvalid)
	}
	return o, nil
}

func floorPower(n int) int {
	if n < 1 {
		return 1
	}
	return 1 << (bits.Len(uint(n)) - 1)
}

// leaseEpsilon is the margin of a lease on one machine, whose processes share a
// clock: what a store takes to be seen, and the clock's own steps.
const leaseEpsilon = time.Millisecond

// mostRetry is for long leases: a message that was lost holds a task up.
const mostRetry = 50 * time.Millisecond

// mostExceptions bounds what is sorted and searched for each task.
const mostExceptions = 512

// config returns what the nodes of a run agree on.
func (o *Options) config(run uint64, domains []int) protocol.Config {
	return protocol.Config{
		Geometry: protocol.Geometry{
			Cores: o.Workers, Slots: uint64(o.Slots), Cells: uint32((o.ArenaBytes + protocol.CellBytes - 1) / protocol.CellBytes),
		},
		Run: run, K: o.K, MinInSync: o.MinInSync, Domain: domains, AllowSharedDomain: o.AllowSharedDomain,
		Lease:        clock.Lease{Length: o.Lease, Epsilon: min(leaseEpsilon, o.Lease/10)},
		Stagger:      max(o.Lease/10, time.Millisecond),
		KillDeadline: o.KillDeadline,
		Retry:        min(max(o.Lease/2, 2*time.Millisecond), mostRetry),
		MaxCrashes:   o.MaxCrashes,
		// Stolen tasks leave gaps, so who steals much must remember many.
		MaxExceptions: min(max(o.Slots/16, 16), mostExceptions),
	}
}
