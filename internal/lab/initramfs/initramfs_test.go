package initramfs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The libraries that are found are those that the machine's own linker loads.
func TestLibrariesAgreeWithTheLinker(t *testing.T) {
	s, err := newSearcher("/")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, name := range []string{"ls", "mkfs.btrfs", "mdadm", "losetup", "bash", "git"} {
		path, err := lookPath(name)
		if err != nil {
			continue
		}
		got, err := s.needs(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var interpreter string
		for _, lib := range got {
			if strings.Contains(filepath.Base(lib), "ld-linux") {
				interpreter = lib
			}
		}
		if interpreter == "" {
			if len(got) > 0 {
				t.Errorf("%s: libraries %q and no linker", name, got)
			}
			continue // Static.
		}
		out, err := exec.Command(interpreter, "--list", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		tried++
		for line := range strings.Lines(string(out)) {
			_, rest, found := strings.Cut(line, "=> ")
			if !found {
				continue // The vDSO, or the linker itself.
			}
			file := strings.Fields(rest)[0]
			if !slices.ContainsFunc(got, func(lib string) bool { return same(t, lib, file) }) {
				t.Errorf("%s needs %s, and found were %q", name, file, got)
			}
		}
	}
	if tried == 0 {
		t.Log("no program here is linked dynamically")
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

func TestConfigIncludes(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/ld.so.conf":          "include ld.so.conf.d/*.conf\n/opt/last # a comment\n",
		"etc/ld.so.conf.d/a.conf": "/opt/a\n\n# nothing\ninclude /etc/ld.so.conf.d/a.conf\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := newSearcher(root)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.dirs, "/opt/a") || !slices.Contains(s.dirs, "/opt/last") || slices.Index(s.dirs, "/opt/a") > slices.Index(s.dirs, "/opt/last") {
		t.Errorf("folders %q", s.dirs)
	}
}

func TestBuilder(t *testing.T) {
	var out bytes.Buffer
	b, err := NewBuilder(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Tool("nonesuch-tool"); !errors.Is(err, ErrTool) {
		t.Errorf("a tool that is not there: %v", err)
	}
	if err := b.File("x", t.TempDir()); err == nil {
		t.Error("a folder was packed as a file")
	}
	if err := b.Tree("nowhere", filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("a tree that is not there: %v", err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Program("/bin/script", script); err != nil {
		t.Errorf("a script: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := b.LibraryPath(); got != "" {
		t.Errorf("a script needs libraries in %q", got)
	}
	for _, name := range []string{"dev/console", "bin/script", "TRAILER!!!"} {
		if !bytes.Contains(out.Bytes(), []byte(name)) {
			t.Errorf("no %s in the archive", name)
		}
	}
}
