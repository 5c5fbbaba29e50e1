package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrTaken says that a living process holds a name.
var ErrTaken = errors.New("the name is taken")

// TakenError is ErrTaken with the holder.
type TakenError struct {
	Name string
	// PID is for people to read, and 0 where the holder has not written it yet.
	PID int
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("open queue %q: process %d holds the name: close it there or choose another name", e.Name, e.PID)
}

// Unwrap makes errors.Is(err, ErrTaken) true.
func (e *TakenError) Unwrap() error { return ErrTaken }

const nameSuffix = ".runq"

// nameRounds bounds how often a name's file may vanish under our hands.
const nameRounds = 100

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// Name is a queue's name, held by this process.
type Name struct {
	file *os.File
	path string
}

// nameDir returns the folder of names, which it makes if told so, and refuses one
// that others may write to. One that is not there has no names in it.
func nameDir(create bool) (string, error) {
	dir := filepath.Join(os.TempDir(), "coreplica-"+strconv.Itoa(os.Getuid()))
	if runtimeDir := os.Getenv("XDG_RUNTIME_DIR"); runtimeDir != "" {
		dir = filepath.Join(runtimeDir, "coreplica")
	}
	if create {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make folder of names: %w", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		if !create && errors.Is(err, fs.ErrNotExist) {
			return dir, nil
		}
		return "", fmt.Errorf("look at folder of names %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o077 != 0 || int(st.Uid) != os.Getuid() {
		return "", fmt.Errorf("use folder of names %s: it must be a folder of this user with mode 0700: remove it, or set XDG_RUNTIME_DIR", dir)
	}
	return dir, nil
}

// TakeName takes a name for this process, also one that a dead process left.
func TakeName(name string) (*Name, error) {
	if !namePattern.MatchString(name) {
		return nil, fmt.Errorf("take name %q: it needs 1 to 64 letters, digits, or any of . _ -, and no leading dot", name)
	}
	dir, err := nameDir(true)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+nameSuffix)
	for range nameRounds {
		file, err := lockFile(path, os.O_CREATE)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // Its holder let go and removed it between our two calls.
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, &TakenError{name, holder(path)}
		case err != nil:
			return nil, fmt.Errorf("take name %q: %w", name, err)
		}
		if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
			return nil, errors.Join(fmt.Errorf("take name %q: %w", name, err), file.Close())
		}
		n := &Name{file, path}
		if err := n.removeSocket(); err != nil { // A dead process's.
			return nil, errors.Join(fmt.Errorf("take name %q: %w", name, err), file.Close())
		}
		return n, nil
	}
	return nil, fmt.Errorf("take name %q: its file vanished %d times: another process opens and closes it in a loop", name, nameRounds)
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// lockFile opens and locks a file, and makes sure that the path still leads to
// it: a lock on a removed file excludes nobody.
func lockFile(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flag, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		var ours, there os.FileInfo
		if ours, err = file.Stat(); err == nil {
			if there, err = os.Lstat(path); err == nil && !os.SameFile(ours, there) {
				err = fs.ErrNotExist
			}
		}
	}
	if err != nil {
		_ = file.Close() // Nothing was written.
		return nil, err
	}
	return file, nil
}

// holder reads who holds a name, for the message only.
func holder(path string) int {
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(file, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// Close gives the name back. It may be called twice.
func (n *Name) Close() error {
	if n.file == nil {
		return nil
	}
	// Removed while the lock is held, so that nobody's new file is removed.
	err := errors.Join(n.removeSocket(), os.Remove(n.path), n.file.Close())
	n.file = nil
	return err
}

// Leftovers lists the names that dead processes left, and removes them, with
// their sockets, if told so. Names with a living holder are not touched.
func Leftovers(remove bool) ([]string, error) {
	dir, err := nameDir(false)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*"+nameSuffix))
	if err != nil {
		return nil, fmt.Errorf("list names: %w", err)
	}
	var left []string
	var errs []error
	for _, path := range paths {
		file, err := lockFile(path, 0)
		if err != nil {
			if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("look at name: %w", err))
			}
			continue
		}
		left = append(left, strings.TrimSuffix(filepath.Base(path), nameSuffix))
		if remove {
			errs = append(errs, (&Name{path: path}).removeSocket(), os.Remove(path))
		}
		errs = append(errs, file.Close())
	}
	return left, errors.Join(errs...)
}
