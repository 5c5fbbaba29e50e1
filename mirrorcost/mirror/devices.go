package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeDevices takes the caller's block devices, after looking hard at each of
// them: nothing is touched unless all may be.
func (b *builder) takeDevices(ctx context.Context) error {
	seen := map[uint64]string{}
	var sizes []int64
	for _, path := range b.Options.Devices[:b.devices] {
		device, size, err := b.inspect(path)
		if err != nil {
			return err
		}
		number := unix.Mkdev(device.Major, device.Minor)
		if other, twice := seen[number]; twice {
			return fmt.Errorf("%w: %s and %s are the same device", ErrUsage, other, path)
		}
		seen[number] = path
		b.up.Devices = append(b.up.Devices, device)
		sizes = append(sizes, size)
	}
	for i, device := range b.up.Devices {
		// From here on the device is ours to write, and blank at the end.
		b.undo = append(b.undo, func(context.Context) error { return wipe(device.Path, sizes[i]) })
		if err := b.step(ctx, "wipe "+device.Path, func() error { return wipe(device.Path, sizes[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// inspect refuses a device that must not be overwritten.
func (b *builder) inspect(path string) (Device, int64, error) {
	device, err := resolve(path)
	if err != nil {
		return device, 0, err
	}
	if use, err := inUse(device); err != nil {
		return device, 0, err
	} else if use != "" {
		return device, 0, fmt.Errorf("%w: %s %s; give another device (--force does not override this)", ErrUsage, path, use)
	}
	// O_EXCL is how the kernel itself keeps two users of a device apart. It
	// also sees users in other mount namespaces.
	f, err := os.OpenFile(device.Path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return device, 0, fmt.Errorf("%w: %s is in use by the kernel, as part of a mount, an array, a volume or swap; give another device (--force does not override this)", ErrUsage, path)
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return device, 0, fmt.Errorf("%w: %s is read-only", ErrUsage, path)
	}
	if err != nil {
		return device, 0, fmt.Errorf("%w: open %s: %w", ErrUsage, path, err)
	}
	defer f.Close() // Nothing is written here.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return device, 0, fmt.Errorf("find size of %s: %w", path, err)
	}
	if err := b.checkSize(path, size); err != nil {
		return device, 0, err
	}
	holds, err := contents(f, size)
	if err != nil {
		return device, 0, err
	}
	if holds != "" && !b.Force {
		return device, 0, fmt.Errorf("%w: %s holds %s, which would be lost: give another device, or --force", ErrUsage, path, holds)
	}
	return device, size, nil
}

// resolve follows links and finds the kernel's own name of a device.
func resolve(path string) (Device, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Device{}, fmt.Errorf("%w: find device: %w", ErrUsage, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return Device{}, fmt.Errorf("%w: find device %s: %w", ErrUsage, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, fmt.Errorf("%w: %s is no block device; files go on --substrate loop-dio with --dir", ErrUsage, path)
	}
	d := Device{Path: real, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", d.Major, d.Minor))
	if err != nil {
		return Device{}, fmt.Errorf("%w: %s has a node and no driver behind it", ErrUsage, path)
	}
	d.Name = filepath.Base(sys)
	return d, nil
}

// inUse says what a device is used for, or returns "".
func inUse(d Device) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	if point := mountedOn(string(mounts), d, deviceNumber); point != "" {
		return "is mounted on " + point, nil
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("list swap: %w", err)
	}
	for line := range strings.Lines(string(swaps)) {
		if fields := strings.Fields(line); len(fields) > 0 && deviceNumber(fields[0]) == unix.Mkdev(d.Major, d.Minor) {
			return "is swap", nil
		}
	}
	holders, err := os.ReadDir(fmt.Sprintf("/sys/dev/block/%d:%d/holders", d.Major, d.Minor))
	if err == nil && len(holders) > 0 {
		return "is part of " + holders[0].Name(), nil
	}
	return "", nil
}

// mountedOn finds a mount of the device, by number or, since btrfs reports a
// number of its own, by source.
func mountedOn(mountinfo string, d Device, number func(path string) uint64) string {
	want := fmt.Sprintf("%d:%d", d.Major, d.Minor)
	for line := range strings.Lines(mountinfo) {
		head, tail, found := strings.Cut(line, " - ")
		fields, source := strings.Fields(head), strings.Fields(tail)
		if !found || len(fields) < 5 || len(source) < 2 {
			continue
		}
		if fields[2] == want || strings.HasPrefix(source[1], "/") && number(source[1]) == unix.Mkdev(d.Major, d.Minor) {
			return fields[4]
		}
	}
	return ""
}

// deviceNumber returns the number of a block device, or 0.
func deviceNumber(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0
	}
	return st.Rdev
}

// ioctl is for calls that x/sys has no function for.
func ioctl[T any](fd int, request uint, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}
