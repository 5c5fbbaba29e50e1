package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cleanup"
)

// label is the name that the file systems carry, short enough for ext4.
const label = "coreplica"

// mkfs makes a file system on devices. Nothing is discarded, since that would
// give back the memory of a backing file, and nothing is left for later, since a
// kernel thread that initialises inode tables would be measured.
func (b *builder) mkfs(ctx context.Context, devices []Device) error {
	var args []string
	switch b.kind.Filesystem {
	case "btrfs":
		args = []string{"mkfs.btrfs", "-q", "-K", "-L", label, "-m", b.kind.profile, "-d", b.kind.profile}
		if b.Csum != "" {
			args = append(args, "--csum", b.Csum)
		}
	case "ext4":
		args = []string{"mkfs.ext4", "-q", "-L", label, "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}
	}
	for _, d := range devices {
		args = append(args, d.Path)
	}
	return b.step(ctx, args[0]+" on "+devices[0].Path, func() error { return b.command(ctx, args) })
}

// command runs a program to its end. If this process dies, the kernel kills the
// program; that hangs on the thread that started it, so the thread is locked.
func (b *builder) command(ctx context.Context, args []string) error {
	path, err := lookPath(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), "LC_ALL=C", b.run.Env())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("run %s: %w", args[0], ctx.Err())
		}
		return fmt.Errorf("run %s: %w: %s", strings.Join(args, " "), err, strings.Join(strings.Fields(output.String()), " "))
	}
	return nil
}

// packages says where a missing program is found.
var packages = map[string]string{"mkfs.btrfs": "btrfs-progs", "mkfs.ext4": "e2fsprogs", "blkid": "util-linux", "mdadm": "mdadm"}

// sbin is where root's programs are.
var sbin = []string{"/usr/sbin", "/sbin"}

// lookPath finds a program, also where root's programs are: a user's PATH on
// Debian does not have them.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: there is no %s: apt-get install %s (other distributions name the package alike)", ErrUnavailable, name, packages[name])
}

// mount mounts the file system on devices.
func (b *builder) mount(ctx context.Context, point string, devices []Device) error {
	options := mountOptions(b.kind.Filesystem, b.Csum, devices)
	if len(devices) > 1 {
		// The kernel remembers the members of a file system until told
		// otherwise; the numbers of our devices will be somebody else's.
		b.undo = append(b.undo, func(context.Context) error { forget(devices); return nil })
	}
	return b.make(ctx, cleanup.Resource{Kind: cleanup.KindMount, Path: point}, func() error {
		if err := os.Mkdir(point, 0o700); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		err := unix.Mount(devices[0].Path, point, b.kind.Filesystem, unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, options)
		if errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("%w: %s", ErrUnavailable, noFilesystem(b.kind.Filesystem))
		}
		if err != nil {
			return fmt.Errorf("mount %s with %s: %w: dmesg says why", b.kind.Filesystem, options, err)
		}
		return nil
	})
}

// mountOptions are equal for both legs as far as the file systems allow.
func mountOptions(filesystem, csum string, devices []Device) string {
	options := []string{"nodiscard", "commit=300"}
	switch filesystem {
	case "btrfs":
		if csum == "" {
			options = append(options, "nodatasum")
		}
		for _, d := range devices {
			// Without udev nobody has shown the members to the kernel.
			options = append(options, "device="+d.Path)
		}
	case "ext4":
		options = append(options, "noinit_itable")
	}
	return strings.Join(options, ",")
}

// btrfsForget is BTRFS_IOC_FORGET_DEV: _IOW(0x94, 5, struct btrfs_ioctl_vol_args).
const btrfsForget = 0x50009405

// forget makes the kernel drop the members of an unmounted btrfs from its list.
// It is a courtesy: a kernel before 5.4 does not know how, and a stale entry
// does no harm.
func forget(devices []Device) {
	fd, err := unix.Open("/dev/btrfs-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for _, d := range devices {
		args := struct {
			FD   int64
			Name [4088]byte
		}{}
		copy(args.Name[:len(args.Name)-1], d.Path)
		_ = ioctl(fd, btrfsForget, &args)
	}
}

// requirements refuses early what would fail late, when the machine has already
// been touched.
func (b *builder) requirements() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: making devices and mounting need root, and the effective user is %d: use sudo", ErrUnavailable, os.Geteuid())
	}
	if _, err := lookPath("mkfs." + b.kind.Filesystem); err != nil {
		return err
	}
	if missing := filesystemMissing(b.kind.Filesystem); missing != "" {
		return fmt.Errorf("%w: %s", ErrUnavailable, missing)
	}
	if b.kind.Array != "" {
		if err := arrayRequirements(); err != nil {
			return err
		}
	}
	if b.Csum != "" && b.kind.Filesystem != "btrfs" {
		b.up.Warnings = append(b.up.Warnings, fmt.Sprintf("%s has no data checksums, so %s is written without", b.kind.Filesystem, b.kind.Name))
	}
	return nil
}

// filesystemMissing says why a file system cannot be mounted, or returns "".
// One in a module that lies ready counts as there: mounting loads it.
func filesystemMissing(name string) string {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return "cannot read /proc/filesystems: mount proc on /proc"
	}
	if slices.Contains(strings.Fields(string(text)), name) || moduleReady(name) {
		return ""
	}
	return noFilesystem(name)
}

func noFilesystem(name string) string {
	return fmt.Sprintf("this kernel has no %s: boot one with CONFIG_%s_FS, as Debian, Fedora and SUSE have it", name, strings.ToUpper(name))
}

// moduleReady reports whether the kernel's modules include one.
func moduleReady(name string) bool {
	release, err := kernelRelease()
	if err != nil {
		return false
	}
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		text, err := os.ReadFile(filepath.Join("/lib/modules", release, list))
		if err == nil && bytes.Contains(text, []byte("/"+name+".ko")) {
			return true
		}
	}
	return false
}
