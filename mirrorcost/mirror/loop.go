package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cleanup"
)

const (
	// chunkBytes is the unit of filling files.
	chunkBytes = 1 << 20
	// memoryReserve must stay free besides the backing files: tmpfs that
	// fills the memory ends in the kernel killing programs.
	memoryReserve = 512 << 20
	// tmpfsSlack is for the tmpfs's own folders.
	tmpfsSlack = 1 << 20
)

// loopsOnTmpfs makes loop devices over files on a tmpfs of our own.
func (b *builder) loopsOnTmpfs(ctx context.Context) error {
	total := int64(b.devices) * b.DeviceBytes
	if free, err := availableMemory(); err != nil {
		return err
	} else if total+memoryReserve > free {
		return fmt.Errorf("%w: %d devices of %d MiB in memory need %d MiB and %d MiB are free: give a smaller --device-size, or --substrate loop-dio with --dir",
			ErrUnavailable, b.devices, b.DeviceBytes>>20, (total+memoryReserve)>>20, free>>20)
	}
	dir := b.path("backing")
	err := b.make(ctx, cleanup.Resource{Kind: cleanup.KindMount, Path: dir}, func() error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		return mountTmpfs(dir, total+tmpfsSlack)
	})
	if err != nil {
		return err
	}
	for i := range b.devices {
		file := filepath.Join(dir, strconv.Itoa(i)+".img")
		// The tmpfs takes the file with it, so only the device is recorded.
		if err := b.step(ctx, "backing file "+file, func() error { return b.writeBacking(ctx, file) }); err != nil {
			return err
		}
		if err := b.loop(ctx, file, false); err != nil {
			return err
		}
	}
	return nil
}

// mountTmpfs mounts a tmpfs that does not swap, where the kernel knows how
// (since 6.4): a backing file that swaps would be measured as a slow mirror.
func mountTmpfs(dir string, size int64) error {
	options := fmt.Sprintf("size=%d,mode=0700", size)
	err := unix.Mount("coreplica", dir, "tmpfs", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("coreplica", dir, "tmpfs", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, options)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

// loopsOnFiles makes loop devices with direct I/O over files in the caller's
// folder.
func (b *builder) loopsOnFiles(ctx context.Context) error {
	// The kernel reports backing files without symbolic links, and the
	// record must be the same.
	real, err := filepath.EvalSymlinks(b.Dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return fmt.Errorf("%w: find --dir: %w", ErrUsage, err)
	}
	dir := filepath.Join(real, b.run.ID()+"."+b.Name)
	err = b.make(ctx, cleanup.Resource{Kind: cleanup.KindDir, Path: dir}, func() error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make folder for backing files: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range b.devices {
		file := filepath.Join(dir, strconv.Itoa(i)+".img")
		if err := b.step(ctx, "backing file "+file, func() error { return b.writeBacking(ctx, file) }); err != nil {
			return err
		}
		if err := b.loop(ctx, file, true); err != nil {
			return err
		}
	}
	return nil
}

// writeBacking allocates a file and writes zeroes to all of it: fallocate alone
// leaves pages and extents that are only zeroed when they are first written,
// which would happen inside a measurement.
func (b *builder) writeBacking(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make backing file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, b.DeviceBytes); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("allocate %d MiB for %s: %w: free some space, or give a smaller --device-size", b.DeviceBytes>>20, path, err)
	}
	zeroes := make([]byte, chunkBytes)
	if err := fill(ctx, f, b.DeviceBytes, func(int64) []byte { return zeroes }); err != nil {
		return fmt.Errorf("fill backing file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync backing file: %w", err)
	}
	return nil
}

// fill writes size bytes from the start, chunk by chunk.
func fill(ctx context.Context, f *os.File, size int64, chunk func(offset int64) []byte) error {
	for offset := int64(0); offset < size; offset += chunkBytes {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := chunk(offset)
		if _, err := f.WriteAt(data[:min(int64(len(data)), size-offset)], offset); err != nil {
			return err
		}
	}
	return nil
}

// loop attaches a loop device to a backing file. We hold the device open until
// it is mounted, and the kernel is told to detach it when nobody has it open: so
// if this process is killed before the mount, the device goes by itself, and
// after it, it goes with the mount.
func (b *builder) loop(ctx context.Context, file string, direct bool) error {
	return b.make(ctx, cleanup.Resource{Kind: cleanup.KindLoop, Path: file}, func() error {
		device, held, err := attachLoop(ctx, file, direct)
		if err != nil {
			return err
		}
		b.up.Devices = append(b.up.Devices, device)
		b.held = append(b.held, held)
		b.undo = append(b.undo, func(context.Context) error { return b.letGo() })
		return nil
	})
}

// letGo closes the devices that were held open until their mount.
func (b *builder) letGo() error {
	var errs []error
	for _, fd := range b.held {
		errs = append(errs, unix.Close(fd))
	}
	b.held = nil
	return errors.Join(errs...)
}

// maxLoopTries bounds the race for a free loop device: every lost try means that
// another program got one.
const maxLoopTries = 64

func attachLoop(ctx context.Context, file string, direct bool) (Device, int, error) {
	flags := os.O_RDWR
	if direct {
		flags |= unix.O_DIRECT
	}
	backing, err := os.OpenFile(file, flags, 0)
	if errors.Is(err, unix.EINVAL) {
		return Device{}, -1, noDirect(file)
	}
	if err != nil {
		return Device{}, -1, fmt.Errorf("open backing file: %w", err)
	}
	defer backing.Close() // The device keeps its own reference.
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Device{}, -1, fmt.Errorf("%w: open /dev/loop-control: %w: run modprobe loop; in a container, give it the device", ErrUnavailable, err)
	}
	defer unix.Close(control)
	for range maxLoopTries {
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return Device{}, -1, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := waitForDevice(ctx, "/dev/loop"+strconv.Itoa(n))
		if err != nil {
			return Device{}, -1, err
		}
		held, err := configureLoop(device, int(backing.Fd()), file, direct)
		if errors.Is(err, unix.EBUSY) {
			continue // Somebody else was faster.
		}
		return device, held, err
	}
	return Device{}, -1, fmt.Errorf("find a free loop device: %d times another program took it first; try again", maxLoopTries)
}

// configureLoop attaches and returns a read-only descriptor that keeps the
// device alive. A writable one could stand in the way of mounting.
func configureLoop(device Device, backing int, file string, direct bool) (held int, err error) {
	fd, err := unix.Open(device.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open loop device: %w", err)
	}
	defer unix.Close(fd)
	// With direct I/O the device's blocks must not be smaller than what the
	// backing file system demands. New kernels choose by themselves (0).
	for _, block := range []uint32{0, sectorBytes} {
		config := unix.LoopConfig{Fd: uint32(backing), Size: block}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if direct {
			config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
		}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
		if err := unix.IoctlLoopConfigure(fd, &config); err != nil {
			return -1, fmt.Errorf("attach loop device %s: %w", device.Path, err)
		}
		if !direct || usesDirect(device.Name) {
			held, err := unix.Open(device.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, fmt.Errorf("open loop device: %w", err)
			}
			return held, nil
		}
		if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil {
			return -1, fmt.Errorf("detach loop device %s: %w", device.Path, err)
		}
		if attached(device.Name) {
			break // The kernel detaches at the last close, which is ours.
		}
	}
	return -1, noDirect(file)
}

func noDirect(file string) error {
	return fmt.Errorf("%w: the file system of %s does not let a loop device use direct I/O: choose a --dir on ext4, xfs or btrfs, or --substrate loop", ErrUnavailable, filepath.Dir(file))
}

func usesDirect(name string) bool {
	text, err := os.ReadFile(filepath.Join("/sys/block", name, "loop/dio"))
	return err == nil && string(bytes.TrimSpace(text)) == "1"
}

func attached(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/block", name, "loop/backing_file"))
	return err == nil
}

// availableMemory is what the kernel thinks can be used without swapping.
func availableMemory() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("read memory: /proc/meminfo has no MemAvailable")
}
