package runq

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/coreplica/coreplica/runq/internal/proc"
)

// SnapshotSchema is the form of a [Snapshot] in JSON. It changes when a reader of
// the one before would misread it.
const SnapshotSchema = "coreplica.runq.stats/1"

// ErrNotOpen says that no queue of the name is open.
var ErrNotOpen = errors.New("no queue of this name is open")

// Snapshot is how a queue is at a moment: what [Look] sees of another process's.
type Snapshot struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// PID is the process that opened the queue, Run what tells this opening
	// from any other.
	PID int    `json:"pid"`
	Run string `json:"run"`
	// State is open, draining, closing, or lost.
	State  string    `json:"state"`
	Time   time.Time `json:"time"`
	Opened time.Time `json:"opened"`
	K      int       `json:"k"`
	Stats  Stats     `json:"stats"`
	// Happenings are the last ones, the oldest first.
	Happenings []PastHappening `json:"happenings"`
}

// PastHappening is a [Happening] in a snapshot.
type PastHappening struct {
	Time        time.Time `json:"time"`
	Kind        string    `json:"kind"`
	Worker      int       `json:"worker"`
	Incarnation uint32    `json:"incarnation"`
	Queue       int       `json:"queue"`
	Epoch       uint32    `json:"epoch,omitempty"`
	Task        string    `json:"task,omitempty"`
	Error       string    `json:"error,omitempty"`
}

// keptHappenings is how many a snapshot has: those of a takeover of each of
// several workers, and little enough for one answer.
const keptHappenings = 64

// recent keeps the last happenings.
type recent struct {
	mu   sync.Mutex
	ring [keptHappenings]PastHappening
	n    int // All that there were.
}

func (r *recent) add(h *Happening) {
	p := PastHappening{Time: h.Time, Kind: h.Kind.String(), Worker: h.Worker, Incarnation: h.Incarnation, Queue: h.Queue, Epoch: h.Epoch}
	if h.ID.N > 0 {
		p.Task = h.ID.String()
	}
	if h.Err != nil {
		p.Error = h.Err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.n%keptHappenings] = p
	r.n++
}

func (r *recent) list() []PastHappening {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]PastHappening, 0, keptHappenings)
	for i := max(r.n-keptHappenings, 0); i < r.n; i++ {
		list = append(list, r.ring[i%keptHappenings])
	}
	return list
}

// Snapshot returns what [Look] would see of this queue.
func (q *Queue) Snapshot() Snapshot {
	stats := q.Stats()
	for i := range stats.Workers {
		if stats.Workers[i].Queues == nil {
			stats.Workers[i].Queues = []int{} // A list in JSON, not null.
		}
	}
	return Snapshot{
		Schema: SnapshotSchema, Name: q.opts.Name, PID: os.Getpid(), Run: fmt.Sprintf("%016x", q.cfg.Run), State: q.stateName(),
		Time: time.Now(), Opened: q.began, K: q.opts.K, Stats: stats, Happenings: q.recent.list(),
	}
}

func (q *Queue) stateName() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.state == closing:
		return "closing"
	case q.failed != nil:
		return "lost"
	case q.state == draining:
		return "draining"
	}
	return "open"
}

// answerPatience bounds a question, to a process that may stand still.
const answerPatience = 5 * time.Second

// mostAnswer bounds an answer: 64 workers and happenings need a tenth of it.
const mostAnswer = 1 << 20

// question is what is asked at a queue's socket, in one line of JSON.
type question struct {
	Want string `json:"want"` // The schema.
}

// answer is a snapshot, or the reason why there is none.
type answer struct {
	Snapshot
	Error string `json:"error,omitempty"`
}

// Look asks the process that has opened a named queue how the queue is. It works
// for the same user, and fails with [ErrNotOpen] where there is none.
func Look(ctx context.Context, name string) (Snapshot, error) {
	s, err := look(ctx, name)
	if errors.Is(err, proc.ErrNobody) {
		err = fmt.Errorf("%w: only queues with Options.Name can be looked at, by the user who opened them", ErrNotOpen)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("look at queue %q: %w", name, err)
	}
	return s, nil
}

func look(ctx context.Context, name string) (s Snapshot, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerPatience, fmt.Errorf("no answer within %v: does its process stand still?", answerPatience))
	defer cancel()
	conn, err := proc.Dial(ctx, name)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	// Also at a moment when nothing is read or written.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	err = json.NewEncoder(conn).Encode(question{SnapshotSchema})
	var line []byte
	if err == nil {
		line, err = bufio.NewReader(io.LimitReader(conn, mostAnswer)).ReadBytes('\n')
	}
	var a answer
	switch {
	case ctx.Err() != nil:
		return s, context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return s, fmt.Errorf("it closed while it was asked: %w", ErrNotOpen)
	case err != nil:
		return s, err
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return s, fmt.Errorf("read its answer: %w", err)
	}
	if a.Error != "" || a.Schema != SnapshotSchema {
		return s, fmt.Errorf("its process answers with schema %q and error %q, not with %s: use the version of coreplica that it is built with", a.Schema, a.Error, SnapshotSchema)
	}
	return a.Snapshot, nil
}

// Names returns the named queues of this user that are open, in order.
func Names(ctx context.Context) ([]string, error) {
	names, err := proc.Listening(ctx)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return names, nil
}

// Leftovers returns the names of queues whose openers died without closing them,
// and removes what they left in the folder of names, if told so. Opening a queue
// of the name does that too.
func Leftovers(remove bool) ([]string, error) {
	names, err := proc.Leftovers(remove)
	if err != nil {
		return names, fmt.Errorf("look for names of dead queues: %w", err)
	}
	return names, nil
}
