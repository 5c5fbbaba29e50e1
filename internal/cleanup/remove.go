package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long a device or mount may stay busy, which it is
	// while a killed process is being taken apart or while another program
	// looks at a device that has just appeared.
	patience = 10 * time.Second
	// busyPause is the time between two tries.
	busyPause = 5 * time.Millisecond
)

// remover removes the things of one run.
type remover struct {
	id string
	// sameBoot is false when the machine was started again since. Then
	// only files can be left, and a process number means nothing.
	sameBoot bool
	logger   *slog.Logger
}

// all removes what the records say, processes first, since they may hold any of
// the rest, then last made first, and at last whatever the kernel itself shows to
// be the run's. What failed is tried once more then: it may have been held by
// something that no record told of. done is called for each record that is
// settled. all returns what was really there, and goes on after errors.
func (m *remover) all(ctx context.Context, open []record, done func(Resource)) ([]Resource, error) {
	open = slices.Clone(open)
	slices.Reverse(open)
	slices.SortStableFunc(open, func(a, b record) int { return processFirst(a) - processFirst(b) })
	processes := slices.IndexFunc(open, func(r record) bool { return r.Kind != KindProcess })
	if processes < 0 {
		processes = len(open)
	}
	if m.sameBoot {
		for _, r := range marked(m.id) {
			open = slices.Insert(open, processes, record{Op: opAdd, Resource: &r})
		}
	}
	removed, failed, _ := m.each(ctx, open, done)
	found, sweepErr := m.unrecorded(ctx)
	again, _, err := m.each(ctx, failed, done)
	return slices.Concat(removed, found, again), errors.Join(err, sweepErr)
}

// each removes the records in turn and returns those that failed.
func (m *remover) each(ctx context.Context, records []record, done func(Resource)) (removed []Resource, failed []record, err error) {
	var errs []error
	for _, rec := range records {
		did, err := m.remove(ctx, rec)
		if did {
			removed = append(removed, *rec.Resource)
		}
		if err != nil {
			failed, errs = append(failed, rec), append(errs, err)
			continue
		}
		done(*rec.Resource)
	}
	return removed, failed, errors.Join(errs...)
}

func processFirst(r record) int {
	if r.Kind == KindProcess {
		return 0
	}
	return 1
}

// remove removes one recorded thing, if it is there and proved to be the run's.
func (m *remover) remove(ctx context.Context, rec record) (did bool, err error) {
	r := *rec.Resource
	if err := r.check(m.id); err != nil {
		return false, err
	}
	switch r.Kind {
	case KindDir, KindPins:
		did, err = removeTree(r.Path)
	case KindFile:
		if err = os.Remove(r.Path); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		did = err == nil
	default:
		if !m.sameBoot {
			return false, nil
		}
		did, err = m.removeLive(ctx, rec)
	}
	if err != nil {
		return did, fmt.Errorf("remove %s: %w", r, err)
	}
	if did {
		m.logger.Info("removed", "what", r.String(), "run", m.id)
	}
	return did, nil
}

func (m *remover) removeLive(ctx context.Context, rec record) (bool, error) {
	switch rec.Kind {
	case KindMount:
		return unmount(ctx, rec.Path)
	case KindLoop:
		return detach(ctx, func(backing string) bool { return backing == rec.Path })
	case KindZram:
		names, err := findZram(m.id, rec)
		for _, name := range names {
			err = errors.Join(err, removeZram(ctx, name))
		}
		return len(names) > 0, err
	case KindArray:
		names, err := findArrays(arrayUUID(m.id, rec.Path))
		for _, name := range names {
			err = errors.Join(err, removeArray(ctx, name))
		}
		return len(names) > 0, err
	case KindProcess:
		return kill(ctx, rec.PID, rec.StartTicks)
	}
	return false, fmt.Errorf("unknown kind %q", rec.Kind)
}

// unrecorded removes mounts and loop devices that carry the run's identity and
// that the journal did not lead to: the journal may be damaged. A mount can
// stand on a loop device and a loop device on a mount, hence the rounds.
func (m *remover) unrecorded(ctx context.Context) ([]Resource, error) {
	if !m.sameBoot {
		return nil, nil
	}
	const rounds = 4 // A file system on a loop device on a tmpfs takes two.
	var removed []Resource
	for range rounds {
		points, err := mountPoints()
		if err != nil {
			return removed, err
		}
		points = slices.DeleteFunc(points, func(p string) bool { return !owned(p, m.id) })
		devices, err := loops()
		if err != nil {
			return removed, err
		}
		slices.Reverse(points)
		var found []Resource
		for _, point := range points {
			found = append(found, Resource{Kind: KindMount, Path: point})
		}
		for _, backing := range devices {
			if owned(backing, m.id) {
				found = append(found, Resource{Kind: KindLoop, Path: backing})
			}
		}
		if len(found) == 0 {
			return removed, nil
		}
		for _, r := range found {
			// One that is busy may be free in the next round; the count
			// below says if it never was.
			short, cancel := context.WithTimeout(ctx, patience/rounds)
			did, err := m.remove(short, record{Op: opAdd, Resource: &r})
			cancel()
			if err == nil && did {
				removed = append(removed, r)
			}
		}
	}
	return removed, fmt.Errorf("remove run %s: mounts or loop devices are still in use; end the programs that use them", m.id)
}

// unmount unmounts a mount point, as often as it is mounted over.
func unmount(ctx context.Context, path string) (did bool, err error) {
	for {
		points, err := mountPoints()
		if err != nil {
			return did, err
		}
		if !slices.Contains(points, path) {
			return did, nil
		}
		if err := untilFree(ctx, func() error { return unix.Unmount(path, unix.UMOUNT_NOFOLLOW) }); err != nil {
			return did, fmt.Errorf("unmount: %w", err)
		}
		did = true
	}
}

// detach detaches the loop devices whose backing file a test accepts. The kernel
// puts off the detachment of a device that is open and then reports no error, so
// the list decides when it is done.
func detach(ctx context.Context, accept func(string) bool) (did bool, err error) {
	err = untilFree(ctx, func() error {
		names, err := loopsOver(accept)
		if err != nil || len(names) == 0 {
			return err
		}
		did = true
		for _, name := range names {
			if err := clearLoop("/dev/" + name); err != nil && !gone(err) {
				return fmt.Errorf("detach /dev/%s: %w", name, err)
			}
		}
		if names, err = loopsOver(accept); err == nil && len(names) > 0 {
			err = fmt.Errorf("detach /dev/%s: %w", strings.Join(names, ", /dev/"), unix.EBUSY)
		}
		return err
	})
	return did && err == nil, err
}

func clearLoop(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0), unix.Close(fd))
}

// removeZram resets and removes a zram device. The kernel refuses that while
// somebody has it open.
func removeZram(ctx context.Context, name string) error {
	err := untilFree(ctx, func() error {
		return os.WriteFile("/sys/class/zram-control/hot_remove", []byte(strings.TrimPrefix(name, "zram")), 0)
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("remove /dev/%s: %w", name, err)
	}
	return nil
}

// untilFree repeats what fails because something is busy, for a while.
func untilFree(ctx context.Context, try func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := try()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if cancelled := pause(ctx, busyPause); cancelled != nil {
			return errors.Join(err, cancelled)
		}
	}
}
