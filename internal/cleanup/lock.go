package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy means that another run holds the machine. The error that wraps it is a
// [*BusyError].
var ErrBusy = errors.New("another run is under way")

// BusyError says who holds the machine.
type BusyError struct {
	// PID of the holder, or 0 if it cannot be told.
	PID int
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%v (process %d): wait for it, or end it; two runs at once would measure each other", ErrBusy, e.PID)
}

func (e *BusyError) Unwrap() error { return ErrBusy }

// errLocked is returned by lock when somebody else holds the lock and waiting
// was not asked for.
var errLocked = errors.New("locked")

// lockPause is the time between two tries. Locks that are waited for are held
// for a few milliseconds.
const lockPause = 2 * time.Millisecond

// lock opens and locks a file, making it if need be. The lock goes when the file
// is closed or the process dies; O_CLOEXEC keeps it from children. Lock files
// are removed by their holders, so a lock counts only if the path still leads to
// the file that was locked.
func lock(ctx context.Context, path string, wait bool) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && samePath(f, path) {
			return f, nil
		}
		_ = f.Close() // Nothing was written to it.
		switch {
		case err == nil:
			continue // Removed by its last holder between our open and our lock.
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case !wait && errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("%s: %w", path, errLocked)
		}
		if err := pause(ctx, lockPause); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

func samePath(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, now)
}

// unlock removes a lock file while it is still held, and lets go.
func unlock(f *os.File) error {
	err := os.Remove(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// root is the folder that the runs of one user live in. It is made when it is
// needed and removed when it is empty.
type root string

// roots returns where runs may live, the best place first. Clean looks at all.
func (o Options) roots() []root {
	if o.Root != "" {
		return []root{root(o.Root)}
	}
	return []root{"/run/coreplica", root(filepath.Join(os.TempDir(), Prefix+strconv.Itoa(os.Geteuid())))}
}

// make creates the folder and checks that nobody else can write to it: what is
// in it is believed later, by root.
func (r root) make() (made root, err error) {
	for range tries {
		if made, err = r.makeOnce(); !errors.Is(err, fs.ErrNotExist) {
			break // Else the last run of the folder took it away just now.
		}
	}
	return made, err
}

// tries bounds how often a folder is made that others take away at once. They do so
// once a run.
const tries = 100

func (r root) makeOnce() (root, error) {
	if err := os.MkdirAll(string(r), 0o700); err != nil {
		return "", fmt.Errorf("make state folder: %w", err)
	}
	// Below a temporary folder anybody can leave a symbolic link of our name.
	if err := r.private(); err != nil {
		return "", err
	}
	// Mount points and backing files are compared with what the kernel
	// says, and the kernel knows no symbolic links.
	real, err := filepath.EvalSymlinks(string(r))
	if err != nil {
		return "", fmt.Errorf("make state folder: %w", err)
	}
	if err := root(real).private(); err != nil {
		return "", err
	}
	return root(real), nil
}

func (r root) private() error {
	var st unix.Stat_t
	if err := unix.Lstat(string(r), &st); err != nil {
		return fmt.Errorf("look at state folder: %w", &fs.PathError{Op: "stat", Path: string(r), Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("look at state folder: %s is not a folder that user %d alone can write to; remove it", r, os.Geteuid())
	}
	return nil
}

// lock serialises the making, finding and removing of runs, each of which takes
// milliseconds. The caller calls the returned function to let go.
func (r root) lock(ctx context.Context) (func() error, error) {
	for {
		err := os.MkdirAll(string(r), 0o700)
		if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("make state folder: %w", err)
		}
		f, err := lock(ctx, filepath.Join(string(r), "lock"), true)
		if errors.Is(err, fs.ErrNotExist) {
			continue // The last run of the folder took it away just now.
		}
		if err != nil {
			return nil, err
		}
		return func() error {
			err := unlock(f)
			r.removeIfEmpty()
			return err
		}, nil
	}
}

// removeIfEmpty takes the folder away unless somebody needs it. That it fails is
// the usual case.
func (r root) removeIfEmpty() { _ = os.Remove(string(r)) }

// exclusive takes the lock that only one run can hold.
func (r root) exclusive() (*os.File, error) {
	path := filepath.Join(string(r), "exclusive")
	f, err := lock(context.Background(), path, false)
	if errors.Is(err, errLocked) {
		text, _ := os.ReadFile(path) // Without it the process is unknown, which 0 says.
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, &BusyError{PID: pid}
	}
	if err != nil {
		return nil, err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), unlock(f))
	}
	return f, nil
}
