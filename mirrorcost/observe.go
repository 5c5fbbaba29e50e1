package mirrorcost

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coreplica/coreplica/bpf"
	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stage"
)

// What the passes saw, with names instead of numbers. The analysis is a pure
// function of these.
type observations struct {
	plan        Plan
	machine     report.Machine
	legs        [2]legFacts
	pace        pace
	ledger      ledgerObservation
	counted     countedObservation
	sampled     sampledObservation
	probe       *probeObservation
	attached    map[string]string
	knowsStolen bool
}

// legFacts are what is known of a leg before it is written to.
type legFacts struct {
	kind, mode string
	copies     int
	devices    []string
	warnings   []string
	table      *stage.Table
}

type ledgerObservation struct {
	quads       []quad
	idle        []*window
	voided      int
	instruments []report.Instrument
	overflow    uint64
}

type countedObservation struct {
	asked               uint64
	acknowledged, bytes [2]uint64
	devices             map[string]bpf.DeviceCounts
}

type sampledObservation struct {
	samples []sample
	dropped [2]uint64
	warning string
}

type probeObservation struct {
	ledgerPercent, allPercent []float64
	nsPerEvent                map[string]float64
}

// window is a stretch of the ledger by the contexts' names.
type window struct {
	wall   uint64 // ns, summed over the CPUs
	ns     map[string]int64
	events map[string]uint64
}

func (s *session) window(d *bpf.Delta) *window {
	w := &window{wall: d.WallNs, ns: map[string]int64{}, events: d.Events}
	for id, ns := range d.Ns {
		w.ns[s.ledger.ContextName(id)] += ns
	}
	return w
}

// add adds another window to this one.
func (w *window) add(o *window) {
	w.wall += o.wall
	if w.ns == nil {
		w.ns, w.events = map[string]int64{}, map[string]uint64{}
	}
	for name, ns := range o.ns {
		w.ns[name] += ns
	}
	for name, n := range o.events {
		w.events[name] += n
	}
}

// sum adds windows up.
func sum(windows ...*window) *window {
	total := new(window)
	for _, w := range windows {
		total.add(w)
	}
	return total
}

// sample is a stack that was seen count times in a context of a leg.
type sample struct {
	leg     int
	context string
	stack   []report.Frame // leaf first
	count   uint64
}

func newSample(leg int, raw bpf.StackSample, ledger *bpf.Ledger, symbols *bpf.Symbols) sample {
	s := sample{leg: leg, context: ledger.ContextName(raw.Context), count: raw.Count}
	for _, address := range raw.Stack {
		s.stack = append(s.stack, report.Frame{Function: symbols.Name(address), Address: address})
	}
	return s
}

// instruments are totals that the kernel keeps without us, at one instant, with
// the ledger's own at the same.
type instruments struct {
	ledger *bpf.Snapshot
	// loadNs is the sum of the load's threads' schedstat.
	loadNs uint64
	// idleNs is idle and iowait of /proc/stat, in ticks of 10 ms.
	idleNs uint64
}

func (s *session) instruments() (i instruments, err error) {
	if i.loadNs, err = schedstat(s.process.Pid()); err != nil {
		return i, err
	}
	if i.idleNs, err = idleTicks(); err != nil {
		return i, err
	}
	i.ledger, err = s.ledger.Snapshot()
	return i, err
}

// compare sets the ledger beside the other instruments between two instants.
func (s *session) compare(start, end instruments) ([]report.Instrument, error) {
	d, err := end.ledger.Since(start.ledger)
	if err != nil {
		return nil, err
	}
	w := s.window(d)
	// The scheduler bills an interrupt to the task that it hit.
	load := float64(w.ns[bpf.LoadUser]+w.ns[bpf.LoadKernel]) + float64(d.IRQInLoadNs)
	return []report.Instrument{
		{Name: "load threads, /proc/PID/task/*/schedstat", LedgerNs: load, OtherNs: float64(end.loadNs - start.loadNs)},
		{Name: "idle, /proc/stat", LedgerNs: float64(w.ns[bpf.Idle]), OtherNs: float64(end.idleNs - start.idleNs)},
	}, nil
}

// schedstat sums the time on the CPU of a process's threads
// (Documentation/scheduler/sched-stats.rst).
func schedstat(pid int) (ns uint64, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("read schedstat of process %d: it has none (%w)", pid, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, fmt.Errorf("read schedstat: %w", err)
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse %s: %w", name, err)
		}
		ns += n
	}
	return ns, nil
}

// nsPerTick is the unit of /proc/stat (USER_HZ is 100 on every architecture that
// Go runs on).
const nsPerTick = 10_000_000

func idleTicks() (uint64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	return parseIdle(text)
}

// parseIdle reads idle and iowait from the first line of /proc/stat (proc(5)).
func parseIdle(stat []byte) (uint64, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 6 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("parse /proc/stat: no total in %q", line)
	}
	var ticks uint64
	for _, f := range fields[4:6] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse /proc/stat: %w", err)
		}
		ticks += n
	}
	return ticks * nsPerTick, nil
}
