package replicated

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// membership says which replicas there are. It is replaced as a whole by a
// compare-and-swap, so that no stalled thread can hold it.
type membership[S Sequential[Op, Res], Op, Res any] struct {
	// attached replicas keep the log from going past them. There is at least
	// one.
	attached []*replica[S, Op, Res]
	// home is the replica that serves a node: its own, or the nearest.
	home []*replica[S, Op, Res]
	// former replicas have left, and threads may still be at work on them.
	former []*replica[S, Op, Res]
	// quiet is set once nobody is at work on a former replica and nobody can
	// begin to be.
	quiet atomic.Bool
}

func (m *membership[S, Op, Res]) has(r *replica[S, Op, Res]) bool {
	return slices.Contains(m.attached, r)
}

// settle finds out whether the former replicas are quiet. A thread that holds a
// retired replica's lock could append to the log what it decides on a state that
// lacks the writes that bypassed the log.
func (m *membership[S, Op, Res]) settle() bool {
	for _, r := range m.former {
		if r.gate.Load()&(lockBit|retiredBit) != retiredBit {
			return false
		}
	}
	m.quiet.Store(true)
	return true
}

// changed returns a membership with other replicas attached.
func (x *Replicated[S, Op, Res]) changed(m *membership[S, Op, Res], attached []*replica[S, Op, Res]) *membership[S, Op, Res] {
	next := &membership[S, Op, Res]{attached: attached, home: make([]*replica[S, Op, Res], x.nodes)}
	var nodes []int
	for _, r := range attached {
		nodes = append(nodes, r.node)
	}
	for node := range x.nodes {
		near := x.topo.Nearest(node, nodes)
		if slices.Contains(nodes, node) {
			near = node
		}
		next.home[node] = attached[max(slices.Index(nodes, near), 0)]
	}
	for _, r := range slices.Concat(m.former, m.attached) {
		gone := r.gate.Load()&(lockBit|retiredBit) == retiredBit
		if !gone && !slices.Contains(attached, r) && !slices.Contains(next.former, r) {
			next.former = append(next.former, r)
		}
	}
	return next
}

// detach takes a replica out without its lock's holder. It reports whether the
// replica is out; the last one never is. A lost replica is rebuilt if that can
// be done.
func (x *Replicated[S, Op, Res]) detach(r *replica[S, Op, Res]) bool {
	for {
		m := x.members.Load()
		if !m.has(r) {
			r.retire()
			return true
		}
		if len(m.attached) == 1 {
			return false
		}
		rest := slices.DeleteFunc(slices.Clone(m.attached), func(q *replica[S, Op, Res]) bool { return q == r })
		if x.members.CompareAndSwap(m, x.changed(m, rest)) {
			r.retire()
			x.count.detached.Add(1)
			x.rebuildSoon(r.node)
			return true
		}
	}
}

// replace puts one replica in another's place. The caller holds the lock of the
// one that goes, so that neither it nor the log has moved since the other was
// copied from it.
func (x *Replicated[S, Op, Res]) replace(old, next *replica[S, Op, Res]) bool {
	for {
		m := x.members.Load()
		i := slices.Index(m.attached, old)
		if i < 0 {
			return old.retired()
		}
		attached := slices.Clone(m.attached)
		attached[i] = next
		if x.members.CompareAndSwap(m, x.changed(m, attached)) {
			old.retire()
			x.count.detached.Add(1)
			x.count.rebuilt.Add(1)
			return true
		}
	}
}

// headroom says how much of the ring may be in use before those who append look
// where the replicas are, and help those that lag: one half.
const headroom = 2

// room reports whether the ring can hold the log up to a position: every attached
// replica has applied what the entries to be reused hold. The caller holds r's
// lock, and r does its own part at once.
func (x *Replicated[S, Op, Res]) room(by actor, r *replica[S, Op, Res], need uint64) bool {
	size := uint64(len(x.log.ring))
	if need <= x.log.head.Load()+size/headroom || !x.guarded(guardRoom) {
		return true
	}
	if r.applied.Load()+size < need {
		x.applyTo(by, r, x.lastBatch(by).span.end(), 0)
	}
	return need <= x.advanceHead(by)+size
}

// help applies the log for other replicas that lag by more than half of the ring
// and whose lock is free: nobody works on them, perhaps because their node's
// threads sleep. The caller holds no lock.
func (x *Replicated[S, Op, Res]) help(by actor, r *replica[S, Op, Res]) {
	half := uint64(len(x.log.ring)) / headroom
	end := x.log.tail.Load().span.end()
	if end <= x.log.head.Load()+half || end <= x.advanceHead(by)+half {
		return
	}
	for _, q := range x.members.Load().attached {
		if q != r && q.applied.Load()+half < end && q.tryLock() {
			x.count.helped.Add(1)
			x.applyTo(by, q, end, 0)
			q.unlock()
		}
	}
}

// How many times [Options.DetachAfter] others are given.
const (
	// ownersPatience is for those who wait for a lock: its holder may itself
	// wait for others.
	ownersPatience = 2
	// clonersPatience is for a replica that is being cloned, since nobody
	// knows how large it is.
	clonersPatience = 100
)

// stall is how long a replica has made no progress.
type stall struct {
	since time.Time
	seen  progress
}

// stalls are those of the replicas that a thread waits for.
type stalls[S Sequential[Op, Res], Op, Res any] struct {
	by map[*replica[S, Op, Res]]*stall
}

// watch detaches a replica whose lock has been held for long, by a thread that
// makes no progress.
func (x *Replicated[S, Op, Res]) watch(s *stalls[S, Op, Res], r *replica[S, Op, Res], patience time.Duration) {
	now := r.progress()
	one := s.by[r]
	if one == nil || one.seen != now || now.gate&lockBit == 0 {
		if s.by == nil {
			s.by = map[*replica[S, Op, Res]]*stall{}
		}
		s.by[r] = &stall{time.Now(), now}
		return
	}
	if r.borrowed.Load() {
		patience = clonersPatience
	}
	if time.Since(one.since) > patience*x.detachAfter {
		x.detach(r)
	}
}

// suspect is what a writer does between naps: it watches its own replica, and if
// the log is full those that keep it so.
func (x *Replicated[S, Op, Res]) suspect(r *replica[S, Op, Res], s *stalls[S, Op, Res]) {
	x.watch(s, r, ownersPatience)
	if !r.full.Load() {
		return
	}
	end := x.log.tail.Load().span.end()
	for _, q := range x.members.Load().attached {
		if q != r && q.applied.Load()+uint64(len(x.log.ring))/headroom < end {
			x.watch(s, q, 1)
		}
	}
}

// advanceHead returns a position that all attached replicas have passed.
func (x *Replicated[S, Op, Res]) advanceHead(by actor) uint64 {
	for {
		m := x.members.Load()
		low := m.attached[0].applied.Load()
		for _, r := range m.attached {
			x.touch(by.node, unsafe.Pointer(&r.applied), false)
			low = min(low, r.applied.Load())
		}
		// A replica that is attached meanwhile starts where its donor stands,
		// and the donor stands still until it is attached: if the membership
		// is still the same, low is below that too.
		if x.members.Load() != m {
			continue
		}
		for {
			old := x.log.head.Load()
			if old >= low {
				return old
			}
			if x.log.head.CompareAndSwap(old, low) {
				return low
			}
		}
	}
}

// cloneBy returns a function that copies structures, or nil if the type offers no
// way.
func cloneBy[S any](sample any, build func() S) func(S) (S, error) {
	if _, ok := sample.(Cloner[S]); ok {
		return func(data S) (copied S, err error) {
			defer recoverClone(&err)
			return any(data).(Cloner[S]).Clone(), nil
		}
	}
	if _, ok := sample.(Snapshotter); ok {
		return func(data S) (copied S, err error) {
			defer recoverClone(&err)
			var text bytes.Buffer
			if err := any(data).(Snapshotter).Snapshot(&text); err != nil {
				return copied, fmt.Errorf("clone by snapshot: %w", err)
			}
			copied = build()
			if err := any(copied).(Snapshotter).Restore(&text); err != nil {
				return copied, fmt.Errorf("clone by restore: %w", err)
			}
			return copied, nil
		}
	}
	return nil
}

func recoverClone(err *error) {
	if value := recover(); value != nil {
		*err = fmt.Errorf("clone: panic: %v", value)
	}
}

// cloneTo clones a structure, into memory of a node where the structure can do so.
func (x *Replicated[S, Op, Res]) cloneTo(node int, data S) (copied S, err error) {
	c, ok := any(data).(interface{ cloneAt(site) S })
	if !ok {
		return x.clone(data)
	}
	defer recoverClone(&err)
	return c.cloneAt(siteOf(x.topo, node)), nil
}

// copyTo makes a replica for a node out of one whose lock the caller holds.
func (x *Replicated[S, Op, Res]) copyTo(node int, donor *replica[S, Op, Res]) (*replica[S, Op, Res], error) {
	var next *replica[S, Op, Res]
	var err error
	x.topo.Run(node, func() {
		var data S
		if data, err = x.cloneTo(node, donor.data); err == nil {
			next = x.newReplica(node, data)
		}
	})
	if err != nil {
		return nil, err
	}
	next.applied.Store(donor.applied.Load())
	return next, nil
}

// rebuildSoon rebuilds a node's replica in the background, unless that is under
// way, cannot be done, or the node is meant to have none.
func (x *Replicated[S, Op, Res]) rebuildSoon(node int) {
	if x.clone == nil || x.closed.Load() || !x.wanted[node].Load() {
		return
	}
	x.rebuilding.Add(1)
	go func() {
		defer x.rebuilding.Add(-1)
		err := x.attach(context.Background(), node)
		switch {
		case err == nil:
			x.count.rebuilt.Add(1)
		case !errors.Is(err, ErrReplicaExists) && !errors.Is(err, ErrClosed):
			x.count.rebuildFailures.Add(1)
		}
	}()
}

// attach clones a replica for a node that has none.
func (x *Replicated[S, Op, Res]) attach(ctx context.Context, node int) error {
	x.admin.Lock()
	defer x.admin.Unlock()
	for {
		m := x.members.Load()
		if slices.ContainsFunc(m.attached, func(r *replica[S, Op, Res]) bool { return r.node == node }) {
			return ErrReplicaExists
		}
		done, err := x.attachFrom(ctx, m.home[node], node)
		if done || err != nil {
			return err
		}
	}
}

// borrow makes a replica stand still for somebody who looks at all of it, until
// [Replicated.giveBack]. It is not held if it retired.
func (x *Replicated[S, Op, Res]) borrow(ctx context.Context, r *replica[S, Op, Res]) (held bool, err error) {
	var w waiter
	var s stalls[S, Op, Res]
	for !r.tryLock() {
		switch {
		case x.closed.Load():
			return false, ErrClosed
		case x.poisoned.Load():
			return false, ErrPoisoned
		case r.retired():
			return false, nil
		}
		if w.pause() {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			x.watch(&s, r, ownersPatience)
		}
	}
	r.borrowed.Store(true)
	return true, nil
}

func (x *Replicated[S, Op, Res]) giveBack(r *replica[S, Op, Res]) {
	r.borrowed.Store(false)
	r.unlock()
}

// attachFrom clones a donor for a node and attaches the clone, while the donor
// stands still. It is not done if the donor was lost.
func (x *Replicated[S, Op, Res]) attachFrom(ctx context.Context, donor *replica[S, Op, Res], node int) (done bool, err error) {
	held, err := x.borrow(ctx, donor)
	if !held {
		return false, err
	}
	defer x.giveBack(donor)
	if x.lost(donor) {
		return false, nil
	}
	next, err := x.copyTo(node, donor)
	if err != nil {
		return false, err
	}
	x.at(stepCloned, node)
	for {
		m := x.members.Load()
		if !m.has(donor) {
			return false, nil
		}
		attached := append(slices.Clone(m.attached), next)
		if x.members.CompareAndSwap(m, x.changed(m, attached)) {
			return true, nil
		}
	}
}

// AddReplica gives a replica to a node that has none. Writes wait for the length
// of one clone at the most.
func (x *Replicated[S, Op, Res]) AddReplica(ctx context.Context, node int) error {
	if err := x.mayChange(node); err != nil {
		return fmt.Errorf("add replica on node %d: %w", node, err)
	}
	if x.clone == nil {
		return fmt.Errorf("add replica on node %d: %w", node, ErrNotCloneable)
	}
	x.wanted[node].Store(true)
	if err := x.attach(ctx, node); err != nil {
		return fmt.Errorf("add replica on node %d: %w", node, err)
	}
	return nil
}

// RemoveReplica takes a node's replica away. The nearest one serves the node from
// then on.
func (x *Replicated[S, Op, Res]) RemoveReplica(ctx context.Context, node int) error {
	if err := x.mayChange(node); err != nil {
		return fmt.Errorf("remove replica of node %d: %w", node, err)
	}
	x.wanted[node].Store(false)
	if err := x.remove(ctx, node); err != nil {
		return fmt.Errorf("remove replica of node %d: %w", node, err)
	}
	return nil
}

func (x *Replicated[S, Op, Res]) mayChange(node int) error {
	switch {
	case node < 0 || node >= x.nodes:
		return fmt.Errorf("the nodes are 0 to %d", x.nodes-1)
	case x.closed.Load():
		return ErrClosed
	case x.poisoned.Load():
		return ErrPoisoned
	}
	return nil
}

func (x *Replicated[S, Op, Res]) remove(ctx context.Context, node int) error {
	x.admin.Lock()
	defer x.admin.Unlock()
	r := x.members.Load().home[node]
	if r.node != node {
		return nil // It was lost, and will not be rebuilt any more.
	}
	var w waiter
	var s stalls[S, Op, Res]
	for !r.tryLock() {
		if r.retired() {
			return nil
		}
		if w.pause() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			x.watch(&s, r, ownersPatience)
		}
	}
	defer r.unlock()
	for {
		m := x.members.Load()
		switch {
		case !m.has(r):
			return nil
		case len(m.attached) == 1:
			x.wanted[node].Store(true)
			return ErrLastReplica
		}
		rest := slices.DeleteFunc(slices.Clone(m.attached), func(q *replica[S, Op, Res]) bool { return q == r })
		if x.members.CompareAndSwap(m, x.changed(m, rest)) {
			r.retire()
			return nil
		}
	}
}

// Replicas returns the nodes that have a replica now, in ascending order.
func (x *Replicated[S, Op, Res]) Replicas() []int {
	var nodes []int
	for _, r := range x.members.Load().attached {
		nodes = append(nodes, r.node)
	}
	slices.Sort(nodes)
	return nodes
}
