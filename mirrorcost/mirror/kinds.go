package mirror

import (
	"fmt"
	"slices"
	"strings"
)

// KindInfo describes a kind of mirror.
type KindInfo struct {
	Name        string
	Description string
	// Devices is the number of block devices that it needs, and Copies the
	// number of times that each data block reaches one. Where PerLeg is
	// true both are [Options.Legs] and these are its default.
	Devices int
	Copies  int
	PerLeg  bool
	// Filesystem is "btrfs" or "ext4".
	Filesystem string
	// Array is the level of an md array between the devices and the file
	// system, or empty.
	Array string

	profile string // btrfs: of data and metadata
}

// kinds is the table of what can be brought up.
var kinds = []KindInfo{
	{Name: "btrfs-single", Filesystem: "btrfs", profile: "single", Devices: 1, Copies: 1,
		Description: "btrfs on one device, data and metadata once: the natural baseline of the two below"},
	{Name: "btrfs-raid1", Filesystem: "btrfs", profile: "raid1", Devices: 2, Copies: 2,
		Description: "btrfs on two devices, data and metadata on both"},
	{Name: "btrfs-raid1c3", Filesystem: "btrfs", profile: "raid1c3", Devices: 3, Copies: 3,
		Description: "btrfs on three devices, data and metadata on all"},
	{Name: "ext4", Filesystem: "ext4", Devices: 1, Copies: 1,
		Description: "ext4 on one device, a baseline that overwrites in place"},
	{Name: "md-raid1", Filesystem: "ext4", Array: "raid1", Devices: 2, Copies: 2,
		Description: "ext4 on an md array of two devices, without a write-intent bitmap"},
	{Name: "files", Filesystem: "ext4", Devices: DefaultLegs, Copies: DefaultLegs, PerLeg: true,
		Description: "the program writes each copy itself, to one ext4 per leg"},
	{Name: "uring", Filesystem: "ext4", Devices: DefaultLegs, Copies: DefaultLegs, PerLeg: true,
		Description: "as files, with the writes of a batch and all its copies in one io_uring call"},
}

// Kinds returns the kinds of mirrors that [Bring] knows.
func Kinds() []KindInfo { return slices.Clone(kinds) }

func kindNamed(name string) (KindInfo, error) {
	var names []string
	for _, k := range kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return KindInfo{}, fmt.Errorf("%w: unknown mirror %q; known are %s", ErrUsage, name, strings.Join(names, ", "))
}

// The limits of options.
const (
	maxLegs  = 16      // devices that the block probe counts
	maxFiles = 256     // load threads
	maxName  = 32      // of a folder
	maxBytes = 1 << 50 // of a device or file, so that sums cannot wrap round
	// sectorBytes is what direct I/O and the kernel's device sizes align to.
	sectorBytes = 4096
)

// What a file system takes for itself, generously. It is cheaper to refuse a
// device that is a little too small than to find out by a commit or ENOSPC in
// the middle of a measurement.
const (
	btrfsOwnBytes = 256 << 20
	ext4OwnBytes  = 64 << 20
)

// plan is a set of options that makes sense, with defaults filled in.
type plan struct {
	Options
	kind    KindInfo
	devices int
	copies  int
}

// newPlan checks what can be checked without looking at the machine.
func newPlan(o Options) (*plan, error) {
	kind, err := kindNamed(o.Kind)
	if err != nil {
		return nil, err
	}
	o = withDefaults(o)
	p := &plan{Options: o, kind: kind, devices: kind.Devices, copies: kind.Copies}
	if kind.PerLeg {
		p.devices, p.copies = o.Legs, o.Legs
	}
	if wrong := p.wrong(); wrong != "" {
		return nil, fmt.Errorf("%w: %s", ErrUsage, wrong)
	}
	if o.Substrate != "devices" {
		if err := p.checkSize("each device", o.DeviceBytes); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func withDefaults(o Options) Options {
	set := func(n *int64, value int64) {
		if *n == 0 {
			*n = value
		}
	}
	set(&o.DeviceBytes, DefaultDeviceBytes)
	set(&o.FileBytes, DefaultFileBytes)
	for _, s := range []struct {
		field *string
		value string
	}{{&o.Substrate, "loop"}, {&o.Mode, "direct"}, {&o.Name, "leg"}} {
		if *s.field == "" {
			*s.field = s.value
		}
	}
	if o.Legs == 0 {
		o.Legs = DefaultLegs
	}
	if o.Files == 0 {
		o.Files = 1
	}
	return o
}

func (p *plan) wrong() string {
	switch {
	case p.kind.PerLeg && (p.Legs < 1 || p.Legs > maxLegs):
		return fmt.Sprintf("%d legs; between 1 and %d can be made", p.Legs, maxLegs)
	case p.Files < 1 || p.Files > maxFiles:
		return fmt.Sprintf("%d files; between 1 and %d can be made", p.Files, maxFiles)
	case p.FileBytes < sectorBytes || p.FileBytes%sectorBytes != 0:
		return fmt.Sprintf("a file of %d bytes; its size must be a multiple of %d", p.FileBytes, sectorBytes)
	case p.DeviceBytes > maxBytes || p.FileBytes > maxBytes:
		return fmt.Sprintf("a device of %d and files of %d bytes; the limit of both is %d", p.DeviceBytes, p.FileBytes, int64(maxBytes))
	case p.DeviceBytes < sectorBytes || p.DeviceBytes%sectorBytes != 0:
		return fmt.Sprintf("a device of %d bytes; its size must be a multiple of %d", p.DeviceBytes, sectorBytes)
	case !slices.Contains([]string{"direct", "buffered", "dsync"}, p.Mode):
		return fmt.Sprintf("unknown mode %q; known are direct, buffered, dsync", p.Mode)
	case !slices.Contains([]string{"", "crc32c", "xxhash", "sha256", "blake2"}, p.Csum):
		return fmt.Sprintf("unknown checksum %q; known are crc32c, xxhash, sha256, blake2", p.Csum)
	case p.Name == "." || p.Name == ".." || len(p.Name) > maxName || strings.ContainsAny(p.Name, "/\x00\n ,"):
		return fmt.Sprintf("the name %q cannot be a folder's", p.Name)
	}
	switch p.Substrate {
	case "loop", "zram":
	case "loop-dio":
		if p.Dir == "" {
			return "the substrate loop-dio needs a folder for its backing files: give --dir"
		}
	case "devices":
		if len(p.Options.Devices) < p.devices {
			return fmt.Sprintf("%s needs %d block devices and %d are given", p.kind.Name, p.devices, len(p.Options.Devices))
		}
	default:
		return fmt.Sprintf("unknown substrate %q; known are loop, loop-dio, zram, devices", p.Substrate)
	}
	return ""
}

// needBytes is the smallest device that the files fit on. Copy-on-write needs
// room for each file twice: an extent is freed when its last block is
// overwritten.
func (p *plan) needBytes() int64 {
	files := int64(p.Files) * p.FileBytes
	if p.kind.Filesystem == "btrfs" {
		return btrfsOwnBytes + 2*files
	}
	return ext4OwnBytes + files + files/16
}

func (p *plan) checkSize(what string, have int64) error {
	if need := p.needBytes(); have < need {
		return fmt.Errorf("%w: %s has %d MiB, too small for %s with %d files of %d MiB, which need %d MiB: give a larger --device-size or a smaller --file-size",
			ErrUsage, what, have>>20, p.kind.Name, p.Files, p.FileBytes>>20, (need+1<<20-1)>>20)
	}
	return nil
}
