package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreplica/coreplica/internal/lab/cpio"
)

// Builder writes one root file system. It is not safe for concurrent use.
type Builder struct {
	w       *cpio.Writer
	libs    *searcher
	libDirs []string
}

// NewBuilder begins a root file system with the folders that every program
// expects.
func NewBuilder(w io.Writer) (*Builder, error) {
	libs, err := newSearcher("/")
	if err != nil {
		return nil, fmt.Errorf("build initramfs: %w", err)
	}
	b := &Builder{w: cpio.NewWriter(w), libs: libs}
	for _, dir := range []string{"dev", "proc", "sys", "run", "etc", "root", "bin", "mnt", "var/lib"} {
		if err := b.w.Dir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := b.w.Dir("tmp", 0o777); err != nil {
		return nil, err
	}
	// The kernel opens it before anything is mounted.
	return b, b.w.Char("dev/console", 0o600, 5, 1)
}

// Bytes adds a file by its contents.
func (b *Builder) Bytes(guest string, perm fs.FileMode, text []byte) error {
	return b.w.Bytes(strings.TrimPrefix(guest, "/"), perm, text)
}

// File adds a file of this machine, without what it may need.
func (b *Builder) File(guest, host string) (err error) {
	guest = strings.TrimPrefix(guest, "/")
	f, err := os.Open(host)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("pack %s: not a regular file", host)
	}
	return b.w.File(guest, info.Mode(), info.Size(), f)
}

// Tree adds a folder of this machine with all regular files in it. A folder that
// is not there adds nothing.
func (b *Builder) Tree(guest, host string) error {
	return filepath.WalkDir(host, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == host {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(host, path)
		if err != nil {
			return err
		}
		return b.File(filepath.Join(guest, rel), path)
	})
}

// Program adds a program of this machine and the libraries that it needs.
func (b *Builder) Program(guest, host string) error {
	if err := b.File(guest, host); err != nil {
		return err
	}
	libs, err := b.libs.needs(host)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	for _, lib := range libs {
		if b.w.Has(strings.TrimPrefix(lib, "/")) {
			continue
		}
		if err := b.File(lib, lib); err != nil {
			return err
		}
		if dir := filepath.Dir(lib); !slices.Contains(b.libDirs, dir) {
			b.libDirs = append(b.libDirs, dir)
		}
	}
	return nil
}

// ErrTool is wrapped by the error for a program that this machine does not have.
var ErrTool = errors.New("not installed here, so it cannot be packed for the guest")

// Tool adds a program of this machine by its name, as /bin/NAME.
func (b *Builder) Tool(name string) error {
	if b.w.Has("bin/" + name) {
		return nil
	}
	host, err := lookPath(name)
	if err != nil {
		return err
	}
	return b.Program("bin/"+name, host)
}

func lookPath(name string) (string, error) {
	if host, err := exec.LookPath(name); err == nil {
		return filepath.EvalSymlinks(host)
	}
	// A user's PATH has no sbin on Debian, and mkfs lives there.
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if host, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return filepath.EvalSymlinks(host)
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrTool)
}

// LibraryPath is the LD_LIBRARY_PATH under which the programs find their
// libraries; the guest has no cache of them.
func (b *Builder) LibraryPath() string { return strings.Join(b.libDirs, ":") }

// Close ends the archive.
func (b *Builder) Close() error { return b.w.Close() }
