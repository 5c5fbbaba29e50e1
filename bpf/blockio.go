package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
)

// BlockIO counts what reaches block devices.
type BlockIO struct {
	probe   *probe
	devices []BlockDevice
}

// BlockDevice names a device to count on.
type BlockDevice struct {
	Name         string
	Major, Minor uint32
	// Array, if set, is the md array that the device is a member of: md does
	// not tell its members which bios are metadata, so this is learnt from
	// the array's own bios. DataStart is the first sector of 512 bytes that
	// holds the array's data. The superblock below it counts as metadata.
	Array     *BlockDevice
	DataStart uint32
}

// DeviceCounts is what reached one device since it is counted.
type DeviceCounts struct {
	// BiosData and BiosMetadata are write bios that carry bytes, apart by
	// REQ_META and [BlockDevice.DataStart]; Flushes are bios with REQ_PREFLUSH, with or without bytes.
	BiosData, BiosMetadata, Flushes uint64
	// Merges are bios that joined a request, Requests what was issued to
	// the driver (none on bio-based devices such as zram).
	Merges, Requests         uint64
	BytesData, BytesMetadata uint64
	// Drops are writes whose latency is unknown.
	Drops uint64
	// Latency counts writes that took less than 2^i ns, in bucket i: from a
	// request's issue to its completion, or from a bio's queueing to its
	// completion on bio-based devices.
	Latency [40]uint64
}

// OpenBlockIO loads and attaches the block probe for the given devices.
func OpenBlockIO(devices []BlockDevice, o LedgerOptions) (*BlockIO, error) {
	p, err := open("blockio", loadOptions{forms: o.Forms, pinned: o.Pinned})
	if err != nil {
		return nil, err
	}
	b := &BlockIO{probe: p, devices: devices}
	if err := p.need(nil, []string{"devices", "counts"}); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := b.name(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// name tells the kernel which devices to count on, and which arrays they are in.
func (b *BlockIO) name() error {
	put := func(d BlockDevice, about uint32) error {
		// The kernel's own dev_t: 12 bits of major, 20 of minor.
		err := b.probe.maps["devices"].Put(d.Major<<20|d.Minor, uint64(about|d.bioBased())|uint64(d.DataStart)<<32)
		if err != nil {
			return fmt.Errorf("count on device %s: %w", d.Name, err)
		}
		return nil
	}
	arrays := map[BlockDevice]uint32{}
	for i, d := range b.devices {
		about := uint32(i)
		if d.Array != nil {
			slot, known := arrays[*d.Array]
			if !known {
				slot = uint32(len(b.devices) + len(arrays))
				arrays[*d.Array] = slot
				if err := put(*d.Array, slot|flagTeaches); err != nil {
					return err
				}
			}
			about |= (slot + 1) << memberShift
		}
		if err := put(d, about); err != nil {
			return err
		}
	}
	return nil
}

// bioBased returns a flag for devices whose driver takes bios: the kernel makes
// no requests of them. A partition is what its disk is.
func (d BlockDevice) bioBased() uint32 {
	for _, queues := range []string{"mq", "../mq"} {
		if _, err := os.Stat(fmt.Sprintf("/sys/dev/block/%d:%d/%s", d.Major, d.Minor, queues)); err == nil {
			return 0
		}
	}
	return flagBioBased
}

// Attached returns the form that the kernel took.
func (b *BlockIO) Attached() string { return string(b.probe.form) }

// Detach takes the programs off; Attach puts them back.
func (b *BlockIO) Detach() error { return b.probe.detach() }

// Attach attaches what Detach took off.
func (b *BlockIO) Attach() error { return b.probe.attach() }

// Close detaches and unloads. It is idempotent.
func (b *BlockIO) Close() error {
	if b == nil {
		return nil
	}
	return b.probe.Close()
}

// Read returns the counts of each device by name. The counters are read while
// they may still be written; quiesce the devices for exact figures.
func (b *BlockIO) Read() (map[string]DeviceCounts, error) {
	out := map[string]DeviceCounts{}
	for i, d := range b.devices {
		var perCPU []deviceCounts
		if err := b.probe.maps["counts"].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counts of device %s: %w", d.Name, err)
		}
		var sum DeviceCounts
		for _, c := range perCPU {
			sum.BiosData += c.BiosData
			sum.BiosMetadata += c.BiosMetadata
			sum.Flushes += c.Flushes
			sum.Merges += c.Merges
			sum.Requests += c.Requests
			sum.BytesData += c.BytesData
			sum.BytesMetadata += c.BytesMetadata
			sum.Drops += c.Drops
			for j, n := range c.Latency {
				sum.Latency[j] += n
			}
		}
		out[d.Name] = sum
	}
	return out, nil
}

// Since returns the counts from an earlier reading to this one.
func (c DeviceCounts) Since(earlier DeviceCounts) DeviceCounts {
	c.BiosData -= earlier.BiosData
	c.BiosMetadata -= earlier.BiosMetadata
	c.Flushes -= earlier.Flushes
	c.Merges -= earlier.Merges
	c.Requests -= earlier.Requests
	c.BytesData -= earlier.BytesData
	c.BytesMetadata -= earlier.BytesMetadata
	c.Drops -= earlier.Drops
	for i := range c.Latency {
		c.Latency[i] -= earlier.Latency[i]
	}
	return c
}

// shared is the map that the probes on the interrupt vectors and the sampler
// take from the ledger.
func (l *Ledger) shared() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{"cpus": l.main.maps["cpus"]}
}
