package runq

import (
	"fmt"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Doom ends the life of a worker as a takeover would, without one.
func (q *Queue) Doom(worker int) {
	s := q.slots[worker]
	s.mu.Lock()
	life := s.life
	s.mu.Unlock()
	q.fleet.kill(protocol.Core(worker), life)
}

// Rot flips a bit of the last published records of each copy of a queue, or of
// one copy alone, and returns how many it damaged.
func (q *Queue) Rot(queue, records int, all bool) (damaged int) {
	ids, commits := q.mem.Regions(protocol.Core(queue))
	w := q.mem.Arbiter(protocol.Core(queue))
	for i, id := range ids {
		if id.Epoch != w.ActiveEpoch || !all && id.Host != w.ActiveOwner {
			continue
		}
		for seq := commits[i].Tail - min(commits[i].Tail, uint64(records)); seq < commits[i].Tail; seq++ {
			if q.mem.FlipBit(id, seq, 77) {
				damaged++
			}
		}
	}
	return damaged
}

// Owner returns who serves a queue, and how.
func (q *Queue) Owner(queue int) (worker int, state string) {
	w := q.mem.Arbiter(protocol.Core(queue))
	return int(w.Owner), fmt.Sprint(w)
}

// LoseControl damages the control page: the words of all owners are gone.
func (q *Queue) LoseControl() { q.mem.LoseControl() }

// SetOnlineFile has queues that are opened from now on read another file for the
// kernel's, until restore is called.
func SetOnlineFile(name string) (restore func()) {
	before := onlineFile
	onlineFile = name
	return func() { onlineFile = before }
}

// CPUsOnline tells which CPUs are online.
func (q *Queue) CPUsOnline(cpus ...int) { q.cpusOnline(numa.ListOf(cpus...)) }

// Hosts returns the workers in whose memory the copies of a queue lie, the
// owner's first.
func (q *Queue) Hosts(queue int) (hosts []int) {
	w := q.mem.Arbiter(protocol.Core(queue))
	hosts = append(hosts, int(w.ActiveOwner))
	for d := 1; d < q.opts.Workers; d++ {
		if c := (int(w.ActiveOwner) + d) % q.opts.Workers; w.InSync(q.opts.Workers).Has(c) {
			hosts = append(hosts, c)
		}
	}
	return hosts
}

// Placement asks the kernel where the memory of a worker is.
func (q *Queue) Placement(worker int) (numa.Placement, error) {
	return q.mem.Placement(protocol.Core(worker))
}
