package runq

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// cpusEvery is how many turns pass between two looks at the machine's CPUs.
const cpusEvery = 1000

// onlineFile is where the kernel says which CPUs are online. Tests have another.
var onlineFile = "/sys/devices/system/cpu/online"

// followCPUs gives no new tasks to workers whose CPU has left, and has them hand
// their queues over. The kernel moves their threads, so nothing is lost that they
// have.
func (q *Queue) followCPUs() {
	text, err := os.ReadFile(onlineFile)
	if err != nil {
		return // A kernel that cannot switch CPUs off.
	}
	if online, err := numa.ParseList(strings.TrimSpace(string(text))); err == nil {
		q.cpusOnline(online)
	}
}

// cpusOnline tells all workers, each time: what is said to one that has no room
// for it is dropped.
func (q *Queue) cpusOnline(online numa.List) {
	defer q.tellCPUs()
	for i, s := range q.slots {
		off := !online.Has(q.seats[i].cpu)
		if s.away.Swap(off) == off {
			continue
		}
		kind := CPUBack
		if off {
			kind = CPULeft
		}
		q.happen(Happening{Kind: kind, Worker: i})
	}
}

func (q *Queue) tellCPUs() {
	for _, s := range q.slots {
		q.post(s.core, []protocol.Event{q.cpus()})
	}
}

// cpus is the event that says whose CPUs are offline.
func (q *Queue) cpus() protocol.Event {
	ev := protocol.Event{Kind: protocol.EventCPUs}
	for i, s := range q.slots {
		if s.away.Load() {
			ev.Word |= 1 << i
		}
	}
	return ev
}

// hang is how long all workers stand still before they are killed: many leases,
// for a machine that is busy elsewhere is no reason, and never less than what a
// debugger or a suspended machine may take.
const (
	hangLeases = 10
	leastHang  = 5 * time.Second
)

// rescue kills workers that all stand still: each waits for another to take over.
func (q *Queue) rescue(now clock.Instant) {
	patience := max(hangLeases*q.opts.Lease, leastHang)
	for _, s := range q.slots {
		s.watch.Observe(q.mem.Heartbeat(s.core).Pack(), now)
	}
	var hung []*slot
	for _, s := range q.slots {
		s.mu.Lock()
		up, life := s.up, s.life
		s.mu.Unlock()
		if !up || life == 0 {
			continue // It is being started, and that has a patience of its own.
		}
		if s.watch.Silent(now) < patience {
			return
		}
		hung = append(hung, s)
	}
	if len(hung) == 0 {
		return
	}
	q.happen(Happening{Kind: WorkersHang})
	for _, s := range hung {
		q.endHung(s)
	}
}

// endHung kills a worker that hangs. That is no crash of its tasks' making.
func (q *Queue) endHung(s *slot) {
	s.mu.Lock()
	life := s.life
	s.doomed = max(s.doomed, life)
	s.mu.Unlock()
	q.fleet.kill(protocol.Core(s.core), life)
}

// checkControl compares the control page with what it was: epochs and streams only go
// up. It returns an error where the page cannot be believed any more.
func (q *Queue) checkControl(before, now *protocol.Control) error {
	for i := range now.Arbiters {
		w, was := protocol.UnpackArbiter(now.Arbiters[i]), protocol.UnpackArbiter(before.Arbiters[i])
		switch {
		case w.Epoch < was.Epoch, now.Incarnations[i] < before.Incarnations[i]:
			return fmt.Errorf("%w: queue %d goes back from %v, stream %d, to %v, stream %d: close it and open another",
				ErrControlLost, i, was, before.Incarnations[i], w, now.Incarnations[i])
		case int(w.Owner) >= len(q.slots), int(w.ActiveOwner) >= len(q.slots):
			return fmt.Errorf("%w: the owner of queue %d is nobody, in %v: close it and open another", ErrControlLost, i, w)
		}
	}
	return nil
}
