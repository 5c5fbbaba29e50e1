package bpf

import "fmt"

// Snapshot is the state of the books of every CPU, each closed at an instant of
// its own.
type Snapshot struct {
	cpus map[int]*cpuState
}

// Delta is what happened between two snapshots, over all CPUs.
type Delta struct {
	// WallNs is the time between the two, summed over the CPUs.
	WallNs uint64
	// Ns by context id. It is signed: stolen time is settled at the end of
	// a slice, so a short window may hand some back.
	Ns map[uint32]int64
	// Events that the ledger's programs saw, by kind.
	Events map[string]uint64
	// IRQInLoadNs and IRQInOtherNs are the interrupts that hit slices of the
	// load and of other programs. The scheduler bills them to the task, so
	// they are needed to compare with schedstat.
	IRQInLoadNs  uint64
	IRQInOtherNs uint64
}

// Since returns what happened from an earlier snapshot of the same ledger to
// this one.
func (s *Snapshot) Since(earlier *Snapshot) (*Delta, error) {
	d := &Delta{Ns: map[uint32]int64{}, Events: map[string]uint64{}}
	for cpu, now := range s.cpus {
		then, ok := earlier.cpus[cpu]
		if !ok {
			return nil, fmt.Errorf("compare snapshots: CPU %d is only in the later one", cpu)
		}
		if now.LastNs < then.LastNs {
			return nil, fmt.Errorf("compare snapshots: CPU %d's clock went back by %d ns", cpu, then.LastNs-now.LastNs)
		}
		d.WallNs += now.LastNs - then.LastNs
		d.IRQInLoadNs += now.IRQInLoadNs - then.IRQInLoadNs
		d.IRQInOtherNs += now.IRQInOtherNs - then.IRQInOtherNs
		for id := range now.Ns {
			if n := int64(now.Ns[id] - then.Ns[id]); n != 0 {
				d.Ns[uint32(id)] += n
			}
		}
		for i, name := range eventNames {
			if n := now.Events[i] - then.Events[i]; n != 0 {
				d.Events[name] += n
			}
		}
	}
	return d, nil
}

// Add adds another difference to this one.
func (d *Delta) Add(o *Delta) {
	d.WallNs += o.WallNs
	d.IRQInLoadNs += o.IRQInLoadNs
	d.IRQInOtherNs += o.IRQInOtherNs
	for id, n := range o.Ns {
		d.Ns[id] += n
	}
	for name, n := range o.Events {
		d.Events[name] += n
	}
}

// SumNs is the sum over all contexts. It equals WallNs: the books close.
func (d *Delta) SumNs() int64 {
	var sum int64
	for _, n := range d.Ns {
		sum += n
	}
	return sum
}
