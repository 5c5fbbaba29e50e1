package mirror

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/kernelfs"
	"github.com/coreplica/coreplica/internal/testkit"
)

// What the package finds by counting must agree with what the kernel traces:
// pages of the target that enter the page cache.
func TestEffectiveModeAgreesWithTheTrace(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Tracefs)
	for _, tt := range []struct{ kind, csum string }{
		{"btrfs-single", ""}, {"btrfs-single", "crc32c"}, {"btrfs-single", "sha256"},
		{"btrfs-raid1", ""}, {"btrfs-raid1c3", ""}, {"ext4", ""},
	} {
		t.Run(tt.kind+"/"+tt.csum, func(t *testing.T) {
			o := small(tt.kind, "loop")
			o.Csum = tt.csum
			up := bring(t, newRun(t), o)
			const writes = 64
			pages := pagesCached(t, up.Targets[0][0], func() { writeDirect(t, up.Targets[0][0], writes, 7) })
			if pages != 0 && pages != writes {
				t.Fatalf("%d of %d pages were cached", pages, writes)
			}
			want := map[bool]string{true: "buffered", false: "direct"}[pages > 0]
			if up.EffectiveMode != want {
				t.Errorf("effective mode %q, the trace says %q", up.EffectiveMode, want)
			}
			if warned := strings.Contains(strings.Join(up.Warnings, "\n"), "page cache"); warned != (want == "buffered") {
				t.Errorf("mode %s, warnings %q", want, up.Warnings)
			}
		})
	}
}

// Other modes are what they are called.
func TestOtherModesAreNotTried(t *testing.T) {
	for _, mode := range []string{"buffered", "dsync"} {
		o := small("btrfs-single", "loop")
		o.Mode, o.Csum = mode, "crc32c"
		if up := bring(t, newRun(t), o); up.EffectiveMode != mode || len(up.Warnings) > 0 {
			t.Errorf("mode %s became %s, warnings %q", mode, up.EffectiveMode, up.Warnings)
		}
	}
}

func TestChecksumsThatTheFilesystemLacksAreToldOf(t *testing.T) {
	o := small("ext4", "loop")
	o.Csum = "crc32c"
	if up := bring(t, newRun(t), o); len(up.Warnings) != 1 || !strings.Contains(up.Warnings[0], "no data checksums") {
		t.Errorf("warnings %q", up.Warnings)
	}
}

// pagesCached counts, in a trace instance of its own, the pages of a file that
// enter the page cache meanwhile.
func pagesCached(t *testing.T, path string, f func()) int {
	t.Helper()
	testkit.Mount(t, kernelfs.Tracefs)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	instance := filepath.Join(kernelfs.Tracefs.String(), "instances", fmt.Sprintf("%s-%d", rootName, os.Getpid()))
	if err := os.Mkdir(instance, 0o700); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(instance); err != nil {
			t.Error(err)
		}
	}()
	event := filepath.Join(instance, "events/filemap/mm_filemap_add_to_page_cache/enable")
	set := func(value string) {
		if err := os.WriteFile(event, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	f()
	set("0")
	trace, err := os.ReadFile(filepath.Join(instance, "trace"))
	if err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("dev %s ino %x ", superblock(t, filepath.Dir(path)), st.Ino)
	pages := 0
	for line := range strings.Lines(string(trace)) {
		if strings.Contains(line, device) {
			pages++
		}
	}
	return pages
}

// superblock returns the device number under which the kernel knows a mounted
// file system. For btrfs stat tells another one.
func superblock(t *testing.T, point string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == point {
			return fields[2]
		}
	}
	t.Fatalf("nothing is mounted on %s", point)
	return ""
}
