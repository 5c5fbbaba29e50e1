package numa

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// FileError says which file of the kernel could not be understood, and why.
type FileError struct {
	// Path is the file's path from the root of the machine.
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("read %s: %v", e.Path, e.Err) }
func (e *FileError) Unwrap() error { return e.Err }

// The largest files that are read. Those of /sys fit a page; a container host
// has thousands of mounts, and a large process as many areas.
const (
	maxFileBytes = 4 << 20
	maxMapsBytes = 256 << 20
)

// files reads small files and keeps the first error, so that the code that
// reads a tree reads like the tree.
type files struct {
	root fs.FS
	err  error
}

// fail keeps an error about a file.
func (f *files) fail(name string, err error) {
	if f.err == nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err // It names the file a second time.
		}
		f.err = &FileError{Path: "/" + name, Err: err}
	}
}

// failf is fail with a text.
func (f *files) failf(name, format string, args ...any) { f.fail(name, fmt.Errorf(format, args...)) }

// text returns a file without the space around it. A file that is not there is
// no error.
func (f *files) text(name string) (text string, found bool) {
	return f.limited(name, maxFileBytes)
}

func (f *files) limited(name string, most int64) (text string, found bool) {
	if f.err != nil {
		return "", false
	}
	file, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	if err != nil {
		f.fail(name, err)
		return "", false
	}
	defer file.Close()
	all, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(all)) > most {
		err = fmt.Errorf("it is longer than %d bytes", most)
	}
	if err != nil {
		f.fail(name, err)
		return "", false
	}
	return strings.TrimSpace(string(all)), true
}

// need is text for a file that must be there.
func (f *files) need(name string) string {
	text, found := f.text(name)
	if !found && f.err == nil {
		f.fail(name, fs.ErrNotExist)
	}
	return text
}

// list reads a list of numbers below most; none where there is no file.
func (f *files) list(name string, most int) (List, bool) {
	text, found := f.text(name)
	if !found {
		return nil, false
	}
	l, err := ParseList(text)
	if err == nil && len(l) > 0 && l[len(l)-1] >= most {
		err = fmt.Errorf("%d is more than %d", l[len(l)-1], most-1)
	}
	if err != nil {
		f.fail(name, err)
		return nil, false
	}
	return l, true
}

// number reads a number that fits an int32, or returns the one given where
// there is no file.
func (f *files) number(name string, absent int) int {
	text, found := f.text(name)
	if !found {
		return absent
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		f.failf(name, "%q is no number", shorten(text))
		return absent
	}
	return int(n)
}

// count reads a number from 0 on.
func (f *files) count(name string) uint64 {
	text, found := f.text(name)
	if !found {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		f.failf(name, "%q is no count", shorten(text))
	}
	return n
}

// names lists a folder; one that is not there is empty.
func (f *files) names(dir string) []string {
	if f.err != nil {
		return nil
	}
	entries, err := fs.ReadDir(f.root, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.fail(dir, err)
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// exists reports whether there is such a file or folder.
func (f *files) exists(name string) bool {
	_, err := fs.Stat(f.root, name)
	return err == nil
}

// inRoot makes a path of the machine one of the fs.FS.
func inRoot(absolute string) string {
	clean := strings.TrimPrefix(path.Clean("/"+absolute), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// shorten keeps a wild text from filling an error message.
func shorten(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
