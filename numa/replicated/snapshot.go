package replicated

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// errNoSnapshotter means that the structure cannot be written or read back.
var errNoSnapshotter = errors.New("the structure does not implement Snapshotter")

// Snapshot writes the structure as it is at one moment, between two operations.
// The moment is as long as a clone takes or, where the structure implements no
// [Cloner], a snapshot into memory: a slow w holds up nobody.
func (x *Replicated[S, Op, Res]) Snapshot(w io.Writer) error {
	var clone S
	var cloned bool
	var text bytes.Buffer
	var err error
	readErr := x.Read(func(data S) {
		var c Cloner[S]
		if c, cloned = any(data).(Cloner[S]); cloned {
			clone = c.Clone()
		} else {
			err = snapshotTo(&text, data)
		}
	})
	switch {
	case readErr != nil:
		err = readErr
	case err != nil:
	case cloned:
		err = snapshotTo(w, clone)
	default:
		_, err = text.WriteTo(w)
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

func snapshotTo(w io.Writer, data any) error {
	s, ok := data.(Snapshotter)
	if !ok {
		return errNoSnapshotter
	}
	return s.Snapshot(w)
}

// Restore replaces the content of all replicas by a snapshot, as one operation
// among the others. It also revives a structure that is poisoned.
func (x *Replicated[S, Op, Res]) Restore(ctx context.Context, from io.Reader) error {
	text, err := io.ReadAll(from)
	if err == nil {
		// Once for nothing: what cannot be read must not reach the log.
		_, err = x.restored(-1, text)
	}
	if err == nil && x.poisoned.Load() {
		err = x.revive(text)
	} else if err == nil {
		_, err = x.submit(ctx, x.here(), x.onEach(func(r *replica[S, Op, Res]) {
			data, err := x.restored(r.node, text)
			if err != nil {
				panic(err) // It was read a moment ago: like any panic, it costs this replica.
			}
			x.adopt(r, data)
		}))
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// restored builds a structure for a node, or -1 for none, from a snapshot.
func (x *Replicated[S, Op, Res]) restored(node int, text []byte) (S, error) {
	data := x.build(siteOf(x.topo, node))
	s, ok := any(data).(Snapshotter)
	if !ok {
		return data, errNoSnapshotter
	}
	return data, s.Restore(bytes.NewReader(text))
}

// onEach returns a request that runs do on each replica at the same place of the
// log.
func (x *Replicated[S, Op, Res]) onEach(do func(*replica[S, Op, Res])) *request[S, Op, Res] {
	return &request[S, Op, Res]{extra: &extra[S, Op, Res]{each: do}}
}

// revive gives each node a new replica after the last one was poisoned. What the
// log holds without a verdict is withdrawn.
func (x *Replicated[S, Op, Res]) revive(text []byte) error {
	x.admin.Lock()
	defer x.admin.Unlock()
	if !x.poisoned.Load() {
		return nil // Somebody else did it.
	}
	by := x.here()
	end := x.lastBatch(by).span.end()
	x.skipUndecided(end)
	var fresh []*replica[S, Op, Res]
	for node := range x.nodes {
		if !x.wanted[node].Load() {
			continue
		}
		var r *replica[S, Op, Res]
		var err error
		x.topo.Run(node, func() {
			var data S
			if data, err = x.restored(node, text); err == nil {
				r = x.newReplica(node, data)
			}
		})
		if err != nil {
			return err
		}
		r.applied.Store(end)
		fresh = append(fresh, r)
	}
	for {
		m := x.members.Load()
		if x.members.CompareAndSwap(m, x.changed(m, fresh)) {
			for _, r := range m.attached {
				r.retire()
			}
			x.complete(by, end)
			x.poisoned.Store(false)
			return nil
		}
	}
}

// skipUndecided withdraws what no replica will apply any more.
func (x *Replicated[S, Op, Res]) skipUndecided(end uint64) {
	for pos := x.log.completed.Load(); pos < end; {
		b := x.log.at(pos)
		if b == nil {
			pos++ // The completed tail may stand within a batch.
			continue
		}
		for req := b; req != nil; req = req.next {
			for o := req.original(); ; {
				state := o.state.Load()
				if statusOf(state).decided() || o.state.CompareAndSwap(state, uint64(withdrawn)) {
					break
				}
			}
		}
		pos = b.span.end()
	}
}

// Verify compares the content of all replicas at one place of the log, by the
// structure's Hash. A replica that differs from the majority, or where there is
// none from the replica of the lowest node, is detached and rebuilt, and the
// error is [ErrDiverged].
func (x *Replicated[S, Op, Res]) Verify(ctx context.Context) error {
	if _, ok := any(x.members.Load().attached[0].data).(Hasher); !ok {
		return errors.New("verify: the structure does not implement Hasher")
	}
	var mu sync.Mutex
	hashes := map[*replica[S, Op, Res]]uint64{}
	by := x.here()
	end, err := x.submit(ctx, by, x.onEach(func(r *replica[S, Op, Res]) {
		hash := any(r.data).(Hasher).Hash()
		mu.Lock()
		hashes[r] = hash
		mu.Unlock()
	}))
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	m := x.members.Load()
	for _, r := range m.attached {
		var w waiter
		for r.applied.Load() < end && !r.retired() {
			if err := x.catchUp(by, r, end, &w); err != nil {
				return fmt.Errorf("verify: %w", err)
			}
		}
	}
	x.count.verified.Add(1)
	mu.Lock()
	defer mu.Unlock()
	return x.expel(m.attached, hashes)
}

// expel detaches the replicas whose hash is not the usual one. A replica without
// a hash was cloned from one that had it behind it.
func (x *Replicated[S, Op, Res]) expel(attached []*replica[S, Op, Res], hashes map[*replica[S, Op, Res]]uint64) error {
	byNode := slices.SortedFunc(slices.Values(attached), func(a, b *replica[S, Op, Res]) int { return a.node - b.node })
	votes := map[uint64]int{}
	var usual uint64
	for _, r := range byNode {
		if hash, ok := hashes[r]; ok {
			if votes[hash]++; votes[hash] > votes[usual] {
				usual = hash
			}
		}
	}
	var nodes []int
	for _, r := range byNode {
		if hash, ok := hashes[r]; ok && hash != usual {
			nodes = append(nodes, r.node)
			x.detach(r)
		}
	}
	if nodes == nil {
		return nil
	}
	x.count.diverged.Add(1)
	return fmt.Errorf("verify: nodes %v: %w", nodes, ErrDiverged)
}
