package mirror

import (
	"context"
	"errors"
	"log/slog"
)

// ErrUnavailable means that this machine lacks what a mirror needs. The error
// that wraps it says the fix.
var ErrUnavailable = errors.New("not available here")

// ErrUsage means that the options contradict each other or name something that
// must not be touched. Nothing was changed.
var ErrUsage = errors.New("bad usage")

// Options say what to bring up. The zero value is not useful; see the fields.
type Options struct {
	// Kind is a name from [Kinds].
	Kind string
	// Legs is the number of copies of the kinds "files" and "uring".
	Legs int
	// Substrate is "loop" (over tmpfs), "loop-dio" (over files in Dir),
	// "zram" or "devices".
	Substrate string
	// Dir holds the backing files of "loop-dio".
	Dir string
	// Devices are the block devices of the substrate "devices", at least as
	// many as the kind needs; the mirror takes the first ones.
	Devices []string
	// Force lets Devices that hold a file system be overwritten. Mounted or
	// busy devices are refused all the same.
	Force bool
	// DeviceBytes is the size of each made device.
	DeviceBytes int64
	// FileBytes is the size of each target file: written once in full.
	FileBytes int64
	// Files is the number of target files: one a load thread.
	Files int
	// Mode is "direct", "buffered" or "dsync".
	Mode string
	// Csum is the name of the data checksum ("crc32c", "sha256", …), or
	// empty for none.
	Csum string
	// Name tells apart the two legs of one run, e.g. "baseline".
	Name string
	// Logger gets progress; nil is silent.
	Logger *slog.Logger
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
	// Copies is the number of times each data block should reach a device.
	Copies int

	down func(context.Context) error
}

// Device is a block device of a mirror.
type Device struct {
	Name  string // "loop0"
	Path  string // "/dev/loop0"
	Major uint32
	Minor uint32
}

// Down takes everything away that Up made: unmounts, detaches, removes. It is
// idempotent and works after the context of Up is cancelled.
func (u *Up) Down(ctx context.Context) error {
	if u == nil || u.down == nil {
		return nil
	}
	down := u.down
	u.down = nil
	return down(ctx)
}
