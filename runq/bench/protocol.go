package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// NewProtocol returns the state machine and the memory without the product around
// them: one goroutine submits, claims and ends, a batch at a time. It is the
// counterpart of the uncontended channel.
func NewProtocol(k int) Contender {
	return Contender{Name: Protocol, Mode: "cycle", K: k, Workers: 1, New: func() (Instance, error) {
		c, err := newCycle(Point{Cores: k, K: k})
		if err != nil {
			return Instance{}, err
		}
		return Instance{Run: c.run}, nil
	}}
}

// cycle is a few nodes on memory of this process, of which the first works.
type cycle struct {
	nodes     []*protocol.Node
	executors []*shm.Executor
	programs  [2][]protocol.Effect
	flip      int
	now       clock.Instant
	events    []protocol.Event
	begun     []attempt
	accepted  int
	done      int
	payload   []byte
	payloads  []byte // Of a batch, side by side, as a submitter hands them over.
	control   protocol.Control
	memory    *shm.Memory
}

// attempt is one under way.
type attempt struct {
	id      protocol.TaskID
	log     protocol.Core
	attempt uint16
	token   uint32
}

// outside takes what a program wants of the world.
type outside struct{ c *cycle }

// Do implements [shm.Outside].
func (o outside) Do(e *protocol.Effect) {
	switch {
	case e.Kind == protocol.EffectBegin:
		for i := range int(e.More) + 1 {
			id, _ := e.Task(i)
			o.c.begun = append(o.c.begun, attempt{id, e.Log, e.Attempt, e.Token})
		}
	case e.Kind == protocol.EffectAnswer && e.Code == protocol.CodeAccepted:
		o.c.accepted += 1 + int(e.More)
	case e.Kind == protocol.EffectAnswer && e.Code == protocol.CodeDone:
		o.c.done += 1 + int(e.More)
	}
}

// newCycle returns nodes of which the first serves its log with all its copies. The
// others live only if they hold one: what more cores cost is what the first knows
// of them.
func newCycle(size Point) (*cycle, error) {
	k := size.K
	cfg := protocol.Config{
		Geometry: size.geometry(), Run: 1, K: k,
		Lease: clock.Lease{Length: 365 * 24 * time.Hour, Epsilon: time.Second}, Retry: time.Hour, KillDeadline: time.Hour,
	}
	memory, err := shm.NewHeap(cfg.Geometry)
	if err != nil {
		return nil, err
	}
	c := &cycle{memory: memory, payload: make([]byte, PayloadBytes), now: 1}
	for core := range k {
		node, err := protocol.NewNode(cfg, protocol.Core(core))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, node)
		c.executors = append(c.executors, shm.NewExecutor(memory, node, outside{c}))
		c.step(core, protocol.Event{Kind: protocol.EventStart})
	}
	for range 4 {
		for core := range k {
			c.now++
			memory.ReadControl(&c.control)
			c.step(core, protocol.Event{Kind: protocol.EventTick, Control: &c.control})
		}
	}
	if w := memory.Arbiter(0); w.Phase != protocol.Active || w.InSync(size.Cores).Len() != k {
		return nil, fmt.Errorf("the log has not all copies: %v", w)
	}
	// Tasks that wait are less urgent than those that come and go.
	c.accepted = 0
	for range size.Waiting {
		c.step(0, protocol.Event{Kind: protocol.EventSubmit, Task: protocol.Record{ID: c.nodes[0].Allocate(), NotBefore: protocol.MaxTime}, Payload: c.payload[:1]})
	}
	if c.accepted != size.Waiting {
		return nil, fmt.Errorf("%w: %d of %d tasks that shall wait", errStuck, c.accepted, size.Waiting)
	}
	return c, nil
}

// step feeds events to a node and performs all that follows.
func (c *cycle) step(core int, evs ...protocol.Event) {
	for {
		for i := range evs {
			evs[i].Now = c.now
		}
		c.flip ^= 1
		program := c.programs[c.flip][:0]
		if len(evs) == 1 {
			program = c.nodes[core].Step(&evs[0], program)
		} else {
			program = c.nodes[core].StepAll(evs, program)
		}
		c.programs[c.flip] = program
		var next protocol.Event
		if !c.executors[core].Perform(program, &next) {
			return
		}
		evs = append(c.events[:0], next)
	}
}

var errStuck = errors.New("the protocol did not take a batch through")

func (c *cycle) run(n int) error {
	for ; n > 0; n -= Batch {
		c.now += clock.Instant(time.Microsecond)
		c.accepted, c.done = 0, 0
		submit := protocol.Event{Kind: protocol.EventSubmit, Task: protocol.Record{ID: c.nodes[0].Allocate(), Flags: protocol.Detached}, More: Batch - 1}
		c.payloads = append(c.payloads[:0], c.payload...)
		for range Batch - 1 {
			c.nodes[0].Allocate()
			c.payloads = append(c.payloads, c.payload...)
		}
		submit.Payload = c.payloads
		events := append(c.events[:0], submit)
		c.step(0, events...)
		c.begun = c.begun[:0]
		c.step(0, append(events[:0], protocol.Event{Kind: protocol.EventIdle, Count: Batch})...)
		events = events[:0]
		for i := range c.begun {
			a := &c.begun[i]
			events = protocol.AppendFinished(events, a.log, a.id, a.attempt, a.token)
		}
		c.step(0, events...)
		c.events = events
		if c.accepted != Batch || c.done != Batch {
			return fmt.Errorf("%w: %d accepted, %d done of %d", errStuck, c.accepted, c.done, Batch)
		}
	}
	return nil
}
