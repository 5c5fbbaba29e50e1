package protocol

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/coreplica/coreplica/replica/clock"
)

// memory performs effects on plain words, without any check that a benchmark does
// not need: what it costs is the stores and the compare-and-swap.
type memory struct {
	cfg     Config
	commits [4]struct {
		word atomic.Uint64
		_    [120]byte
	}
	slots  [4][]uint64
	arenas [4][]byte
	evs    []Event
	// payloads of a batch lie side by side, as a submitter hands them over.
	payloads []byte
	begun    []begun
}

// begun is an attempt under way.
type begun struct {
	id      TaskID
	log     Core
	attempt uint16
	token   uint32
}

func (m *memory) perform(b *testing.B, effects []Effect) {
	for i := range effects {
		e := &effects[i]
		host := e.Region.Host
		switch e.Kind {
		case EffectStoreSlots:
			copy(m.slots[host][e.Seq&(m.cfg.Slots-1)*RecordWords:], e.Words)
		case EffectStoreCells:
			copy(m.arenas[host][e.Seq*CellBytes:], e.Data)
		case EffectPublish:
			if !m.commits[host].word.CompareAndSwap(e.Old, e.New) {
				b.Fatal("a publish failed")
			}
		case EffectBegin:
			for i := range int(e.More) + 1 {
				id, _ := e.Task(i)
				m.begun = append(m.begun, begun{id, e.Log, e.Attempt, e.Token})
			}
		}
	}
}

// bench returns a node that serves its log, with k copies on plain memory, and
// that memory.
func bench(b *testing.B, cores, k int, slots uint64) (*Node, *memory) {
	cfg := testConfig(cores, k)
	cfg.Slots, cfg.Cells = slots, 1<<16
	cfg.Domain = nil
	machine := newMachine(&testing.T{}, cfg, 0)
	n := machine.nodes[0]
	n.held = 1 << 62 // The benchmark does not tick.
	m := &memory{cfg: cfg}
	for _, host := range n.logs[0].members {
		region := RegionID{0, host, n.logs[0].epoch}
		m.commits[host].word.Store(machine.commits[region])
		m.slots[host], m.arenas[host] = machine.slots[region], machine.arenas[region]
	}
	return n, m
}

// cycle takes tasks through the queue in batches: one step submits them, one claims
// them, one ends them.
func cycle(b *testing.B, n *Node, m *memory, batch int, now *clock.Instant, buf []Effect, payload []byte) []Effect {
	*now += 1000
	m.payloads, m.evs = m.payloads[:0], m.evs[:0]
	m.evs = append(m.evs, Event{Kind: EventSubmit, Now: *now, Task: Record{ID: n.Allocate(), Flags: Detached}, Payload: payload})
	if batch > 1 {
		submit := &m.evs[0]
		m.payloads = append(m.payloads, payload...)
		for range batch - 1 {
			n.Allocate()
			m.payloads = append(m.payloads, payload...)
			submit.More++
		}
		submit.Payload = m.payloads
	}
	buf = n.StepAll(m.evs, buf[:0])
	m.perform(b, buf)
	m.begun = m.begun[:0]
	m.evs = append(m.evs[:0], Event{Kind: EventIdle, Now: *now, Count: batch})
	buf = n.StepAll(m.evs, buf[:0])
	m.perform(b, buf)
	m.evs = m.evs[:0]
	for i := range m.begun {
		t := &m.begun[i]
		m.evs = AppendFinished(m.evs, t.log, t.id, t.attempt, t.token)
		m.evs[len(m.evs)-1].Now = *now
	}
	buf = n.StepAll(m.evs, buf[:0])
	m.perform(b, buf)
	return buf
}

// A task's way from its submission over its claim to its end, with a payload of 64
// bytes: protocol, checksums and stores.
func BenchmarkCycle(b *testing.B) {
	for _, batch := range []int{1, 16, 256} {
		for k := 1; k <= 3; k++ {
			b.Run(fmt.Sprintf("batch=%d/k=%d", batch, k), func(b *testing.B) {
				n, m := bench(b, 3, k, 1<<12)
				benchmarkCycle(b, n, m, batch)
			})
		}
	}
}

func benchmarkCycle(b *testing.B, n *Node, m *memory, batch int) {
	var buf []Effect
	now := n.now
	payload := make([]byte, 64)
	m.payloads = make([]byte, 0, batch*len(payload))
	for range 3 * int(m.cfg.Slots) / batch {
		buf = cycle(b, n, m, batch, &now, buf, payload)
	}
	b.ReportAllocs()
	tasks := 0
	for b.Loop() {
		buf = cycle(b, n, m, batch, &now, buf, payload)
		tasks += batch
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(tasks), "ns/task")
}

// How a cycle grows with the number of cores, and with the tasks that wait.
func BenchmarkGrowth(b *testing.B) {
	for _, cores := range []int{1, 2, 4, 8, 16, 32, 64} {
		b.Run(fmt.Sprintf("cores=%d", cores), func(b *testing.B) {
			n, m := bench(b, cores, min(cores, 2), 1<<12) // One core has one copy.
			benchmarkCycle(b, n, m, 256)
		})
	}
	for _, waiting := range []int{10, 1_000, 20_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			n, m := bench(b, 3, 2, 1<<16)
			ev := Event{Kind: EventSubmit, Now: n.now, Payload: make([]byte, 64)}
			var buf []Effect
			for range waiting {
				ev.Task = Record{ID: n.Allocate(), Flags: Detached}
				buf = n.Step(&ev, buf[:0])
				m.perform(b, buf)
			}
			benchmarkCycle(b, n, m, 256)
		})
	}
}

// What checksums and stores alone cost a task, with no queue around them: a payload
// and a record are encoded once and stored in k copies. A cycle cannot be faster.
func BenchmarkFloor(b *testing.B) {
	const batch = 256
	for k := 1; k <= 3; k++ {
		b.Run(fmt.Sprintf("k=%d", k), func(b *testing.B) {
			var copies [3][]uint64
			var arenas [3][]byte
			for i := range copies {
				copies[i], arenas[i] = make([]uint64, 1<<12*RecordWords), make([]byte, 1<<12*CellBytes)
			}
			words, data, payload := make([]uint64, batch*RecordWords), make([]byte, batch*CellBytes), make([]byte, CellBytes)
			r := Record{Kind: KindEnqueue, ID: TaskID{1, Stream{1, 1}, 0}}
			seq := 0
			for b.Loop() {
				for i := range batch {
					r.ID.N++
					copy(data[i*CellBytes:], payload)
					r.Payload = Ref{uint32(i), CellBytes, PayloadCRC(payload)}
					r.Encode(words[i*RecordWords:])
				}
				at := seq % (1 << 12)
				for i := range k {
					copy(arenas[i][at*CellBytes:], data)
					copy(copies[i][at*RecordWords:], words)
				}
				seq += batch
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(batch*b.N), "ns/task")
		})
	}
}
