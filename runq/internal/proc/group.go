package proc

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// KindPeer is the message by which a Group gives a worker a link to another one
// and that one's pidfd, in this order. KindOpener brings the link to the opener.
const (
	KindPeer   = "peer"
	KindOpener = "opener"
)

// Group is the opener's workers with links between each pair.
type Group struct {
	o       SpawnOptions
	mu      sync.Mutex
	workers map[int]*Worker
	lives   map[int]uint64
}

// NewGroup returns a group without workers.
func NewGroup(o SpawnOptions) *Group {
	return &Group{o: o, workers: map[int]*Worker{}, lives: map[int]uint64{}}
}

// Start starts a worker, in a new life if its last one has ended, and links it
// with the opener and all living workers. A worker that does not take its link
// is reported in the error and left to the caller: the new one is up.
func (g *Group) Start(index int) (*Worker, *Link, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.workers[index]; old != nil {
		if !Exited(old.pidfd) {
			return nil, nil, fmt.Errorf("start worker %d: its life %d has not ended: kill it first", index, old.Life)
		}
		if err := old.Close(); err != nil {
			return nil, nil, fmt.Errorf("start worker %d: close its last life: %w", index, err)
		}
		delete(g.workers, index)
	}
	ours, theirs, err := Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	g.lives[index]++
	w, err := Spawn(index, g.lives[index], g.o)
	if err != nil {
		return nil, nil, errors.Join(err, ours.Close())
	}
	if err := w.Boot.Send(Message{Kind: KindOpener, Files: []*os.File{theirs}}); err != nil {
		return nil, nil, errors.Join(err, w.Close(), ours.Close())
	}
	var errs []error
	for _, other := range g.workers {
		if !Exited(other.pidfd) {
			errs = append(errs, connect(w, other))
		}
	}
	g.workers[index] = w
	return w, NewLink(ours), errors.Join(errs...)
}

// connect gives two workers a link and each other's pidfd.
func connect(a, b *Worker) error {
	forA, forB, err := Pair()
	if err != nil {
		return err
	}
	defer forA.Close()
	defer forB.Close()
	return errors.Join(
		a.Boot.Send(Message{Kind: KindPeer, Peer: b.Index, Life: b.Life, Files: []*os.File{forA, b.pidfd}}),
		b.Boot.Send(Message{Kind: KindPeer, Peer: a.Index, Life: a.Life, Files: []*os.File{forB, a.pidfd}}),
	)
}

// Close kills all workers and waits for them.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for index, w := range g.workers {
		errs = append(errs, w.Close())
		delete(g.workers, index)
	}
	return errors.Join(errs...)
}
