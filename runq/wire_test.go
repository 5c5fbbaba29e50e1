package runq

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/protocol"
)

const wireRun = 0x1234567890abcdef

func wireID(n uint64) ID {
	return ID{Run: wireRun, Stream: protocol.Stream{Core: 3, Incarnation: 7}, N: n}
}

// items frames what add adds, and opens the frame.
func items(t *testing.T, add func(b *proc.Batch) error) (list [][]byte) {
	t.Helper()
	var b proc.Batch
	b.Reset(frameEvents)
	if err := add(&b); err != nil {
		t.Fatal(err)
	}
	f, err := proc.Decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for item := range f.Items() {
		list = append(list, item)
	}
	return list
}

func TestEventsCrossTheWire(t *testing.T) {
	task := protocol.Record{
		ID: wireID(9), Mode: OnceRecorded, Prio: 5, Flags: protocol.Detached, Affinity: 4, NotBefore: 1 << 40, Deadline: 1 << 41,
	}
	moved := task
	moved.Kind, moved.Hop, moved.Attempt, moved.Token = protocol.KindEnqueue, 2, 3, 4
	for _, want := range []protocol.Event{
		{Kind: protocol.EventSubmit, Log: 3, ID: wireID(9), Task: task, Payload: []byte("payload")},
		{Kind: protocol.EventSubmit, Log: 3, ID: wireID(9), Task: task, Payload: []byte{}},
		{Kind: protocol.EventSubmit, Log: 3, ID: wireID(9), More: 2, Task: task, Payload: []byte("onetwosix")},
		{Kind: protocol.EventCancel, Log: 2, ID: wireID(1 << 47)},
		{Kind: protocol.EventResolve, Log: 2, ID: wireID(4)},
		{Kind: protocol.EventCollect, Log: 2, ID: wireID(4), More: 1<<16 - 1},
		{Kind: protocol.EventSteal, Log: 2},
		{Kind: protocol.EventCPUs, Word: 1<<63 | 5},
		{Kind: protocol.EventExited, Core: 2, Incarnation: 8, Crashed: true},
		{Kind: protocol.EventMessage, Log: 1, Message: &protocol.Message{Kind: protocol.MessageSteal, FromLog: 2, ToLog: 1, From: 3, Count: 8, Payload: []byte{}}},
		{Kind: protocol.EventMessage, Log: 1, Message: &protocol.Message{Kind: protocol.MessageOffer, FromLog: 2, ToLog: 1, From: 3, Task: moved, Payload: []byte("p")}},
		{Kind: protocol.EventMessage, Log: 1, Message: &protocol.Message{Kind: protocol.MessageFloor, FromLog: 2, ToLog: 1, Task: protocol.Record{ID: wireID(6), Arg: 1}, Payload: []byte{}}},
	} {
		list := items(t, func(b *proc.Batch) error { return appendEvent(b, &want) })
		got, err := readEvent(list[0], wireRun)
		if err != nil {
			t.Errorf("%v: %v", want.Kind, err)
			continue
		}
		if got.Kind == protocol.EventSteal || got.Kind == protocol.EventMessage || got.Kind == protocol.EventExited {
			got.ID = ID{} // It is about none.
		}
		if m := got.Message; m != nil && want.Message.Task.ID.Run == 0 {
			m.Task = protocol.Record{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got %+v, want %+v", want.Kind, got, want)
		}
	}
}

func TestNoticesCrossTheWire(t *testing.T) {
	for _, want := range []notice{
		{kind: noteAnswer, code: protocol.CodeDone, log: 1, core: 2, id: wireID(5), attempt: 6, payload: []byte("result")},
		{kind: noteAnswer, code: protocol.CodeAccepted, log: 1, core: 2, id: wireID(5), more: 1<<16 - 1, payload: []byte{}},
		{kind: noteAnswer, code: protocol.CodeKnown, log: 1, core: 2, id: wireID(5), seq: uint64(protocol.StateReady), payload: []byte{}},
		{kind: noteStep, step: QueueServed, changed: true, log: 1, core: 2, seq: 9, incarnation: 3, payload: []byte{}},
		{kind: noteMessage, log: 1, message: &protocol.Message{Kind: protocol.MessageAccept, FromLog: 2, ToLog: 1, Task: protocol.Record{ID: wireID(6), Hop: 1}, Payload: []byte{}}},
	} {
		list := items(t, func(b *proc.Batch) error { return appendNotice(b, &want) })
		if got, err := readNotice(list[0], wireRun); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v, %v", got, want, err)
		}
	}
}

// Tasks that are alike go as one event with payloads that are not copied, up to a
// length, and a step takes no more of them than of others.
func TestTasksGoInRuns(t *testing.T) {
	bytes := make([]byte, 0, 8*runBytes)
	var evs []protocol.Event
	for i := range 600 {
		from := len(bytes)
		bytes = append(bytes, make([]byte, 1<<8)...)
		evs = append(evs, protocol.Event{Kind: protocol.EventSubmit, ID: wireID(uint64(i + 1)), Task: protocol.Record{ID: wireID(uint64(i + 1)), Prio: uint8(i / 550)}, Payload: bytes[from:]})
	}
	in := newInbox(newChannelAlarm())
	in.put(evs...)
	got, _ := in.take(nil, nil)
	var lengths []int
	for i := range got {
		lengths = append(lengths, int(got[i].More)+1)
	}
	if want := []int{256, 256, 38, 50}; !slices.Equal(lengths, want) {
		t.Errorf("600 tasks go as %v, want %v", lengths, want)
	}
	if n := stepOf(got); n != 2 {
		t.Errorf("a step takes %d runs, want 2", n)
	}
	bad := protocol.Event{Kind: protocol.EventSubmit, ID: wireID(1), More: 2, Payload: []byte("four")}
	list := items(t, func(b *proc.Batch) error { return appendEvent(b, &bad) })
	if _, err := readEvent(list[0], wireRun); !errors.Is(err, errWire) {
		t.Errorf("three payloads of four bytes: %v", err)
	}
}

// Whatever a peer sends is an event, a notice or an error.
func FuzzWire(f *testing.F) {
	for kind := range 20 {
		f.Add(append([]byte{byte(kind)}, make([]byte, 110)...))
		f.Add([]byte{byte(kind)})
	}
	f.Fuzz(func(t *testing.T, item []byte) {
		if ev, err := readEvent(item, wireRun); err == nil && ev.Kind == protocol.EventMessage && ev.Message == nil {
			t.Error("a message without one")
		}
		if n, err := readNotice(item, wireRun); err == nil && n.kind == noteMessage && n.message == nil {
			t.Error("a notice of a message without one")
		}
	})
}

func TestEnvelopes(t *testing.T) {
	for _, j := range []Job{
		{Payload: []byte("x")}, {Retry: Retry{Attempts: 9, Backoff: 1500 * time.Microsecond}, Payload: []byte("y")},
	} {
		for _, deadline := range []uint64{0, 77} {
			env, err := openEnvelope(appendEnvelope(nil, &j, 42, deadline))
			if err != nil || env.handler != 42 || env.deadline != deadline || env.retry != j.Retry || string(env.payload) != string(j.Payload) {
				t.Errorf("%+v comes back as %+v, %v", j, env, err)
			}
		}
	}
	if _, err := openEnvelope([]byte{flagRetry | flagDeadline, 1, 2, 3, 4, 5}); err == nil {
		t.Error("half a header is one")
	}
}

// Backoff doubles from the second failure on, and ends at a minute.
func TestBackoff(t *testing.T) {
	r := Retry{Backoff: 20 * time.Second}
	for failures, want := range []time.Duration{1: 20 * time.Second, 2: 40 * time.Second, 3: time.Minute, 40: time.Minute} {
		if want > 0 && r.after(failures) != want {
			t.Errorf("after %d failures: %v, want %v", failures, r.after(failures), want)
		}
	}
}
