package vswitch

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// The bounds of a link's queue. Both are many times what a delay of 100 ms needs
// at the speed of an emulated guest, and 64 ports with a full queue each from
// two neighbours stay below half a gigabyte.
const (
	defaultQueueFrames = 4096
	defaultQueueBytes  = 4 << 20
)

// ErrClosed is returned by what is called after Close.
var ErrClosed = errors.New("the switch is closed")

// ErrNoPort is returned for a port that does not exist.
var ErrNoPort = errors.New("there is no such port")

// Options of a switch. The zero value is right.
type Options struct {
	// Seed decides which frames the rules hit.
	Seed uint64
	// Logger hears of guests that come and go; silent if nil.
	Logger *slog.Logger
	// Record, if not nil, gets all that the decisions depend on, for
	// [ReadRecording]. The switch calls Write from one goroutine at a time,
	// once per event, and stops at the first error, which Close returns.
	Record io.Writer
	// QueueFrames and QueueBytes bound what waits on one link; 4096 frames and
	// 4 MiB if 0.
	QueueFrames, QueueBytes int
}

// Switch connects the guests of one lab. Its methods are safe for concurrent
// use.
type Switch struct {
	dir     string
	options Options
	start   time.Time
	workers sync.WaitGroup

	mu       sync.Mutex
	fabric   *fabric
	ports    map[string]*port
	recorder *recorder
	closed   bool
}

// New returns a switch that keeps its sockets in a folder, which must exist and
// serve this switch alone.
func New(dir string, o Options) (*Switch, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("vswitch: %s is no folder: make one for the sockets first", dir)
	}
	if o.QueueFrames < 0 || o.QueueBytes < 0 {
		return nil, fmt.Errorf("vswitch: queue of %d frames and %d bytes: they cannot be negative", o.QueueFrames, o.QueueBytes)
	}
	if o.QueueFrames == 0 {
		o.QueueFrames = defaultQueueFrames
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = defaultQueueBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Switch{
		dir: dir, options: o, start: time.Now(), fabric: newFabric(o.Seed),
		ports: map[string]*port{}, recorder: newRecorder(o.Record, o.Seed),
	}, nil
}

// AddPort makes a port. Addresses that are declared are never flooded, learned
// away or forgotten; with all declared, which links a frame takes does not
// depend on who spoke first, and so neither does the number of a frame on its
// link. Start QEMU before or after: frames for a guest that is not there are
// counted and lost.
func (s *Switch) AddPort(name string, addresses ...net.HardwareAddr) (Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Port{}, ErrClosed
	}
	if err := s.fabric.check(name); err != nil { // The name becomes a file's.
		return Port{}, fmt.Errorf("add port: %w", err)
	}
	p, err := openPort(s.dir, name)
	if err != nil {
		return Port{}, fmt.Errorf("add port %s: %w", name, err)
	}
	if err := s.fabric.add(name, addresses); err != nil {
		return Port{}, errors.Join(fmt.Errorf("add port: %w", err), p.close())
	}
	s.recorder.event(PortAdded, name, slices.Concat(addresses...))
	for other, o := range s.ports {
		p.connect(other, s.options)
		o.connect(name, s.options)
	}
	s.ports[name] = p
	s.workers.Go(func() { s.receive(p) })
	s.workers.Go(func() { s.transmit(p) })
	return p.Port, nil
}

// RemovePort unplugs a guest, forgets its addresses and counters and drops what
// waits for it. A port that is added again under the name numbers its frames
// from 0. It returns [ErrNoPort] for a name it does not know.
func (s *Switch) RemovePort(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil {
		return fmt.Errorf("remove port %s: %w", name, ErrNoPort)
	}
	s.recorder.event(PortRemoved, name, nil)
	s.fabric.remove(name)
	delete(s.ports, name)
	for _, other := range s.ports {
		delete(other.inbound, name)
	}
	close(p.done)
	if err := p.close(); err != nil {
		return fmt.Errorf("remove port %s: %w", name, err)
	}
	return nil
}

// SetRules replaces all rules, from the next frame on. Frames that wait already
// stay until they are due.
func (s *Switch) SetRules(rules faults.Rules) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setRules(rules)
}

func (s *Switch) setRules(rules faults.Rules) {
	if s.closed {
		return // There is no frame that they could meet.
	}
	s.recorder.event(RulesSet, "", []byte(rules.String()))
	s.fabric.setRules(rules)
}

// Rules returns the rules in force.
func (s *Switch) Rules() faults.Rules {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fabric.rules
}

// Apply adds one command to the rules in force.
func (s *Switch) Apply(c faults.Command) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules, err := s.fabric.rules.With(c)
	if err != nil {
		return err
	}
	s.setRules(rules)
	return nil
}

// Partition keeps groups of ports apart; see [faults.Command] for what a group
// means. A partition that is in force already stays.
func (s *Switch) Partition(groups ...[]string) error {
	return s.Apply(faults.Command{Verb: faults.Partition, Groups: groups})
}

// Heal ends all partitions and cuts.
func (s *Switch) Heal() error { return s.Apply(faults.Command{Verb: faults.Heal}) }

// Stats returns the counters.
func (s *Switch) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{map[Link]Counters{}, map[string]PortCounters{}}
	for name, p := range s.ports {
		stats.Ports[name] = p.received
		for from, in := range p.inbound {
			stats.Links[Link{from, name}] = in.counters
		}
	}
	return stats
}

// Close removes all ports and waits for what serves them. It may be called
// again. It returns what went wrong, a failed recording included.
func (s *Switch) Close() error {
	s.mu.Lock()
	names := []string{}
	for name := range s.ports {
		names = append(names, name)
	}
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	var err error
	for _, name := range names {
		if e := s.RemovePort(name); !errors.Is(e, ErrNoPort) { // Somebody else may remove it meanwhile.
			err = errors.Join(err, e)
		}
	}
	s.workers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if first {
		err = errors.Join(err, s.recorder.err)
	}
	return err
}

// receive takes the frames of one guest.
func (s *Switch) receive(p *port) {
	buffer := make([]byte, MaxFrame+1) // The one more shows that a frame is too long.
	for {
		n, err := p.conn.Read(buffer)
		select {
		case <-p.done:
			return
		default:
		}
		if err != nil {
			s.options.Logger.Error("the port is dead: remove it and add it again", "port", p.Name, "error", err)
			return
		}
		s.arrive(p, slices.Clone(buffer[:n]))
	}
}

// arrive sends a frame on its ways. The frame is never written to again.
func (s *Switch) arrive(p *port, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports[p.Name] != p {
		return // Removed while the frame came.
	}
	now := time.Since(s.start)
	s.recorder.event(FrameArrived, p.Name, frame)
	out, fate := s.fabric.forward(p.Name, frame)
	p.received.Received++
	switch fate {
	case malformed:
		p.received.Malformed++
	case local:
		p.received.Local++
	}
	for _, f := range out {
		s.ports[f.Link.To].push(now, f, frame)
	}
}

// transmit sends to one guest what is due.
func (s *Switch) transmit(p *port) {
	absent := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		now := time.Since(s.start)
		frame, from, next := p.pop(now)
		s.mu.Unlock()
		if from == nil {
			timer.Reset(next - now)
			select {
			case <-p.done:
				return
			case <-p.wake:
			case <-timer.C:
			}
			continue
		}
		err := p.send(frame)
		s.mu.Lock()
		if err == nil {
			from.counters.Delivered++
		} else {
			from.counters.Absent++
		}
		s.mu.Unlock()
		if gone := err != nil; gone != absent {
			absent = gone
			s.options.Logger.Info("guest came or went", "port", p.Name, "absent", absent, "error", err)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, net.ErrClosed) {
			s.options.Logger.Warn("the guest's socket refuses a frame", "port", p.Name, "error", err)
		}
	}
}
