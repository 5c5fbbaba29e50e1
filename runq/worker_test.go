package runq

import (
	"log/slog"
	"testing"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// A worker that hears of a death takes the queue over at once, also where the dead
// one has changed who holds copies since the last tick.
func TestDeathIsActedOnWithTheLastWord(t *testing.T) {
	opts, err := Options{Workers: 2, K: 2, Threads: true, AllowSharedDomain: true, Logger: slog.New(slog.DiscardHandler)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	cfg := opts.config(1, nil)
	mem, err := shm.NewHeap(cfg.Geometry)
	if err != nil {
		t.Fatal(err)
	}
	now := clock.Instant(time.Second)
	start := func(core protocol.Core) *worker {
		w, err := newWorker(workerConfig{
			cfg: cfg, core: core, mem: mem, in: newInbox(newChannelAlarm()), now: func() clock.Instant { return now }, began: time.Now(),
			post: func([]notice) {}, maxPayload: opts.MaxPayload, handlers: 1, taskLease: opts.TaskLease,
		})
		if err != nil {
			t.Fatal(err)
		}
		w.pool = newPool(w, 1)
		t.Cleanup(w.end)
		w.step(protocol.Event{Kind: protocol.EventStart})
		w.resume()
		return w
	}
	tick := func(w *worker) {
		now = now.Add(w.tickEvery)
		w.turn()
	}
	victim := start(0)
	tick(victim) // It serves with one copy, for there is nobody else.
	taker := start(1)
	tick(taker)
	before := mem.Arbiter(0)
	for i := 0; mem.Arbiter(0).Epoch == before.Epoch; i++ {
		if i == 1000 {
			t.Fatalf("the owner makes no second copy: %+v", before)
		}
		tick(victim)
	}
	taker.nextTick = now.Add(time.Hour)
	taker.in.put(protocol.Event{Kind: protocol.EventExited, Core: 0, Incarnation: victim.node.Incarnation(), Crashed: true})
	taker.turn()
	if w := mem.Arbiter(0); w.Owner != 1 || w.Phase != protocol.Active {
		t.Errorf("after the news of a death the queue's word is %+v, and was %+v when the taker ticked", w, before)
	}
}
