package initramfs

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// searcher finds shared libraries on a machine whose files lie below root,
// which is "/" but in tests.
type searcher struct {
	root string
	dirs []string
}

// newSearcher reads the folders that the dynamic linker looks into.
func newSearcher(root string) (*searcher, error) {
	s := &searcher{root: root}
	if err := s.config("/etc/ld.so.conf", 0); err != nil {
		return nil, err
	}
	for _, dir := range []string{"/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"} {
		if !slices.Contains(s.dirs, dir) {
			s.dirs = append(s.dirs, dir)
		}
	}
	return s, nil
}

// config reads a file of ld.so.conf and what it includes.
func (s *searcher) config(name string, depth int) error {
	const maxDepth = 8 // An include that includes itself.
	f, err := os.Open(filepath.Join(s.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // It was only read.
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case fields[0] == "include" && len(fields) == 2 && depth < maxDepth:
			pattern := fields[1]
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(name), pattern)
			}
			found, err := filepath.Glob(filepath.Join(s.root, pattern))
			if err != nil {
				return fmt.Errorf("read %s: include %s: %w", name, fields[1], err)
			}
			for _, file := range found {
				if err := s.config("/"+strings.TrimPrefix(strings.TrimPrefix(file, s.root), "/"), depth+1); err != nil {
					return err
				}
			}
		case filepath.IsAbs(fields[0]):
			s.dirs = append(s.dirs, filepath.Clean(fields[0]))
		}
	}
	return lines.Err()
}

// needs returns the files that a program must have beside it, the dynamic linker
// among them, each by the path at which it is looked for. A static program, or
// what is no ELF file, needs nothing.
func (s *searcher) needs(program string) ([]string, error) {
	var found []string
	queue := []string{program}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		more, err := s.direct(file)
		if err != nil {
			return nil, err
		}
		for _, lib := range more {
			if !slices.Contains(found, lib) {
				found, queue = append(found, lib), append(queue, lib)
			}
		}
	}
	return found, nil
}

// direct returns what one file names itself.
func (s *searcher) direct(file string) (_ []string, err error) {
	f, err := elf.Open(filepath.Join(s.root, file))
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil // A script or data, perhaps shorter than an ELF header.
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var found []string
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, min(p.Filesz, 4096))
		if _, err := p.ReadAt(name, 0); err != nil {
			return nil, fmt.Errorf("read %s: its interpreter: %w", file, err)
		}
		found = append(found, strings.TrimRight(string(name), "\x00"))
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		for _, path := range paths {
			for dir := range strings.SplitSeq(path, ":") {
				dir = strings.NewReplacer("${ORIGIN}", filepath.Dir(file), "$ORIGIN", filepath.Dir(file)).Replace(dir)
				if filepath.IsAbs(dir) {
					dirs = append(dirs, filepath.Clean(dir))
				}
			}
		}
	}
	for _, lib := range libs {
		path, err := s.find(lib, dirs, f.Class)
		if err != nil {
			return nil, fmt.Errorf("%s needs %s: %w", file, lib, err)
		}
		found = append(found, path)
	}
	return found, nil
}

// find looks for a library of the right class.
func (s *searcher) find(lib string, first []string, class elf.Class) (string, error) {
	if strings.ContainsRune(lib, '/') {
		return lib, nil
	}
	for _, dir := range slices.Concat(first, s.dirs) {
		path := filepath.Join(dir, lib)
		f, err := elf.Open(filepath.Join(s.root, path))
		if err != nil {
			continue
		}
		same := f.Class == class
		_ = f.Close() // It was only read.
		if same {
			return path, nil
		}
	}
	return "", fmt.Errorf("library not found: %w", fs.ErrNotExist)
}
