package runq

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/coreplica/coreplica/runq/internal/proc"
	"github.com/coreplica/coreplica/runq/protocol"
)

// Frames between the submitter's process and a worker's. Numbers are
// little-endian, as both ends are this program on this machine.
const (
	frameEvents = iota + 1
	frameNotices
	frameStop
)

var errWire = errors.New("item of a frame makes no sense")

// Sizes of what stands in front of an item's payload. An event is
//
//	kind:8 | log:8 | core:8 | flags:8 | incarnation:32 | more:16 | n:48
//
// and a submitted task adds, once for a run of them, whose payloads follow
//
//	mode:8 | prio:8 | flags:8 | affinity:8 | not before:64 | deadline:64
//
// and a message adds
//
//	kind:8 | from log:8 | from:8 | task's kind:8 | count:32 | task, encoded
const (
	eventBytes   = 16
	taskBytes    = 20
	messageBytes = 8 + protocol.RecordWords*8
	noticeBytes  = 36
)

var order = binary.LittleEndian

// appendEvent adds an event to a frame.
func appendEvent(b *proc.Batch, ev *protocol.Event) error {
	size := eventBytes
	switch ev.Kind {
	case protocol.EventSubmit:
		size += taskBytes + len(ev.Payload)
	case protocol.EventMessage:
		size += messageBytes + len(ev.Message.Payload)
	}
	out, err := b.Extend(size)
	if err != nil {
		return err
	}
	id := ev.ID
	flags := byte(0)
	switch ev.Kind {
	case protocol.EventExited:
		id.Core, id.Incarnation = ev.Core, ev.Incarnation
		if ev.Crashed {
			flags = 1
		}
	case protocol.EventCPUs:
		id.N = ev.Word
	case protocol.EventMessage:
		putMessage(out[eventBytes:], ev.Message)
	case protocol.EventSubmit:
		putTask(out[eventBytes:], ev)
	}
	out[0], out[1], out[2], out[3] = byte(ev.Kind), byte(ev.Log), byte(id.Core), flags
	order.PutUint32(out[4:], id.Incarnation)
	order.PutUint64(out[8:], uint64(ev.More)<<48|id.N)
	return nil
}

func putTask(out []byte, ev *protocol.Event) {
	r := &ev.Task
	out[0], out[1], out[2], out[3] = byte(r.Mode), r.Prio, byte(r.Flags), byte(r.Affinity)
	order.PutUint64(out[4:], r.NotBefore)
	order.PutUint64(out[12:], r.Deadline)
	copy(out[taskBytes:], ev.Payload)
}

// readEvent reads an event, whose payload lies in item.
func readEvent(item []byte, run uint64) (ev protocol.Event, err error) {
	if len(item) < eventBytes {
		return ev, errWire
	}
	ev.Kind, ev.Log = protocol.EventKind(item[0]), protocol.Core(item[1])
	ev.ID = ID{Run: run, Stream: protocol.Stream{Core: protocol.Core(item[2]), Incarnation: order.Uint32(item[4:])}, N: order.Uint64(item[8:]) & protocol.MaxN}
	ev.More = order.Uint16(item[14:])
	rest := item[eventBytes:]
	switch ev.Kind {
	case protocol.EventSubmit:
		if len(rest) < taskBytes {
			return ev, errWire
		}
		ev.Task = protocol.Record{
			ID: ev.ID, Mode: Mode(rest[0]), Prio: rest[1], Flags: protocol.Flags(rest[2]), Affinity: protocol.Core(rest[3]),
			NotBefore: order.Uint64(rest[4:]), Deadline: order.Uint64(rest[12:]),
		}
		if ev.Payload = rest[taskBytes:]; len(ev.Payload)%(int(ev.More)+1) > 0 {
			return ev, errWire
		}
	case protocol.EventMessage:
		if ev.Message, err = readMessage(rest, run); err != nil {
			return ev, err
		}
		ev.Message.ToLog = ev.Log
	case protocol.EventExited:
		ev.Core, ev.Incarnation, ev.Crashed = ev.ID.Core, ev.ID.Incarnation, item[3] == 1
	case protocol.EventCPUs:
		ev.Word, ev.ID, ev.More = order.Uint64(item[8:]), ID{}, 0
	case protocol.EventCancel, protocol.EventResolve, protocol.EventCollect, protocol.EventSteal, protocol.EventDrain, protocol.EventSuspect:
	default:
		return ev, fmt.Errorf("event %v: %w", ev.Kind, errWire)
	}
	return ev, nil
}

// putMessage writes a message. A message that is about no task carries a record
// all the same, since a checksum of it costs nothing beside a system call.
func putMessage(out []byte, m *protocol.Message) {
	out[0], out[1], out[2], out[3] = byte(m.Kind), byte(m.FromLog), byte(m.From), byte(m.Task.Kind)
	order.PutUint32(out[4:], uint32(m.Count))
	task := m.Task
	if task.Kind == protocol.KindNone {
		task.Kind = protocol.KindEnqueue // A record of no kind is damaged.
	}
	var words [protocol.RecordWords]uint64
	task.Encode(words[:])
	for i, w := range words {
		order.PutUint64(out[8+8*i:], w)
	}
	copy(out[messageBytes:], m.Payload)
}

func readMessage(in []byte, run uint64) (*protocol.Message, error) {
	if len(in) < messageBytes {
		return nil, errWire
	}
	var words [protocol.RecordWords]uint64
	for i := range words {
		words[i] = order.Uint64(in[8+8*i:])
	}
	m := &protocol.Message{
		Kind: protocol.MessageKind(in[0]), FromLog: protocol.Core(in[1]), From: protocol.Core(in[2]), Count: int(order.Uint32(in[4:])),
		Payload: in[messageBytes:],
	}
	task, err := protocol.Decode(words[:], run)
	if err != nil {
		// A steal is about no task, and so of no run.
		if task, err = protocol.Decode(words[:], 0); err != nil {
			return nil, err
		}
	}
	m.Task = task
	m.Task.Kind = protocol.Kind(in[3])
	return m, nil
}

// appendNotice adds a notice to a frame.
func appendNotice(b *proc.Batch, n *notice) error {
	size := noticeBytes + len(n.payload)
	if n.kind == noteMessage {
		size = noticeBytes + messageBytes + len(n.message.Payload)
	}
	out, err := b.Extend(size)
	if err != nil {
		return err
	}
	changed := byte(0)
	if n.changed {
		changed = 1
	}
	out[0], out[1], out[2], out[3] = byte(n.kind), byte(n.code), byte(n.step), changed
	out[4], out[5], out[6], out[7] = byte(n.log), byte(n.core), byte(n.id.Core), 0
	order.PutUint32(out[8:], n.incarnation)
	order.PutUint32(out[12:], n.id.Incarnation)
	order.PutUint64(out[16:], n.id.N)
	order.PutUint64(out[24:], n.seq)
	order.PutUint16(out[32:], n.attempt)
	order.PutUint16(out[34:], n.more)
	if n.kind == noteMessage {
		out[4] = byte(n.message.ToLog)
		putMessage(out[noticeBytes:], n.message)
		return nil
	}
	copy(out[noticeBytes:], n.payload)
	return nil
}

// readNotice reads a notice, whose payload lies in item.
func readNotice(item []byte, run uint64) (n notice, err error) {
	if len(item) < noticeBytes || item[0] == 0 {
		return n, errWire
	}
	n = notice{
		kind: noticeKind(item[0]), code: protocol.Code(item[1]), step: HappeningKind(item[2]), changed: item[3] == 1,
		log: protocol.Core(item[4]), core: protocol.Core(item[5]), incarnation: order.Uint32(item[8:]),
		seq: order.Uint64(item[24:]), attempt: order.Uint16(item[32:]), more: order.Uint16(item[34:]),
	}
	n.id = ID{Stream: protocol.Stream{Core: protocol.Core(item[6]), Incarnation: order.Uint32(item[12:])}, N: order.Uint64(item[16:])}
	if n.id.N > 0 {
		n.id.Run = run
	}
	if n.kind == noteMessage {
		if n.message, err = readMessage(item[noticeBytes:], run); err != nil {
			return n, err
		}
		n.message.ToLog = n.log
		return n, nil
	}
	n.payload = item[noticeBytes:]
	return n, nil
}
