package runq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Submit hands a task over. When it returns without an error, every copy has the
// task and its payload.
func (q *Queue) Submit(ctx context.Context, j Job) (ID, error) {
	jobs := [1]Job{j}
	var ids [1]ID
	err := q.submit(ctx, jobs[:], ids[:])
	return ids[0], err
}

// SubmitBatch hands tasks over together, which costs each of them less. IDs of
// tasks that were not taken are zero; the error is the first one's.
func (q *Queue) SubmitBatch(ctx context.Context, jobs []Job) ([]ID, error) {
	ids := make([]ID, len(jobs))
	return ids, q.submit(ctx, jobs, ids)
}

// chunk is how many tasks go to one queue together.
const chunk = 256

func (q *Queue) submit(ctx context.Context, jobs []Job, ids []ID) error {
	for i := range jobs {
		if err := q.check(&jobs[i], i > 0 && jobs[i].Name == jobs[i-1].Name); err != nil {
			return fmt.Errorf("submit %s: %w", jobs[i].Name, err)
		}
	}
	if len(jobs) == 0 {
		return nil
	}
	b := batches.Get().(*batch)
	b.evs = slices.Grow(b.evs[:0], len(jobs))
	b.codes = slices.Grow(b.codes[:0], len(jobs))[:len(jobs)]
	clear(b.codes)
	b.bytes = b.bytes[:0]
	b.left.Store(int64(len(jobs)))
	sent, err := q.send(ctx, b, jobs)
	if rest := len(jobs) - sent; rest > 0 && b.left.Add(-int64(rest)) == 0 {
		b.done <- struct{}{}
	}
	if cause := b.await(ctx); cause != nil {
		return errors.Join(err, q.abandoned(b, ids[:sent], cause))
	}
	for i, code := range b.codes[:sent] {
		if code == protocol.CodeAccepted {
			ids[i] = b.evs[i].Task.ID
		} else if err == nil {
			err = q.refusal(&b.evs[i], code)
		}
	}
	batches.Put(b)
	return err
}

// abandoned gives the IDs of tasks whose fate is not known yet. The batch goes on
// without us, so its memory is not used again.
func (q *Queue) abandoned(b *batch, ids []ID, cause error) error {
	var err error
	for i := range ids {
		t := q.tables[b.evs[i].Task.ID.Core]
		t.mu.Lock()
		id, code := b.evs[i].Task.ID, b.codes[i]
		e := t.find(id)
		was := e != nil && e.batch == b && e.full
		full := was && e.due
		if full {
			// It stands in no queue, and it is not sent again.
			t.release(e)
			e.state, e.batch = burying, nil
		}
		t.mu.Unlock()
		switch {
		case code == protocol.CodeAccepted:
			ids[i] = id
		case code != 0 && err == nil:
			err = q.refusal(&b.evs[i], code)
		case full && err == nil:
			err = fmt.Errorf("submit to queue %d: %w: %w", id.Core, ErrFull, cause)
		case code == 0 && !full:
			ids[i] = id
			if err == nil && was {
				err = &UnknownError{id, errors.Join(ErrFull, cause)} // It is being asked once more.
			} else if err == nil {
				err = &UnknownError{id, cause}
			}
		}
	}
	return err
}

// refusal makes an error of an answer.
func (q *Queue) refusal(ev *protocol.Event, code protocol.Code) error {
	err := ErrInvalid
	switch code {
	case protocol.CodeDegraded:
		err = ErrDegraded
	case protocol.CodeDraining:
		err = ErrDraining
	case protocol.CodeTooLarge:
		err = ErrTooLarge
	case protocol.CodeOtherRun:
		err = ErrOtherRun
	case protocol.CodeUnknown:
		return &UnknownError{ev.Task.ID, q.reason()}
	}
	return fmt.Errorf("submit to queue %d: %w (%v)", ev.Task.ID.Core, err, code)
}

// check refuses a job that makes no sense. Its name may be known already.
func (q *Queue) check(j *Job, known bool) error {
	switch {
	case j.Name == "":
		return fmt.Errorf("a job needs the name of a handler: %w", ErrInvalid)
	case len(j.Payload) > q.opts.MaxPayload:
		return fmt.Errorf("%d bytes, want %d at most: %w", len(j.Payload), q.opts.MaxPayload, ErrTooLarge)
	case j.Priority < 0 || j.Priority > protocol.MaxPrio:
		return fmt.Errorf("priority %d is not within 0 to %d: %w", j.Priority, protocol.MaxPrio, ErrInvalid)
	case j.Mode > OnceRecorded:
		return fmt.Errorf("there is no mode %d: %w", j.Mode, ErrInvalid)
	case j.Delay < 0 || j.Retry.Attempts < 0 || j.Retry.Backoff < 0:
		return fmt.Errorf("a delay or a retry is below 0: %w", ErrInvalid)
	}
	if !known {
		if h, ok := lookup(nameNumber(j.Name)); !ok || h.name != j.Name {
			return ErrNoHandler
		}
	}
	for i, s := range q.seats {
		if j.Affinity.fits(i, s) {
			return nil
		}
	}
	return fmt.Errorf("no worker fits the affinity: %w", ErrInvalid)
}

func (a Affinity) fits(worker int, s seat) bool {
	switch a.kind {
	case onWorker:
		return worker == a.number
	case onCPU:
		return s.cpu == a.number
	case onNode:
		return s.node == a.number
	}
	return true
}

// send deals jobs out to the queues, and waits where there is no room. It returns
// how many were sent.
func (q *Queue) send(ctx context.Context, b *batch, jobs []Job) (sent int, err error) {
	for sent < len(jobs) {
		n, err := q.sendSome(b, jobs, sent)
		if err != nil {
			return sent, err
		}
		if sent += n; n > 0 {
			continue
		}
		room := q.wantRoom()
		if n, err = q.sendSome(b, jobs, sent); n > 0 || err != nil {
			sent += n
			if err != nil {
				return sent, err
			}
			continue
		}
		select {
		case <-room:
		case <-ctx.Done():
			return sent, fmt.Errorf("submit %s: %w: %w", jobs[sent].Name, ErrFull, context.Cause(ctx))
		case <-q.closing:
			return sent, fmt.Errorf("submit %s: %w", jobs[sent].Name, q.reason())
		}
	}
	return sent, nil
}

// sendSome sends jobs that go to the same place as the first, as many as there is
// room for.
func (q *Queue) sendSome(b *batch, jobs []Job, from int) (n int, err error) {
	if err := q.reason(); err != nil {
		return 0, fmt.Errorf("submit %s: %w", jobs[from].Name, err)
	}
	t := q.choose(&jobs[from])
	limit := max(q.opts.MaxPending/len(q.tables), 1)
	bound := int(q.cfg.Cells) * 3 / 4 // The rest is for results.
	now := q.now()
	t.mu.Lock()
	defer t.unlock()
	for from+n < len(jobs) && n < chunk {
		j := &jobs[from+n]
		need := (len(j.Payload) + longHeader + protocol.CellBytes - 1) / protocol.CellBytes
		if j.Affinity != jobs[from].Affinity || t.pending >= limit || t.pending > 0 && t.cells+need > bound {
			break
		}
		e := t.allocate()
		e.batch, e.at, e.detached, e.cells, e.asked = b, from+n, j.Detached, uint32(need), 1
		t.pending++
		t.cells += need
		b.evs = append(b.evs, q.event(b, j, e.id, now, t.log))
		n++
	}
	if n > 0 {
		q.stats.submitted.Add(uint64(n))
		if !q.route(t.log, b.evs[from:from+n]) {
			t.postpone(b.evs[from : from+n])
		}
	}
	return n, nil
}

func (q *Queue) event(b *batch, j *Job, id ID, now clock.Instant, log protocol.Core) protocol.Event {
	r := protocol.Record{ID: id, Mode: j.Mode, Prio: uint8(j.Priority)}
	if j.Detached {
		r.Flags = protocol.Detached
	}
	if j.Delay > 0 {
		r.NotBefore = uint64(now.Add(j.Delay))/1000 + 1
	}
	if !j.Deadline.IsZero() {
		// A deadline that has passed is still one.
		r.Deadline = uint64(max(int64(now)/1000+time.Until(j.Deadline).Microseconds(), 1))
	}
	if j.Affinity.kind != anywhere {
		r.Affinity = log + 1
	}
	from := len(b.bytes)
	if b.name != j.Name {
		b.name, b.number = j.Name, nameNumber(j.Name)
	}
	b.bytes = appendEnvelope(b.bytes, j, b.number, r.Deadline)
	return protocol.Event{Kind: protocol.EventSubmit, Log: log, ID: id, Task: r, Payload: b.bytes[from:]}
}

// choose picks the queue with least to do among those that fit.
func (q *Queue) choose(j *Job) *table {
	start := int(q.next.Add(1))
	var best *table
	least, away := 0, false
	for i := range q.tables {
		k := (start + i) % len(q.tables)
		if !j.Affinity.fits(k, q.seats[k]) {
			continue
		}
		t := q.tables[k]
		t.mu.Lock()
		pending := t.pending
		t.mu.Unlock()
		// One whose CPU has left comes last.
		if off := q.slots[k].away.Load(); best == nil || away && !off || away == off && pending < least {
			best, least, away = t, pending, off
		}
	}
	return best
}

// wantRoom returns what is closed when there is room.
func (q *Queue) wantRoom() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.room == nil {
		q.room = make(chan struct{})
	}
	q.wanted.Store(true)
	return q.room
}

// released says that there may be room.
func (q *Queue) released() {
	if !q.wanted.Load() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wanted.Store(false)
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}
