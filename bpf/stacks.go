package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// DefaultFrequency is the sampling frequency in Hz: a prime, so that it does not
// march in step with the kernel's tick.
const DefaultFrequency = 997

// StackSample is a kernel stack with the context that it ran in.
type StackSample struct {
	Context uint32
	// Stack holds return addresses, leaf first. It is empty for samples
	// taken in user mode.
	Stack []uint64
	Count uint64
}

// Stacks samples kernel stacks on every CPU's clock.
type Stacks struct {
	probe     *probe
	ledger    *Ledger
	frequency uint64
	events    []int
}

// OpenStacks loads the sampler. It files samples under the contexts of ledger,
// which must be started. [Stacks.Attach] begins to sample at frequency Hz.
func OpenStacks(ledger *Ledger, frequency int, o LedgerOptions) (*Stacks, error) {
	var (
		p   *probe
		err error
	)
	if o.Pinned != "" {
		p, err = openPinned("stacks", o.Pinned, ledger.shared())
	} else {
		p, err = load("stacks", "perf_event", loadOptions{share: ledger.shared()})
	}
	if err != nil {
		return nil, fmt.Errorf("open probe stacks: %w", err)
	}
	s := &Stacks{probe: p, ledger: ledger, frequency: uint64(frequency)}
	if err := p.need([]string{"stacks_sample"}, []string{"stacks", "samples", "sampled"}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Attach opens a CPU clock event on each CPU and runs the sampler on it.
func (s *Stacks) Attach() error {
	if len(s.events) > 0 {
		return nil
	}
	for _, cpu := range s.ledger.cpus {
		attr := &unix.PerfEventAttr{
			Type:   unix.PERF_TYPE_SOFTWARE,
			Config: unix.PERF_COUNT_SW_CPU_CLOCK,
			Size:   uint32(unix.PERF_ATTR_SIZE_VER1),
			Sample: s.frequency,
			Bits:   unix.PerfBitFreq,
		}
		fd, err := unix.PerfEventOpen(attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			_ = s.Detach()
			return fmt.Errorf("open CPU clock on CPU %d: %w; see kernel.perf_event_paranoid and kernel.perf_event_max_sample_rate", cpu, err)
		}
		s.events = append(s.events, fd)
		l, err := link.AttachRawLink(link.RawLinkOptions{
			Target: fd, Program: s.probe.programs["stacks_sample"], Attach: ebpf.AttachPerfEvent,
		})
		if err != nil {
			_ = s.Detach()
			return fmt.Errorf("attach sampler on CPU %d: %w", cpu, err)
		}
		s.probe.links = append(s.probe.links, l)
	}
	return nil
}

// Detach stops sampling.
func (s *Stacks) Detach() error {
	err := s.probe.detach()
	for _, fd := range s.events {
		err = errors.Join(err, unix.Close(fd))
	}
	s.events = nil
	return err
}

// Close stops sampling and unloads. It is idempotent.
func (s *Stacks) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.Detach(), s.probe.Close())
}

// Counts returns how many samples were taken, how many of them in idle, and how
// many were dropped because a stack found no room.
func (s *Stacks) Counts() (taken, idle, dropped uint64, err error) {
	var sums [3]uint64
	for i := range sums {
		var perCPU []uint64
		if err := s.probe.maps["sampled"].Lookup(uint32(i), &perCPU); err != nil {
			return 0, 0, 0, fmt.Errorf("read sample counts: %w", err)
		}
		for _, n := range perCPU {
			sums[i] += n
		}
	}
	return sums[0], sums[1], sums[2], nil
}

// Drain returns the samples since the last call and forgets them. Call it while
// detached.
func (s *Stacks) Drain() ([]StackSample, error) {
	var (
		key  sampleKey
		keys []sampleKey
		n    uint64
		out  []StackSample
	)
	m := s.probe.maps["samples"]
	it := m.Iterate()
	for it.Next(&key, &n) {
		keys = append(keys, key)
		sample := StackSample{Context: key.Context, Count: n}
		if key.Stack >= 0 {
			var addresses [64]uint64
			if err := s.probe.maps["stacks"].Lookup(uint32(key.Stack), &addresses); err != nil {
				return nil, fmt.Errorf("read stack %d: %w", key.Stack, err)
			}
			for _, a := range addresses {
				if a == 0 {
					break
				}
				sample.Stack = append(sample.Stack, a)
			}
		}
		out = append(out, sample)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	for _, k := range keys {
		err := m.Delete(k)
		// Several contexts may share a stack. A stack that stays would keep
		// others with its hash out.
		if k.Stack >= 0 && err == nil {
			if gone := s.probe.maps["stacks"].Delete(uint32(k.Stack)); !errors.Is(gone, ebpf.ErrKeyNotExist) {
				err = gone
			}
		}
		if err != nil {
			return nil, fmt.Errorf("forget samples: %w", err)
		}
	}
	return out, nil
}
