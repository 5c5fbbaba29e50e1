package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel is one that is ready to boot.
type Kernel struct {
	// Dir holds vmlinuz and lib/modules/RELEASE.
	Dir string
	// Release is what uname -r says in the guest.
	Release string
	// Version is Debian's version of the package; empty for a folder of the
	// user's own.
	Version string
	order   map[string]module
	builtin map[string]bool
}

// Image is the path of the compressed kernel.
func (k *Kernel) Image() string { return filepath.Join(k.Dir, "vmlinuz") }

func (k *Kernel) modulesDir() string { return filepath.Join(k.Dir, "lib/modules", k.Release) }

// ErrUnknown is wrapped by the error for a name that is neither in [Names] nor a
// folder.
var ErrUnknown = errors.New("unknown kernel")

// Options of [Fetch]. The zero value is good.
type Options struct {
	// Cache is the folder for packages, lists and kernels; empty means
	// coreplica/kernels in the user's cache folder.
	Cache string
	// Renew looks for a newer package even if there is a kernel already.
	Renew bool
	// Logger is told of what takes long; nil is silent.
	Logger *slog.Logger
}

// Fetch returns a kernel by its name (see [Names]), from the cache where it can,
// else from Debian. A name with a slash in it is a folder, for [Open]. Several
// processes may fetch at once.
func Fetch(ctx context.Context, name string, o Options) (_ *Kernel, err error) {
	if strings.ContainsRune(name, '/') {
		return Open(name)
	}
	s, ok := known[name]
	if !ok {
		return nil, fmt.Errorf("%w %q: want one of %s, or a folder that holds vmlinuz and lib/modules", ErrUnknown, name, strings.Join(Names(), ", "))
	}
	cache := o.Cache
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("fetch kernel %s: %w", name, err)
		}
		cache = filepath.Join(user, "coreplica", "kernels")
	}
	place := filepath.Join(cache, name)
	if err := os.MkdirAll(place, 0o755); err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", name, err)
	}
	unlock, err := lock(filepath.Join(place, "lock"))
	if err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	current := filepath.Join(place, "current")
	if !o.Renew {
		if k, err := Open(current); err == nil {
			return k, nil
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	start := time.Now()
	o.Logger.Info("fetching a kernel from Debian", "kernel", name, "suite", s.suite)
	dir, err := fetch(ctx, place, s)
	if err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", name, err)
	}
	if err := replaceLink(dir, current); err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", name, err)
	}
	o.Logger.Info("fetched", "kernel", name, "seconds", int(time.Since(start).Seconds()))
	return Open(current)
}

// fetch downloads and unpacks the newest kernel of a series, and returns its
// folder below the given place.
func fetch(ctx context.Context, place string, s series) (string, error) {
	a, err := newApt(filepath.Join(place, "apt"), s)
	if err != nil {
		return "", err
	}
	if err := a.update(ctx); err != nil {
		return "", err
	}
	names, err := a.names(ctx, "linux-image-")
	if err != nil {
		return "", err
	}
	image, err := newest(s.pattern, names)
	if err != nil {
		return "", fmt.Errorf("%w in Debian's %s; newer names may need a newer coreplica", err, s.suite)
	}
	release := strings.TrimPrefix(image, "linux-image-")
	packages := []string{image}
	if s.parts != nil {
		packages = nil
		for _, prefix := range s.parts {
			packages = append(packages, prefix+release)
		}
	}
	files, err := a.download(ctx, packages...)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(filepath.Dir(files[0])) // Only a cache.
	final := filepath.Join(place, release)
	into, err := os.MkdirTemp(place, "unpack-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(into) // Renamed if all went well.
	if err := unpack(ctx, into, release, files); err != nil {
		return "", err
	}
	if err := os.RemoveAll(final); err != nil {
		return "", err
	}
	return final, os.Rename(into, final)
}

// unpack unpacks the packages of a kernel, keeps what boots, and lets depmod
// write the order of the modules, which no package holds.
func unpack(ctx context.Context, dir, release string, packages []string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	var version string
	for _, file := range packages {
		if err := command(ctx, "dpkg-deb", "-x", file, dir); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "dpkg-deb", "-f", file, "Version").Output()
		if err != nil {
			return fmt.Errorf("dpkg-deb -f %s: %w", filepath.Base(file), err)
		}
		version = strings.TrimSpace(string(out))
	}
	// Debian 13 has its modules in /usr/lib alone, and later the kernel beside
	// them.
	if _, err := os.Stat(filepath.Join(dir, "lib/modules")); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(filepath.Join(dir, "usr/lib"), filepath.Join(dir, "lib")); err != nil {
			return err
		}
	}
	image := filepath.Join(dir, "boot", "vmlinuz-"+release)
	if _, err := os.Stat(image); errors.Is(err, fs.ErrNotExist) {
		image = filepath.Join(dir, "lib/modules", release, "vmlinuz")
	}
	if err := os.Rename(image, filepath.Join(dir, "vmlinuz")); err != nil {
		return fmt.Errorf("find the kernel in its package: %w", err)
	}
	for _, rest := range []string{"boot", "usr"} {
		if err := os.RemoveAll(filepath.Join(dir, rest)); err != nil {
			return err
		}
	}
	if err := command(ctx, "depmod", "-b", dir, release); err != nil {
		return fmt.Errorf("%w; install kmod", err)
	}
	return os.WriteFile(filepath.Join(dir, "version"), []byte(version+"\n"), 0o644)
}

// Open returns the kernel of a folder that holds vmlinuz and lib/modules with
// the output of depmod.
func Open(dir string) (*Kernel, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	k := &Kernel{Dir: real}
	if _, err := os.Stat(k.Image()); err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	releases, err := os.ReadDir(filepath.Join(real, "lib/modules"))
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	if len(releases) != 1 {
		return nil, fmt.Errorf("open kernel: %s/lib/modules holds %d releases, want one", real, len(releases))
	}
	k.Release = releases[0].Name()
	version, err := os.ReadFile(filepath.Join(real, "version"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	k.Version = strings.TrimSpace(string(version))
	if err := k.readModules(); err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	return k, nil
}

// command runs a program that prints nothing when all is well.
func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, args[0], err, lastLine(string(out)))
	}
	return nil
}

// lock waits until no other process fetches into the same place.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}

// replaceLink makes a link point elsewhere in one step.
func replaceLink(target, link string) error {
	temporary := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(filepath.Base(target), temporary); err != nil {
		return err
	}
	return os.Rename(temporary, link)
}
