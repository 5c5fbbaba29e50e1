package shm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/numa"
	"github.com/coreplica/coreplica/runq/protocol"
)

// lineBytes is what the protocol pads words to that different cores write.
const lineBytes = 128

// Memory is a control page and one memory for each core that hosts regions.
type Memory struct {
	geo     protocol.Geometry
	control []uint64
	hosts   [][]uint64
	// files are the control page's and the hosts', nil for memory of one
	// process.
	files    []*os.File
	mappings []mapping
}

// Bytes returns how much memory a run of this shape takes.
func Bytes(geo protocol.Geometry) uint64 {
	return 8 * (uint64(geo.ControlWords()) + uint64(geo.Cores)*hostWords(geo))
}

// hostWords is the size of one core's memory: a few areas for each log.
func hostWords(geo protocol.Geometry) uint64 {
	return uint64(geo.Cores) * protocol.SpareAreas * areaWords(geo)
}

// areaWords is the size of a region, up to the next line.
func areaWords(geo protocol.Geometry) uint64 {
	return (uint64(geo.RegionWords()) + lineBytes/8 - 1) / (lineBytes / 8) * (lineBytes / 8)
}

// NewHeap returns memory for one process.
func NewHeap(geo protocol.Geometry) (*Memory, error) {
	if err := geo.Validate(); err != nil {
		return nil, fmt.Errorf("make memory: %w", err)
	}
	m := &Memory{geo: geo, control: aligned(uint64(geo.ControlWords()))}
	for range geo.Cores {
		m.hosts = append(m.hosts, aligned(hostWords(geo)))
	}
	return m, nil
}

// aligned returns words that begin on a line.
func aligned(n uint64) []uint64 {
	words := make([]uint64, n+lineBytes/8)
	off := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(words)))%lineBytes) / 8
	if off > 0 {
		off = lineBytes/8 - off
	}
	return words[off : off+n : off+n]
}

// NewShared returns memory that other processes can attach, its pages already
// taken: a touch of a page that the machine does not have would end a process.
// Memory of a core lies on its node; a node of [numa.Unknown], or no nodes at
// all, leave that to the kernel. The name is what /proc shows of the files.
func NewShared(geo protocol.Geometry, name string, nodes []int) (m *Memory, err error) {
	if err := geo.Validate(); err != nil {
		return nil, fmt.Errorf("make memory: %w", err)
	}
	m = &Memory{geo: geo}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
			m = nil
		}
	}()
	for i := range geo.Cores + 1 {
		bytes, label := hostWords(geo)*8, fmt.Sprintf("%s-core-%d", name, i-1)
		policy := numa.LocalPolicy()
		if i == 0 {
			bytes, label = uint64(geo.ControlWords())*8, name+"-control"
		} else if i <= len(nodes) && nodes[i-1] != numa.Unknown {
			policy = numa.Bind(nodes[i-1])
		}
		file, err := create(label, int64(bytes))
		if err != nil {
			return m, fmt.Errorf("make memory %s of %d bytes: %w", label, bytes, err)
		}
		m.files = append(m.files, file)
		if err := m.mapFile(file, bytes, policy); err != nil {
			return m, fmt.Errorf("make memory %s: %w", label, err)
		}
	}
	return m, nil
}

// ErrShape is wrapped by the error for files that are not the memory of a shape: of
// another number or size, or such that they could become shorter. A touch of what lies
// behind a file's end would end the process.
var ErrShape = errors.New("memory is of another shape")

// Attach maps memory that another process made. It takes the files over, also
// where it fails.
func Attach(geo protocol.Geometry, files []*os.File) (m *Memory, err error) {
	m = &Memory{geo: geo, files: files}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("attach memory: %w", err), m.Close())
			m = nil
		}
	}()
	if err := geo.Validate(); err != nil {
		return m, err
	}
	if len(files) != geo.Cores+1 {
		return m, fmt.Errorf("there are %d files for %d cores and a control page: %w", len(files), geo.Cores, ErrShape)
	}
	for i, file := range files {
		bytes := hostWords(geo) * 8
		if i == 0 {
			bytes = uint64(geo.ControlWords()) * 8
		}
		info, err := file.Stat()
		if err != nil {
			return m, err
		}
		if info.Size() != int64(bytes) {
			return m, fmt.Errorf("file %s has %d bytes, want %d: %w", file.Name(), info.Size(), bytes, ErrShape)
		}
		seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
		if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
			return m, fmt.Errorf("file %s may shrink under us (seals %#x): %w", file.Name(), seals, errors.Join(err, ErrShape))
		}
		if err := m.mapFile(file, bytes, numa.LocalPolicy()); err != nil {
			return m, err
		}
		// The pages are there; what this saves is a fault for each of them in
		// the midst of a takeover. Before Linux 5.14 they come one by one.
		_ = unix.Madvise(m.mappings[i].bytes, unix.MADV_POPULATE_WRITE)
	}
	return m, nil
}

// mapFile maps a file and appends it to the memory. A policy other than the
// local one is the file's, so that it holds whoever touches a page first.
func (m *Memory) mapFile(file *os.File, bytes uint64, policy numa.Policy) error {
	mapped, err := mapShared(file, bytes)
	if err != nil {
		return fmt.Errorf("map %s: %w", file.Name(), err)
	}
	m.mappings = append(m.mappings, mapped)
	if policy.Mode != numa.ModeLocal {
		if err := policy.Apply(mapped.bytes); err != nil {
			return err
		}
	}
	if err := fill(file, mapped); err != nil {
		return err
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mapped.bytes))), len(mapped.bytes)/8)
	if m.control == nil {
		m.control = words
	} else {
		m.hosts = append(m.hosts, words)
	}
	return nil
}

// Geometry returns the shape of the memory.
func (m *Memory) Geometry() protocol.Geometry { return m.geo }

// Files returns the files, for a process that shall attach them: the control
// page's first. It is nil for memory of one process.
func (m *Memory) Files() []*os.File { return m.files }

// Close gives the memory back. Nothing may use regions any more; the control page
// can be read until m itself is garbage, since who owns a log is what everybody
// looks at.
func (m *Memory) Close() error {
	var errs []error
	for i, mapped := range m.mappings {
		if i == 0 {
			runtime.AddCleanup(m, func(mapped mapping) { _ = mapped.unmap() }, mapped)
			continue
		}
		errs = append(errs, mapped.unmap())
	}
	for _, file := range m.files {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	m.mappings, m.files, m.hosts = nil, nil, nil
	return errors.Join(errs...)
}

// Punch loses the memory of a core: what was there reads as zeros, as if the
// failure domain had gone with it.
func (m *Memory) Punch(host protocol.Core) error {
	if int(host) >= len(m.hosts) {
		return fmt.Errorf("punch memory: there is no core %d of %d", host, len(m.hosts))
	}
	words := m.hosts[host]
	if m.files == nil {
		clearWords(words)
		return nil
	}
	if err := unix.Fallocate(int(m.files[host+1].Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(words)*8)); err != nil {
		return fmt.Errorf("punch memory of core %d: %w", host, err)
	}
	return nil
}

// Restore takes the pages of a core's memory again that a punch gave back.
func (m *Memory) Restore(host protocol.Core) error {
	if m.files == nil || int(host) >= len(m.hosts) {
		return nil
	}
	if err := fill(m.files[host+1], m.mappings[host+1]); err != nil {
		return fmt.Errorf("restore memory of core %d: %w", host, err)
	}
	return nil
}

// Touch reads each page of a core's memory once, for the reason of [Ready].
func (m *Memory) Touch(host protocol.Core) {
	for at := 0; at < len(m.hosts[host]); at += os.Getpagesize() / 8 {
		atomic.LoadUint64(&m.hosts[host][at])
	}
}

// Placement asks the kernel where the pages of a core's memory are. It touches
// them: of others the kernel tells nothing to this process.
func (m *Memory) Placement(host protocol.Core) (numa.Placement, error) {
	if int(host) >= len(m.hosts) {
		return numa.Placement{}, fmt.Errorf("find pages: there is no core %d of %d", host, len(m.hosts))
	}
	m.Touch(host)
	return numa.SlicePlacement(m.hosts[host])
}

// Arbiter returns a log's arbiter word.
func (m *Memory) Arbiter(log protocol.Core) protocol.ArbiterWord {
	defer runtime.KeepAlive(m)
	return protocol.UnpackArbiter(atomic.LoadUint64(&m.control[m.geo.ArbiterOffset(log)]))
}

// Heartbeat returns a core's heartbeat word.
func (m *Memory) Heartbeat(core protocol.Core) protocol.HeartbeatWord {
	defer runtime.KeepAlive(m)
	return protocol.UnpackHeartbeat(atomic.LoadUint64(&m.control[m.geo.HeartbeatOffset(core)]))
}

// Draw returns a stream of a log that nobody has drawn before.
func (m *Memory) Draw(log protocol.Core) protocol.Stream {
	defer runtime.KeepAlive(m)
	return protocol.Stream{Core: log, Incarnation: uint32(atomic.AddUint64(&m.control[m.geo.IncarnationOffset(log)], 1))}
}

// ReadControl reads the control page: arbiter words first, so that no heartbeat
// is older than an owner.
func (m *Memory) ReadControl(c *protocol.Control) {
	n := m.geo.Cores
	if len(c.Arbiters) != n {
		*c = protocol.Control{Arbiters: make([]uint64, n), Incarnations: make([]uint64, n), Heartbeats: make([]uint64, n)}
	}
	for i := range n {
		c.Arbiters[i] = atomic.LoadUint64(&m.control[m.geo.ArbiterOffset(protocol.Core(i))])
	}
	for i := range n {
		c.Incarnations[i] = atomic.LoadUint64(&m.control[m.geo.IncarnationOffset(protocol.Core(i))])
	}
	for i := range n {
		c.Heartbeats[i] = atomic.LoadUint64(&m.control[m.geo.HeartbeatOffset(protocol.Core(i))])
	}
}
