package vswitch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// header begins a recording; the number is the format's version.
const header = "coreplica vswitch recording 1\n"

// maxEvents bounds what [ReadRecording] keeps in memory.
const maxEvents = 1 << 20

// EventKind tells what an [Event] is.
type EventKind byte

// The kinds of event, as a recording has them.
const (
	PortAdded    EventKind = 'P' // Data holds the declared addresses, six bytes each
	PortRemoved  EventKind = 'R'
	RulesSet     EventKind = 'S' // Data holds the rules as text; Port is empty
	FrameArrived EventKind = 'F' // Data holds the frame
)

// Event is something that a switch reacts to.
type Event struct {
	Kind EventKind
	Port string
	Data []byte
}

// Recording is all that a switch's decisions depend on.
type Recording struct {
	Seed   uint64
	Events []Event
}

// recorder writes events. It remembers the first error and is silent after it:
// a full disk must not stop the network.
type recorder struct {
	w   io.Writer
	err error
}

func newRecorder(w io.Writer, seed uint64) *recorder {
	r := &recorder{w: w}
	r.write(binary.BigEndian.AppendUint64([]byte(header), seed))
	return r
}

func (r *recorder) write(b []byte) {
	if r.w == nil || r.err != nil {
		return
	}
	if _, err := r.w.Write(b); err != nil {
		r.err = fmt.Errorf("record the traffic: %w", err)
	}
}

// event writes a kind byte, the port and the data, each with its length before
// it, in one call.
func (r *recorder) event(kind EventKind, port string, data []byte) {
	if r.w == nil || r.err != nil {
		return
	}
	b := make([]byte, 0, 1+2*binary.MaxVarintLen32+len(port)+len(data))
	b = append(b, byte(kind))
	b = binary.AppendUvarint(b, uint64(len(port)))
	b = append(b, port...)
	b = binary.AppendUvarint(b, uint64(len(data)))
	r.write(append(b, data...))
}

// ReadRecording reads what a switch wrote to [Options.Record]. Where the
// recording ends in the middle of an event, as after a crash, it returns the
// events before together with an [io.ErrUnexpectedEOF].
func ReadRecording(r io.Reader) (Recording, error) {
	in := bufio.NewReader(r)
	start := make([]byte, len(header)+8)
	if _, err := io.ReadFull(in, start); err != nil || string(start[:len(header)]) != header {
		return Recording{}, fmt.Errorf("read recording: it does not begin with %q", header)
	}
	rec := Recording{Seed: binary.BigEndian.Uint64(start[len(header):])}
	for {
		event, err := readEvent(in)
		if errors.Is(err, io.EOF) {
			return rec, nil
		}
		if err == nil && len(rec.Events) == maxEvents {
			err = fmt.Errorf("it has more than %d events: record a shorter run", maxEvents)
		}
		if err != nil {
			return rec, fmt.Errorf("read recording: event %d: %w", len(rec.Events), err)
		}
		rec.Events = append(rec.Events, event)
	}
}

// readEvent returns io.EOF only where an event could begin.
func readEvent(in *bufio.Reader) (Event, error) {
	kind, err := in.ReadByte()
	if err != nil {
		return Event{}, err
	}
	var maxData int
	switch EventKind(kind) {
	case PortAdded:
		maxData = maxAddresses * len(mac{})
	case PortRemoved:
	case RulesSet:
		maxData = faults.MaxText
	case FrameArrived:
		maxData = MaxFrame + 1
	default:
		return Event{}, fmt.Errorf("there is no kind of event %q", kind)
	}
	port, err := readBytes(in, 64)
	if err != nil {
		return Event{}, err
	}
	data, err := readBytes(in, maxData)
	return Event{EventKind(kind), string(port), data}, err
}

func readBytes(in *bufio.Reader, limit int) ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	if err == nil && n > uint64(limit) {
		return nil, fmt.Errorf("a field has %d bytes, more than %d", n, limit)
	}
	var b []byte
	if err == nil { // With an error n is anything.
		b = make([]byte, n)
		_, err = io.ReadFull(in, b)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// Replay returns what a switch with the recording's seed decides, one entry per
// frame and link. It fails on a recording that no switch can have written.
func (r Recording) Replay() ([]Forward, error) {
	f := newFabric(r.Seed)
	var all []Forward
	for i, event := range r.Events {
		out, err := f.replay(event)
		if err != nil {
			return all, fmt.Errorf("replay event %d: %w", i, err)
		}
		for _, forward := range out {
			forward.Event = i
			all = append(all, forward)
		}
	}
	return all, nil
}

func (f *fabric) replay(event Event) ([]Forward, error) {
	known := slices.Contains(f.ports, event.Port)
	switch {
	case event.Kind == PortAdded:
		var addresses []net.HardwareAddr
		for address := range slices.Chunk(event.Data, len(mac{})) {
			addresses = append(addresses, address)
		}
		return nil, f.add(event.Port, addresses)
	case event.Kind == RulesSet:
		rules, err := faults.Parse(string(event.Data))
		f.setRules(rules)
		return nil, err
	case !known:
		return nil, fmt.Errorf("there is no port %q", event.Port)
	case event.Kind == PortRemoved:
		f.remove(event.Port)
		return nil, nil
	case event.Kind == FrameArrived:
		out, _ := f.forward(event.Port, event.Data)
		return out, nil
	}
	return nil, fmt.Errorf("there is no kind of event %q", event.Kind)
}
