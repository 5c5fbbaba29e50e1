package mirror

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// ErrUnavailable means that this machine lacks what a mirror needs. The error
// that wraps it says the fix.
var ErrUnavailable = errors.New("not available here")

// ErrUsage means that the options contradict each other or name something that
// must not be touched. Nothing was changed.
var ErrUsage = errors.New("bad usage")

// Defaults of [Options].
const (
	DefaultDeviceBytes = 1 << 30
	DefaultFileBytes   = 64 << 20
	DefaultLegs        = 2
)

// Options say what to bring up. Kind is required; the zero value of the rest is
// a useful default.
type Options struct {
	// Kind is a name from [Kinds].
	Kind string
	// Legs is the number of copies of the kinds "files" and "uring"; 0 is
	// two.
	Legs int
	// Substrate is "loop" (over tmpfs, the default), "loop-dio" (over files
	// in Dir), "zram" or "devices".
	Substrate string
	// Dir holds the backing files of "loop-dio".
	Dir string
	// Devices are the block devices of the substrate "devices", at least as
	// many as the kind needs; the mirror takes the first ones. They are
	// blank again after [Up.Down].
	Devices []string
	// Force lets Devices that hold a file system be overwritten. Mounted or
	// busy devices are refused all the same.
	Force bool
	// DeviceBytes is the size of each made device; 0 is 1 GiB. A btrfs
	// needs 256 MiB and twice its files: see the package comment on
	// copy-on-write.
	DeviceBytes int64
	// FileBytes is the size of each target file, written once in full; 0 is
	// 64 MiB.
	FileBytes int64
	// Files is the number of target files: one a load thread; 0 is one.
	Files int
	// Mode is "direct" (the default), "buffered" or "dsync".
	Mode string
	// Csum is the name of the data checksum ("crc32c", "xxhash", "sha256",
	// "blake2"), or empty for none.
	Csum string
	// Name tells apart the two legs of one run, e.g. "baseline"; empty is
	// "leg".
	Name string
	// Logger gets progress; nil is silent.
	Logger *slog.Logger

	// hook is called with the name of each step before and after it. Tests
	// fail or stop there.
	hook func(step string) error
}

// Up is a mirror that is up.
type Up struct {
	Kind string
	// EffectiveMode is the mode that the kernel will really use.
	EffectiveMode string
	// Warnings are for the report, each one line.
	Warnings []string
	// Targets has one entry a load thread; each entry has the files that a
	// write goes to: one, unless the load itself mirrors.
	Targets [][]string
	// Devices below the file system, to count bios on.
	Devices []Device
	// Array is the md device above the Devices, or zero.
	Array Device
	// Copies is the number of times each data block should reach a device.
	Copies int
	// HeadroomBytes can be written between two syncs before copy-on-write
	// runs into the device's end and the file system commits by itself. 0
	// means no limit: the file system overwrites in place.
	HeadroomBytes int64

	mu   sync.Mutex
	down func(context.Context) error
}

// Device is a block device of a mirror.
type Device struct {
	Name  string // "loop0"
	Path  string // "/dev/loop0"
	Major uint32
	Minor uint32
	// DataStart is the first sector of 512 bytes that holds data, where
	// something else lies in front of it that is not marked as metadata.
	DataStart uint32
}

// Down takes everything away that Up made: unmounts, detaches, removes. It is
// idempotent and works after the context of Up is cancelled. What it could not
// remove stays recorded in the run, whose Close and Clean try again.
func (u *Up) Down(ctx context.Context) error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down == nil {
		return nil
	}
	down := u.down
	u.down = nil
	return down(ctx)
}
