package proc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNobody says that no living process listens under a name.
var ErrNobody = errors.New("nobody listens under that name")

const socketSuffix = ".sock"

// Listen opens a socket beside the name, for this user alone. It goes with the
// name.
func (n *Name) Listen() (*net.UnixListener, error) {
	dir, err := openDir(filepath.Dir(n.path))
	if err != nil {
		return nil, fmt.Errorf("listen for questions: %w", err)
	}
	defer dir.Close()
	base := filepath.Base(n.socket())
	l, err := net.ListenUnix("unix", dir.address(base))
	if err != nil {
		return nil, fmt.Errorf("listen for questions at %s: %w", n.socket(), err)
	}
	// The path leads through a descriptor that is closed by then.
	l.SetUnlinkOnClose(false)
	// Until here the folder, which is closed to others, keeps them out.
	if err := os.Chmod(n.socket(), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for questions: %w", err), l.Close())
	}
	return l, nil
}

func (n *Name) socket() string { return strings.TrimSuffix(n.path, nameSuffix) + socketSuffix }

// removeSocket removes the socket of a name whose lock the caller holds.
func (n *Name) removeSocket() error {
	if err := os.Remove(n.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}

// Dial connects to the process that listens under a name, or fails with
// ErrNobody.
func Dial(ctx context.Context, name string) (net.Conn, error) {
	if !namePattern.MatchString(name) {
		return nil, fmt.Errorf("name %q: %w", name, ErrNobody)
	}
	path, err := nameDir(false)
	if err != nil {
		return nil, err
	}
	return dial(ctx, path, name)
}

func dial(ctx context.Context, path, name string) (net.Conn, error) {
	dir, err := openDir(path)
	if err != nil {
		return nil, nobody(name, err)
	}
	defer dir.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", dir.address(name+socketSuffix).Name)
	if err != nil {
		return nil, nobody(name, err)
	}
	return conn, nil
}

// nobody tells the absence of a listener from other failures.
func nobody(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("name %q: %w", name, ErrNobody)
	}
	return fmt.Errorf("ask %q: %w", name, err)
}

// Listening returns the names under which a living process listens, in order. It
// connects to find out: trying the locks would make others' attempts fail.
func Listening(ctx context.Context) ([]string, error) {
	dir, err := nameDir(false)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*"+socketSuffix))
	if err != nil {
		return nil, fmt.Errorf("list names: %w", err)
	}
	var names []string
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), socketSuffix)
		conn, err := dial(ctx, dir, name)
		switch {
		case errors.Is(err, ErrNobody):
			continue
		case errors.Is(err, unix.EAGAIN): // Many ask it at this moment.
		case err != nil:
			return nil, err
		default:
			_ = conn.Close() // Nothing was said.
		}
		names = append(names, name)
	}
	return names, nil
}

// folder is a way to sockets whose path would be too long for their address,
// which has room for 107 bytes.
type folder int

func openDir(path string) (folder, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return folder(fd), nil
}

func (f folder) address(base string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", int(f), base)}
}

// Close gives the way back.
func (f folder) Close() error { return unix.Close(int(f)) }
