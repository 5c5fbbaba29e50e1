package protocol

import (
	"fmt"
	"testing"
)

// What a taker computes, effects apart: it seals and reads two copies, decodes
// them, rebuilds the queue and makes a snapshot of it for a fresh region. Its memory
// is ready, as a worker's is.
func BenchmarkTakeover(b *testing.B) {
	for _, waiting := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			cfg := testConfig(2, 2)
			cfg.Slots, cfg.Cells = 1<<15, 1<<15
			m := newMachine(&testing.T{}, cfg, 0)
			var evs []Event
			for range waiting {
				evs = append(evs, Event{Kind: EventSubmit, Task: Record{ID: m.nodes[0].Allocate(), Flags: Detached}, Payload: make([]byte, 64)})
			}
			for len(evs) > 0 {
				n := min(len(evs), 256)
				m.step(0, evs[:n]...)
				evs = evs[n:]
			}
			scratch, buf := make([]byte, ScratchBytes(cfg.Geometry)), make([]Effect, 0, LongestProgram(cfg.Geometry, cfg.K))
			for b.Loop() {
				b.StopTimer()
				taker := m.nodes[1].Clone()
				taker.Lend(NewScratch(cfg.Geometry, scratch))
				control := Control{append([]uint64(nil), m.control.Arbiters...), m.control.Incarnations, m.control.Heartbeats}
				b.StartTimer()
				program := taker.Step(&Event{Kind: EventExited, Now: taker.now + 1, Core: 0, Incarnation: 1, Crashed: true}, buf)
				for !taker.Serves(0) {
					if len(program) == 0 {
						b.Fatal("nothing follows")
					}
					e := &program[len(program)-1]
					result := Event{Kind: EventResult, OK: true, Now: taker.now}
					switch e.Kind {
					case EffectArbiter:
						control.Arbiters[0], result.Word = e.New, e.New
					case EffectSeal:
						result.Word = m.commits[e.Region] | 1<<43
					case EffectRead:
						result.Word, result.Slots, result.Arena = m.commits[e.Region]|1<<43, m.slots[e.Region], m.arenas[e.Region]
					default:
						b.Fatalf("%v ends a program", e.Kind)
					}
					program = taker.Step(&result, buf)
				}
			}
		})
	}
}
