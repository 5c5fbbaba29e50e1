package kernel

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNewest(t *testing.T) {
	names := []string{
		"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64-dbg", "linux-image-6.1.0-57-amd64",
		"linux-image-6.12-cloud-amd64", "linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64-unsigned",
		"linux-image-7.3.4+deb13-cloud-amd64", "linux-image-7.3+deb13-cloud-amd64", "linux-image-7.10.2+deb13-cloud-amd64",
	}
	for name, want := range map[string]string{
		"6.1": "linux-image-6.1.0-56-cloud-amd64", "6.12": "linux-image-6.12.117+deb12-cloud-amd64", "7": "linux-image-7.10.2+deb13-cloud-amd64",
	} {
		if got, err := newest(known[name].pattern, names); err != nil || got != want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := newest(known["6.1"].pattern, nil); err == nil {
		t.Error("a package out of nothing")
	}
	if got := Names(); !slices.Equal(got, []string{"6.1", "6.12", "7"}) {
		t.Errorf("names are %q", got)
	}
}

// fake makes a kernel's folder.
func fake(t *testing.T, dep, builtin string) string {
	t.Helper()
	dir := t.TempDir()
	modules := filepath.Join(dir, "lib/modules/9.9")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(dir, "vmlinuz"): "", filepath.Join(modules, "modules.dep"): dep, filepath.Join(modules, "modules.builtin"): builtin,
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestModules(t *testing.T) {
	k, err := Open(fake(t, `kernel/a/btrfs.ko.xz: kernel/a/xor.ko.xz kernel/a/raid6-pq.ko.xz kernel/a/crc32c.ko
kernel/a/xor.ko.xz:
kernel/a/raid6-pq.ko.xz: kernel/a/xor.ko.xz
kernel/a/crc32c.ko:
kernel/a/loop.ko:
`, "kernel/drivers/base/in-there.ko\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Modules("btrfs", "in_there", "loop", "raid6_pq")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range got {
		if !strings.HasPrefix(file, "lib/modules/9.9/kernel/a/") {
			t.Errorf("the file %s", file)
		}
		names = append(names, moduleName(file))
	}
	if want := []string{"xor", "raid6_pq", "crc32c", "btrfs", "loop"}; !slices.Equal(names, want) {
		t.Errorf("order %q, want %q", names, want)
	}
	if _, err := k.Modules("absent"); !errors.Is(err, ErrNoModule) {
		t.Errorf("a module that is not there: %v", err)
	}
	if !k.Has("raid6-pq") || !k.Has("in-there") || k.Has("absent") {
		t.Error("Has is wrong")
	}
}

func TestModulesRefused(t *testing.T) {
	for name, dep := range map[string]string{"a line without colon": "kernel/a.ko\n", "a way out": "../../a.ko:\n", "an absolute file": "kernel/a.ko: /b.ko\n"} {
		if _, err := Open(fake(t, dep, "")); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	k, err := Open(fake(t, "a.ko: b.ko\nb.ko: a.ko\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Modules("a"); err == nil {
		t.Error("a circle has an order")
	}
}

func TestUnknownName(t *testing.T) {
	if _, err := Fetch(t.Context(), "2.4", Options{Cache: t.TempDir()}); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "6.12") {
		t.Errorf("got %v", err)
	}
	if _, err := Fetch(t.Context(), t.TempDir()+"/", Options{}); err == nil {
		t.Error("an empty folder is a kernel")
	}
}

// A mirror that cannot be reached is a complaint of one line that names it.
func TestNoMirror(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip(`SKIP coreplica feature=qemu reason="apt-get is not installed"`)
	}
	t.Setenv(MirrorEnv, "http://127.0.0.1:9/nobody")
	cache := t.TempDir()
	_, err := Fetch(t.Context(), "6.1", Options{Cache: cache})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:9") || !strings.Contains(err.Error(), MirrorEnv) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(cache, "6.1", "current")); err == nil {
		t.Error("a kernel came from nowhere")
	}
}

func FuzzParseDep(f *testing.F) {
	f.Add("kernel/a.ko.xz: kernel/b.ko\nkernel/b.ko:\n")
	f.Add("a.ko: a.ko\n")
	f.Add(":\n")
	f.Fuzz(func(t *testing.T, text string) {
		order, err := parseDep(text)
		if err != nil {
			return
		}
		k := &Kernel{Release: "r", order: order}
		for name := range order {
			files, err := k.Modules(name)
			if err != nil {
				continue // A circle, or a need without a line.
			}
			for i, file := range files {
				if slices.Contains(files[:i], file) {
					t.Errorf("%s stands twice", file)
				}
			}
		}
	})
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("6.1.0-9", "6.1.0-10")
	f.Add("a007", "a7")
	f.Fuzz(func(t *testing.T, a, b string) {
		if x, y := compareVersions(a, b), compareVersions(b, a); (x < 0) != (y > 0) || (x == 0) != (y == 0) {
			t.Errorf("%q and %q compare as %d and %d", a, b, x, y)
		}
	})
}
