package cpio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// The type bits of a mode, as stat(2) has them; they differ from io/fs.
const (
	typeFile    = 0o100000
	typeDir     = 0o040000
	typeChar    = 0o020000
	typeSymlink = 0o120000
)

// trailer is the name of the entry that ends an archive.
const trailer = "TRAILER!!!"

// maxName bounds a path; the kernel takes no longer one.
const maxName = 4096

// ErrName is wrapped by the error for a path that an archive cannot hold.
var ErrName = errors.New("want a clean relative path of at most 4095 bytes")

// Writer writes one archive. It makes the folders above an entry itself. The
// times of all entries are zero, so equal contents give equal bytes. It is not
// safe for concurrent use.
type Writer struct {
	w     io.Writer
	inode uint32
	n     int64
	seen  map[string]bool // by path; true for folders
}

// NewWriter returns a writer; Close ends the archive.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, seen: map[string]bool{}}
}

// Dir adds a folder. One that is there already is left as it is.
func (w *Writer) Dir(name string, perm fs.FileMode) error {
	if dir, ok := w.seen[name]; ok && dir {
		return nil
	}
	return w.entry(name, typeDir|uint32(perm.Perm()), 0, 0, nil)
}

// File adds a file of size bytes, which the reader must have.
func (w *Writer) File(name string, perm fs.FileMode, size int64, r io.Reader) error {
	return w.entry(name, typeFile|uint32(perm.Perm()), size, 0, r)
}

// Bytes adds a file with the given contents.
func (w *Writer) Bytes(name string, perm fs.FileMode, text []byte) error {
	return w.File(name, perm, int64(len(text)), strings.NewReader(string(text)))
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	return w.entry(name, typeSymlink|0o777, int64(len(target)), 0, strings.NewReader(target))
}

// Char adds a character device. The kernel needs /dev/console before the first
// program can mount anything.
func (w *Writer) Char(name string, perm fs.FileMode, major, minor uint8) error {
	return w.entry(name, typeChar|uint32(perm.Perm()), 0, uint32(major)<<8|uint32(minor), nil)
}

// Has reports whether a path is in the archive already.
func (w *Writer) Has(name string) bool {
	_, ok := w.seen[name]
	return ok
}

// Close writes the end of the archive, but does not close what is below.
func (w *Writer) Close() error {
	if err := w.header(trailer, 0, 0, 0); err != nil {
		return err
	}
	return w.pad(512) // As cpio(1) does; boot loaders that join archives expect it.
}

func (w *Writer) entry(name string, mode uint32, size int64, device uint32, r io.Reader) error {
	if name == "" || name == "." || len(name) >= maxName || path.IsAbs(name) || path.Clean(name) != name ||
		strings.HasPrefix(name, "../") || name == ".." || name == trailer || strings.ContainsRune(name, 0) {
		return fmt.Errorf("add %q: %w", name, ErrName)
	}
	if size < 0 || size > math.MaxUint32 {
		return fmt.Errorf("add %s: %d bytes: the format holds files below 4 GiB", name, size)
	}
	if _, ok := w.seen[name]; ok {
		return fmt.Errorf("add %s: %w", name, fs.ErrExist)
	}
	if parent := path.Dir(name); parent != "." {
		if dir, ok := w.seen[parent]; ok && !dir {
			return fmt.Errorf("add %s: %s is not a folder", name, parent)
		}
		if err := w.Dir(parent, 0o755); err != nil {
			return err
		}
	}
	w.seen[name] = mode&typeDir != 0
	w.inode++
	if err := w.header(name, mode, uint32(size), device); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("add %s: %w: %d of %d bytes", name, io.ErrUnexpectedEOF, n, size)
	}
	return w.pad(4)
}

// header writes the fixed fields, each as eight hexadecimal digits, and the name.
func (w *Writer) header(name string, mode, size, device uint32) error {
	links := uint32(1)
	if mode&typeDir != 0 {
		links = 2
	}
	fields := [...]uint32{
		w.inode, mode, 0, 0, links, 0, size, 0, 0, device >> 8, device & 0xff, uint32(len(name) + 1), 0,
	}
	var b strings.Builder
	b.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&b, "%08X", f)
	}
	b.WriteString(name)
	b.WriteByte(0)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	return w.pad(4)
}

// Write counts what goes out, for the padding. It is for the writer itself.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *Writer) pad(to int64) error {
	rest := (to - w.n%to) % to
	_, err := w.Write(make([]byte, rest))
	return err
}
