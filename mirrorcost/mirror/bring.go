package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/cleanup"
)

// undoTime bounds what taking down a mirror that did not come up may take.
const undoTime = 30 * time.Second

// builder brings one mirror up, step by step, and remembers how to undo it.
type builder struct {
	*plan
	run  *cleanup.Run
	log  *slog.Logger
	up   *Up
	undo []func(context.Context) error
	held []int // descriptors of loop devices that are not yet mounted
}

// Bring brings a mirror up. What it makes is recorded in the run before it is
// made. If it fails, or if the context is cancelled, everything is taken away
// again before it returns.
func Bring(ctx context.Context, run *cleanup.Run, o Options) (*Up, error) {
	p, err := newPlan(o)
	if err != nil {
		return nil, err
	}
	b := &builder{plan: p, run: run, log: o.Logger, up: &Up{Kind: p.kind.Name, Copies: p.copies}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.requirements(); err != nil {
		return nil, err
	}
	if err := b.bring(ctx); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return nil, errors.Join(err, b.down(undo))
	}
	b.up.down = b.down
	return b.up, nil
}

func (b *builder) bring(ctx context.Context) error {
	steps := []func(context.Context) error{b.folder, b.makeDevices, b.makeFilesystems, b.prefill, b.findMode}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// down undoes what was done, last first, and goes on after errors.
func (b *builder) down(ctx context.Context) error {
	var errs []error
	for _, undo := range slices.Backward(b.undo) {
		errs = append(errs, undo(ctx))
	}
	b.undo = nil
	return errors.Join(errs...)
}

// make records a resource, makes it and notes how to remove it: in this order,
// so that a death at any instant leaves no thing without a record.
func (b *builder) make(ctx context.Context, r cleanup.Resource, f func() error) error {
	if err := b.run.Add(r); err != nil {
		return err
	}
	b.undo = append(b.undo, func(ctx context.Context) error { return b.run.Remove(ctx, r) })
	return b.step(ctx, r.String(), f)
}

// step runs f between two calls of the hook, unless the context is cancelled.
func (b *builder) step(ctx context.Context, name string, f func() error) error {
	for _, part := range []func() error{ctx.Err, b.hooked("before " + name), f, b.hooked("after " + name), ctx.Err} {
		if err := part(); err != nil {
			return err
		}
	}
	b.log.Debug("brought up", "leg", b.Name, "what", name)
	return nil
}

func (b *builder) hooked(name string) func() error {
	return func() error {
		if b.hook == nil {
			return nil
		}
		return b.hook(name)
	}
}

// dir is the leg's folder, and path a place in it.
func (b *builder) path(name string) string { return filepath.Join(b.run.Dir(), b.Name, name) }

func (b *builder) folder(ctx context.Context) error {
	dir := filepath.Join(b.run.Dir(), b.Name)
	return b.make(ctx, cleanup.Resource{Kind: cleanup.KindDir, Path: dir}, func() error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		return nil
	})
}

func (b *builder) makeDevices(ctx context.Context) error {
	switch b.Substrate {
	case "loop":
		return b.loopsOnTmpfs(ctx)
	case "loop-dio":
		return b.loopsOnFiles(ctx)
	case "zram":
		return b.zrams(ctx)
	default:
		return b.takeDevices(ctx)
	}
}

// makeFilesystems makes one file system on all devices, or one on each where
// the load mirrors, and mounts them.
func (b *builder) makeFilesystems(ctx context.Context) error {
	groups := [][]Device{b.up.Devices}
	if b.kind.Array != "" {
		array, err := b.assemble(ctx)
		if err != nil {
			return err
		}
		groups = [][]Device{{array}}
	}
	if b.kind.PerLeg {
		groups = nil
		for _, d := range b.up.Devices {
			groups = append(groups, []Device{d})
		}
	}
	b.up.Targets = make([][]string, b.Files)
	for i, group := range groups {
		if err := b.mkfs(ctx, group); err != nil {
			return err
		}
		point := b.path("mnt" + strconv.Itoa(i))
		if err := b.mount(ctx, point, group); err != nil {
			return err
		}
		for t := range b.up.Targets {
			b.up.Targets[t] = append(b.up.Targets[t], filepath.Join(point, "target"+strconv.Itoa(t)))
		}
	}
	return b.letGo()
}

// mountPoints returns the mount points of the file systems, one a leg.
func (b *builder) mountPoints() []string {
	var points []string
	for _, target := range b.up.Targets[0] {
		points = append(points, filepath.Dir(target))
	}
	return points
}

// waitForDevice fills in a device's numbers, once its node is there. devtmpfs
// has it at once; where udev makes the nodes it takes a moment.
func waitForDevice(ctx context.Context, path string) (Device, error) {
	const patience, tick = 2 * time.Second, 2 * time.Millisecond
	for deadline := time.Now().Add(patience); ; {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			return Device{Name: filepath.Base(path), Path: path, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, nil
		}
		if err == nil {
			return Device{}, fmt.Errorf("%w: %s is no block device", ErrUsage, path)
		}
		if time.Now().After(deadline) {
			return Device{}, fmt.Errorf("%w: the kernel made a device but %s does not appear: mount devtmpfs on /dev, or run udev (%v)", ErrUnavailable, path, err)
		}
		select {
		case <-ctx.Done():
			return Device{}, ctx.Err()
		case <-time.After(tick):
		}
	}
}
