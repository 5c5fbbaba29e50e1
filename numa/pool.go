package numa

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// Per says what a pool has one worker for.
type Per int

// A worker for each CPU, for the first usable CPU of each core, or for each node
// with the right to use all its CPUs.
const (
	PerCPU Per = iota
	PerCore
	PerNode
)

// PoolOptions are the choices for a pool. The zero value has a worker for each
// CPU that this process may use.
type PoolOptions struct {
	Per Per
	// CPUs restricts the pool further; nil is all that Limits allow.
	CPUs   List
	Worker WorkerOptions
}

// Pool is a set of workers that covers the CPUs of this process. It never uses a
// CPU outside of [Limits].
type Pool[T any] struct {
	workers []*Worker[T]
	// byCPU and byNode have the workers to use from a CPU or a node; every
	// CPU that was online at the start has one.
	byCPU  map[int]*Worker[T]
	byNode map[int][]*Worker[T]
}

// Bindings returns where the workers of a pool would be.
func (o PoolOptions) Bindings(t *Topology) ([]Binding, error) {
	usable := t.Limits.CPUs
	if o.CPUs != nil {
		if outside := o.CPUs.Minus(usable); len(outside) > 0 {
			return nil, fmt.Errorf("plan pool: this process may not use CPUs %s, only %s", outside, usable)
		}
		usable = o.CPUs
	}
	var all []Binding
	add := func(node int, cpus List) {
		if len(cpus) > 0 {
			all = append(all, Binding{Index: len(all), Node: node, CPUs: cpus})
		}
	}
	switch o.Per {
	case PerCPU:
		for _, cpu := range usable {
			add(t.NodeOf(cpu), List{cpu})
		}
	case PerCore:
		for _, core := range t.Cores() {
			if here := core.And(usable); len(here) > 0 {
				add(t.NodeOf(here[0]), here[:1:1])
			}
		}
	case PerNode:
		for _, n := range t.Nodes {
			add(n.ID, n.CPUs.And(usable))
		}
	default:
		return nil, fmt.Errorf("plan pool: there is no kind %d of pool", o.Per)
	}
	if len(all) == 0 {
		return nil, errors.New("plan pool: there is no CPU to put a worker on")
	}
	return all, nil
}

// StartPool starts the workers. Either all of them run or none.
func StartPool[T any](t *Topology, handle Handler[T], o PoolOptions) (*Pool[T], error) {
	bindings, err := o.Bindings(t)
	if err != nil {
		return nil, err
	}
	p := &Pool[T]{byCPU: map[int]*Worker[T]{}, byNode: map[int][]*Worker[T]{}}
	for _, at := range bindings {
		w, err := StartWorker(at, handle, o.Worker)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.workers = append(p.workers, w)
		p.byNode[at.Node] = append(p.byNode[at.Node], w)
		for _, cpu := range at.CPUs {
			p.byCPU[cpu] = w
		}
	}
	p.adopt(t)
	return p, nil
}

// adopt gives CPUs and nodes without a worker one that is near: of the core, of
// the node, of the nearest node.
func (p *Pool[T]) adopt(t *Topology) {
	own := maps.Clone(p.byNode)
	for _, n := range t.Nodes {
		for _, near := range t.Nearest(n.ID) {
			if len(own[near]) > 0 {
				p.byNode[n.ID] = own[near]
				break
			}
		}
	}
	for _, c := range t.CPUs {
		if p.byCPU[c.ID] != nil {
			continue
		}
		here := p.byNode[c.Node]
		p.byCPU[c.ID] = here[c.ID%len(here)]
		for _, w := range here {
			if len(w.at.CPUs.And(c.Siblings)) > 0 {
				p.byCPU[c.ID] = w
			}
		}
	}
}

// Workers returns all workers, by their index.
func (p *Pool[T]) Workers() []*Worker[T] { return p.workers }

// OnNode returns the workers of a node, those of the nearest node where it has
// none, or nil for a node that does not exist.
func (p *Pool[T]) OnNode(node int) []*Worker[T] { return p.byNode[node] }

// Near returns the worker for the CPU that the caller runs on; see [Current] for
// how little that promises.
func (p *Pool[T]) Near() *Worker[T] {
	if w := p.byCPU[CurrentCPU()]; w != nil {
		return w
	}
	return p.workers[0] // A CPU that came online since.
}

// Flush waits until everything is handled that was submitted before.
func (p *Pool[T]) Flush(ctx context.Context) error {
	for _, w := range p.workers {
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close closes all workers and returns what went wrong. It may be called more
// than once.
func (p *Pool[T]) Close() error {
	var all []error
	for _, w := range p.workers {
		w.shut() // All at once; each then ends in its own time.
	}
	for _, w := range p.workers {
		all = append(all, w.Close())
	}
	return errors.Join(all...)
}
