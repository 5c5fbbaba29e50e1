package shm

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/runq/protocol"
)

// handed returns the files of memory as another process gets them.
func handed(t *testing.T, m *Memory) []*os.File {
	t.Helper()
	var files []*os.File
	for _, f := range m.Files() {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), f.Name()))
	}
	return files
}

// unsealed returns a file of memory that may change its size.
func unsealed(t *testing.T, bytes int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, bytes); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "unsealed")
}

// A file that is shorter than the shape wants, whichever it is, or that somebody could
// make shorter, is refused before anything of it is touched.
func TestShortMemoryIsRefused(t *testing.T) {
	m := shared(t)
	const all = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	page := int64(os.Getpagesize())
	for at, f := range m.Files() {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]*os.File{
			"a page short": unsealed(t, max(info.Size()-page, 0), all),
			"a word short": unsealed(t, info.Size()-8, all),
			"empty":        unsealed(t, 0, all),
			"not sealed":   unsealed(t, info.Size(), unix.F_SEAL_GROW),
		} {
			t.Run(fmt.Sprintf("file %d is %s", at, name), func(t *testing.T) {
				files := handed(t, m)
				if err := files[at].Close(); err != nil {
					t.Fatal(err)
				}
				files[at] = bad
				if other, err := Attach(geometry, files); !errors.Is(err, ErrShape) {
					t.Errorf("attached: %v", err)
					if err == nil {
						_ = other.Close()
					}
				}
				if err := files[len(files)-1].Close(); !errors.Is(err, os.ErrClosed) {
					t.Errorf("the files are left open: %v", err)
				}
			})
		}
	}
}

// Memory that is attached can lose what lies in it, which reads as a region that is not
// there, but not its length, whoever tries and however.
func TestAttachedMemoryStaysAsLong(t *testing.T) {
	m := shared(t)
	other, err := Attach(geometry, handed(t, m))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i, f := range m.Files() {
		if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
			t.Errorf("file %d is cut short: %v", i, err)
		}
		again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR|os.O_TRUNC, 0)
		if err == nil {
			_ = again.Close()
		}
		if info, serr := f.Stat(); serr != nil || info.Size() == 0 {
			t.Errorf("file %d was opened anew and is empty: %v, %v", i, err, serr)
		}
	}
	x, _ := newExecutor(t, other)
	for host := range protocol.Core(geometry.Cores) {
		id := region
		id.Host = host
		if !open(x, id) {
			t.Fatal("no area is free")
		}
		if err := m.Punch(host); err != nil {
			t.Fatal(err)
		}
		other.Touch(host)
		if ev := publish(x, id, 0, 1); ev.Kind != protocol.EventAborted || ev.Word != 0 {
			t.Errorf("publish to memory that was lost: %+v", ev)
		}
	}
}
