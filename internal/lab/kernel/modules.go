package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// module is a line of modules.dep.
type module struct {
	file string // below lib/modules/RELEASE
	// needs are the files of the modules that must be loaded before, in no
	// order: each has a line of its own.
	needs []string
}

// maxDep bounds the files that depmod writes; a full Debian kernel's are 0.6 MB.
const maxDep = 16 << 20

// ErrNoModule is wrapped by the error for a module that a kernel does not have.
var ErrNoModule = errors.New("the kernel has no such module")

func (k *Kernel) readModules() error {
	dep, err := readBounded(filepath.Join(k.modulesDir(), "modules.dep"))
	if err != nil {
		return fmt.Errorf("%w; run depmod -b %s %s", err, k.Dir, k.Release)
	}
	builtin, err := readBounded(filepath.Join(k.modulesDir(), "modules.builtin"))
	if err != nil {
		return err
	}
	if k.order, err = parseDep(dep); err != nil {
		return err
	}
	k.builtin = map[string]bool{}
	for line := range strings.Lines(builtin) {
		k.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return nil
}

// parseDep reads modules.dep: "file.ko: needed.ko needed.ko".
func parseDep(text string) (map[string]module, error) {
	order := map[string]module{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("parse modules.dep: no colon in %.80q", line)
		}
		m := module{file: file, needs: strings.Fields(needs)}
		for _, f := range append([]string{m.file}, m.needs...) {
			if path.IsAbs(f) || path.Clean(f) != f || strings.HasPrefix(f, "..") {
				return nil, fmt.Errorf("parse modules.dep: %.80q leads out of the modules' folder", f)
			}
		}
		order[moduleName(file)] = m
	}
	return order, nil
}

// moduleName is what modprobe knows a file by: no folder, no suffix, and
// underscores for dashes.
func moduleName(file string) string {
	name := path.Base(file)
	for _, suffix := range []string{".xz", ".zst", ".gz", ".ko"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return strings.ReplaceAll(name, "-", "_")
}

// Modules returns the files, below [Kernel.Dir], of the named modules and of all
// that they need, in an order in which they can be loaded. What is built into
// the kernel is left out.
func (k *Kernel) Modules(names ...string) ([]string, error) {
	var files []string
	state := map[string]int{} // 1 while its needs are looked at, 2 when done
	var visit func(name string) error
	visit = func(name string) error {
		m, ok := k.order[name]
		switch {
		case !ok && k.builtin[name] || state[name] == 2:
			return nil
		case !ok:
			return fmt.Errorf("%w: %s in %s", ErrNoModule, name, k.Release)
		case state[name] == 1:
			return fmt.Errorf("module %s needs itself", name)
		}
		state[name] = 1
		for _, need := range m.needs {
			if err := visit(moduleName(need)); err != nil {
				return err
			}
		}
		state[name] = 2
		files = append(files, path.Join("lib/modules", k.Release, m.file))
		return nil
	}
	for _, name := range names {
		if err := visit(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return slices.Clip(files), nil
}

// Has reports whether a module is in the kernel or can be loaded.
func (k *Kernel) Has(name string) bool {
	_, ok := k.order[moduleName(name)]
	return ok || k.builtin[moduleName(name)]
}

func readBounded(name string) (_ string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := io.ReadAll(io.LimitReader(f, maxDep+1))
	if err == nil && len(text) > maxDep {
		err = fmt.Errorf("read %s: more than %d bytes", name, maxDep)
	}
	return string(text), err
}
