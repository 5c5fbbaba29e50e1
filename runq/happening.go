package runq

import (
	"fmt"
	"time"
)

// HappeningKind is what happened to a worker or to a queue.
type HappeningKind uint8

const (
	// WorkerUp is a worker that has come to life.
	WorkerUp HappeningKind = iota + 1
	// WorkerDied is one that stopped by itself, or by a signal from outside.
	WorkerDied
	// WorkerFenced is one that found its queue taken over, and ended.
	WorkerFenced
	// WorkerKilled is one that a takeover ended.
	WorkerKilled
	// TakeoverBegan is a new epoch of a queue, of which Worker is the owner.
	TakeoverBegan
	// VictimKilled is the signal of that takeover to the owner before.
	VictimKilled
	// RegionSealed is a copy whose owner can publish no more.
	RegionSealed
	// QueueServed is the end of the takeover: the queue is served again.
	QueueServed
	// FirstClaim is the first task that started from a queue that was taken
	// over from another worker.
	FirstClaim
	// Unkillable is a victim that did not go within KillDeadline.
	Unkillable
	// TaskLost is a task that may not be run again.
	TaskLost
	// RecordsLost are records of a queue of which no copy was left.
	RecordsLost
	// TaskStuck is an attempt that is past its TaskLease.
	TaskStuck
	// WritesFenced is a publication that was refused: another owns the queue.
	WritesFenced
	// CPULeft is a worker whose CPU went offline: it gets no new tasks, and when
	// what runs has ended, its queue goes to one that has its CPU.
	CPULeft
	// CPUBack is the end of that: the queue goes back.
	CPUBack
	// WorkersHang is when all workers stand still and nobody is left to take
	// over: they are killed and started anew.
	WorkersHang
	// WorkerMoved is one whose CPU has left: its loop runs on another one.
	WorkerMoved
	// WorkerBound is one that has its CPU again.
	WorkerBound
	happeningKinds
)

var happeningNames = [happeningKinds]string{"", "worker-up", "worker-died", "worker-fenced", "worker-killed", "takeover-began", "victim-killed",
	"region-sealed", "queue-served", "first-claim", "unkillable", "task-lost", "records-lost", "task-stuck", "writes-fenced",
	"cpu-left", "cpu-back", "workers-hang", "worker-moved", "worker-bound"}

func (k HappeningKind) String() string {
	if k < happeningKinds {
		return happeningNames[k]
	}
	return fmt.Sprintf("HappeningKind(%d)", uint8(k))
}

// Happening is something that happened to a worker or a queue.
type Happening struct {
	Kind HappeningKind
	Time time.Time
	// Worker is the one that it is about, or that did it; Incarnation its life.
	Worker      int
	Incarnation uint32
	// Queue is the number of the queue, Epoch that of its ownership.
	Queue int
	Epoch uint32
	// ID is the task, if it is about one.
	ID  ID
	Err error
}

// Stats are counters since the queue was opened, and what is under way.
type Stats struct {
	Submitted uint64 `json:"submitted"`
	Accepted  uint64 `json:"accepted"`
	Completed uint64 `json:"completed"`
	Failed    uint64 `json:"failed"`
	Cancelled uint64 `json:"cancelled"`
	Lost      uint64 `json:"lost"`
	// Retried counts answers that made the submitter ask again.
	Retried uint64 `json:"retried"`
	// Pending tasks are not finished, Retained results wait for Wait.
	Pending  int `json:"pending"`
	Retained int `json:"retained"`
	// Crashes counts deaths of workers by themselves, Restarts new lives,
	// Takeovers queues that changed hands, Fenced workers that found theirs
	// taken, Unkillable victims that did not go, Stuck attempts past their
	// lease, RecordsLost records without a copy.
	Crashes     uint64 `json:"crashes"`
	Restarts    uint64 `json:"restarts"`
	Takeovers   uint64 `json:"takeovers"`
	Fenced      uint64 `json:"fenced"`
	Unkillable  uint64 `json:"unkillable"`
	Stuck       uint64 `json:"stuck"`
	RecordsLost uint64 `json:"records_lost"`
	// Workers is how each worker is.
	Workers []WorkerStats `json:"workers"`
}

// WorkerStats is how one worker is.
type WorkerStats struct {
	CPU int `json:"cpu"`
	// Node is the memory node, negative where it is unknown.
	Node        int    `json:"node"`
	Up          bool   `json:"up"`
	Incarnation uint32 `json:"incarnation"`
	// PID is the process, 0 for a goroutine.
	PID int `json:"pid"`
	// Queues are those that it serves, Pending the tasks in its own.
	Queues  []int `json:"queues"`
	Pending int   `json:"pending"`
	// Completed counts results that it recorded.
	Completed uint64 `json:"completed"`
}
