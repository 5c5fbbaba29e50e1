package runq

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/internal/shm"
	"github.com/coreplica/coreplica/runq/protocol"
)

// stage is a queue without workers: the test says who is up, who serves what, and
// what time it is.
type stage struct {
	*Queue
	t     *testing.T
	clock atomic.Int64
	boots chan protocol.Core
	links []*ear
}

// ear is a link that keeps what is said to it.
type ear struct {
	mu  sync.Mutex
	evs []protocol.Event
}

func (e *ear) post(evs []protocol.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.evs = append(e.evs, evs...)
}

// asked returns the tasks that were asked about since the last look, in order.
func (e *ear) asked() (ids []ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.evs {
		if e.evs[i].Kind == protocol.EventResolve {
			ids = append(ids, e.evs[i].ID)
		}
	}
	e.evs = nil
	return ids
}

func newStage(t *testing.T) *stage {
	t.Helper()
	opts, err := Options{Workers: 3, Threads: true, Logger: slog.New(slog.DiscardHandler)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, boots: make(chan protocol.Core, 8)}
	s.Queue = &Queue{opts: opts, closing: make(chan struct{}), keep: 100, fleet: s, began: time.Now()}
	s.now = func() clock.Instant { return clock.Instant(s.clock.Load()) }
	s.seats, _ = opts.place()
	s.cfg = opts.config(1, nil)
	if s.mem, err = shm.NewHeap(s.cfg.Geometry); err != nil {
		t.Fatal(err)
	}
	for i := range opts.Workers {
		s.tables = append(s.tables, newTable(s.Queue, protocol.Core(i)))
		s.links = append(s.links, &ear{})
		s.slots = append(s.slots, &slot{core: protocol.Core(i)})
	}
	t.Cleanup(func() {
		close(s.closing)
		s.ended.Wait()
	})
	return s
}

func (s *stage) boot(core protocol.Core, _ bool) (link, error) {
	s.boots <- core
	return s.links[core], nil
}
func (s *stage) kill(protocol.Core, uint32)          {}
func (s *stage) resetAffinity(protocol.Core, uint32) {}
func (s *stage) stop(context.Context) error          { return errors.ErrUnsupported }
func (s *stage) release() error                      { return nil }
func (s *stage) pid(protocol.Core) int               { return 0 }

// lives says that a worker is in a life, and heard by its link if it is up.
func (s *stage) lives(core protocol.Core, life uint32, up bool) {
	slot := s.slots[core]
	slot.mu.Lock()
	defer slot.mu.Unlock()
	slot.life, slot.up, slot.link = life, up, nil
	if up {
		slot.link = s.links[core]
	}
}

// serves has a worker take a queue over.
func (s *stage) serves(log, owner protocol.Core) protocol.ArbiterWord {
	s.t.Helper()
	node, err := protocol.NewNode(s.cfg, owner)
	if err != nil {
		s.t.Fatal(err)
	}
	w := s.mem.Arbiter(log)
	word := protocol.ArbiterWord{Phase: protocol.Active, Epoch: w.Epoch + 1, Owner: owner, ActiveEpoch: w.Epoch + 1, ActiveOwner: owner, Mask: 1}
	var ev protocol.Event
	shm.NewExecutor(s.mem, node, nil).Perform([]protocol.Effect{{Kind: protocol.EffectArbiter, Log: log, Old: w.Pack(), New: word.Pack()}}, &ev)
	if !ev.OK {
		s.t.Fatal("the queue is not taken over")
	}
	return word
}

// task puts a task into the table of a queue that lies in another one by now.
func (s *stage) task(table, where protocol.Core) ID {
	t := s.tables[table]
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.allocate()
	e.state, e.where = accepted, where
	return e.id
}

// booted waits for a worker to be started.
func (s *stage) booted() {
	s.t.Helper()
	select {
	case <-s.boots:
	case <-time.After(20 * time.Second):
		s.t.Fatal("the worker is not started again")
	}
}

// notBooted looks on for a while, many times longer than a restart without a reason
// to wait takes.
func (s *stage) notBooted(why string) {
	s.t.Helper()
	select {
	case <-s.boots:
		s.t.Fatal("the worker is started " + why)
	case <-time.After(30 * firstRestart):
	}
}

// mourned is a stage where worker 0 has died, and worker 1 has not taken its queue yet.
func mourned(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.lives(1, 1, true)
	s.serves(0, 0)
	s.restart(0, true)
	s.notBooted("before its queue is taken over")
	return s
}

// A new life waits until another worker serves the queue of the one before, which
// needs the CPUs first.
func TestRestartWaitsForTheTaker(t *testing.T) {
	s := mourned(t)
	s.serves(0, 1)
	s.booted()
}

// A taker that does not come is not waited for longer than the mourning.
func TestRestartDoesNotMournForEver(t *testing.T) {
	s := mourned(t)
	s.clock.Add(int64(mourning + firstRestart))
	s.booted()
}

// Where there is nobody to take the queue over, or nothing to be taken, a new life
// does not wait: the clock stands still, so that no mourning ends.
func TestRestartWaitsForNobody(t *testing.T) {
	for name, prepare := range map[string]func(*stage){
		"alone":                 func(s *stage) { s.serves(0, 0) },
		"neighbours are born":   func(s *stage) { s.serves(0, 0); s.lives(1, 0, true) },
		"neighbours are down":   func(s *stage) { s.serves(0, 0); s.lives(1, 1, false) },
		"it was never served":   func(s *stage) { s.lives(1, 1, true) },
		"another one serves it": func(s *stage) { s.lives(1, 1, true); s.serves(0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			prepare(s)
			s.restart(0, true)
			s.booted()
		})
	}
}

// Where something said was dropped, all is asked again that lies with that worker,
// once, and nothing of others.
func TestDroppedIsAskedAgain(t *testing.T) {
	s := newStage(t)
	for core := range protocol.Core(3) {
		s.lives(core, 1, true)
		s.serves(core, core)
	}
	s.serves(0, 1)
	want := []ID{s.task(0, 0), s.task(1, 1), s.task(2, 0)}
	s.task(0, 2)
	s.task(2, 2)
	s.heard(1, &notice{kind: noteMissed})
	s.ended.Go(s.tend)
	var got []ID
	for end := time.Now().Add(20 * time.Second); len(got) < len(want) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		got = append(got, s.links[1].asked()...)
	}
	for _, id := range want {
		if !slices.Contains(got, id) {
			t.Errorf("%v is not asked about again", id)
		}
	}
	s.makeUp()
	if more := slices.Concat(s.links[0].asked(), s.links[1].asked(), s.links[2].asked()); len(more) > 0 || len(got) != len(want) {
		t.Errorf("asked about %v, and then %v", got, more)
	}
}

// When another life serves a queue, all is asked that lies there, whichever table
// has it: nobody knows what the life before answered.
func TestAnotherLifeIsAskedEverything(t *testing.T) {
	s := newStage(t)
	for core := range protocol.Core(3) {
		s.lives(core, 1, true)
	}
	want := []ID{s.task(0, 0), s.task(2, 0)}
	s.task(0, 1)
	expect := func(when string, core protocol.Core, word protocol.ArbiterWord, ids []ID) {
		t.Helper()
		s.follow(s.tables[0], word)
		if got := s.links[core].asked(); !slices.Equal(got, ids) {
			t.Errorf("%s: asked about %v, want %v", when, got, ids)
		}
	}
	word := s.serves(0, 0)
	expect("the first life", 0, word, nil)
	expect("the same life", 0, word, nil)
	s.lives(0, 2, true)
	expect("a new life of the owner", 0, word, want)
	expect("the same life again", 0, word, nil)
	s.lives(1, 2, true)
	expect("another owner of the same number", 1, s.serves(0, 1), want)
}

// A life can be heard of before there is a link to it. It is asked when there is: what
// would be said before would be said to nobody.
func TestLifeWithoutLinkIsAskedLater(t *testing.T) {
	s := newStage(t)
	s.lives(0, 1, true)
	id, word := s.task(0, 0), s.serves(0, 0)
	s.follow(s.tables[0], word)
	s.lives(0, 2, false)
	s.follow(s.tables[0], word)
	s.lives(0, 2, true)
	s.follow(s.tables[0], word)
	if got := s.links[0].asked(); !slices.Equal(got, []ID{id}) {
		t.Errorf("asked about %v", got)
	}
}
