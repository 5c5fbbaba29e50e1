package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// given makes loop devices that stand for the caller's disks.
func given(t *testing.T, n int, size int64) []string {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.Loop, testkit.Btrfs, testkit.Ext4)
	dir, err := os.MkdirTemp("/dev/shm", rootName)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for i := range n {
		file := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		device, held, err := attachLoop(t.Context(), file, false)
		if err != nil {
			t.Fatal(err)
		}
		// It detaches by itself when nobody has it open any more.
		t.Cleanup(func() {
			if err := unix.Close(held); err != nil {
				t.Error(err)
			}
		})
		paths = append(paths, device.Path)
	}
	return paths
}

func onGiven(devices ...string) Options {
	o := small("btrfs-single", "devices")
	o.Devices = devices
	return o
}

// Blank devices are taken, and blank again afterwards.
func TestGivenDevices(t *testing.T) {
	for _, kind := range []string{"btrfs-raid1", "files"} {
		devices := given(t, 2, 320<<20)
		o := onGiven(devices...)
		o.Kind = kind
		up := bring(t, newRun(t), o)
		wantWritesOnAll(t, up)
		if err := up.Down(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, device := range devices {
			if _, err := inspectBlank(o, device); err != nil {
				t.Errorf("%s after %s: %v", device, kind, err)
			}
		}
	}
}

func inspectBlank(o Options, path string) (Device, error) {
	p, err := newPlan(o)
	if err != nil {
		return Device{}, err
	}
	device, _, err := (&builder{plan: p}).inspect(path)
	return device, err
}

// A device in use is refused whatever Force says, and stays as it is.
func TestDevicesInUseAreRefused(t *testing.T) {
	uses := map[string]func(t *testing.T, device string){
		"mounted": func(t *testing.T, device string) {
			run(t, "mkfs.ext4", "-q", device)
			point, err := os.MkdirTemp("", rootName)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(device, point, "ext4", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := errors.Join(unix.Unmount(point, 0), os.Remove(point)); err != nil {
					t.Error(err)
				}
			})
		},
		"in use by the kernel": func(t *testing.T, device string) {
			f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
		},
	}
	for what, use := range uses {
		device := given(t, 1, 320<<20)[0]
		use(t, device)
		before := digest(t, device)
		for _, force := range []bool{false, true} {
			o := onGiven(device)
			o.Force = force
			wantRefusal(t, o, what)
		}
		if digest(t, device) != before {
			t.Errorf("a refused device was written to")
		}
	}
}

// A member of a btrfs that is mounted by another member's name is in use too.
func TestSecondMemberOfAMountedBtrfsIsRefused(t *testing.T) {
	devices := given(t, 2, 320<<20)
	o := onGiven(devices...)
	o.Kind = "btrfs-raid1"
	bring(t, newRun(t), o)
	for _, device := range devices {
		o := onGiven(device)
		o.Force = true
		wantRefusal(t, o, device)
	}
}

func TestDevicesWithContentsAreRefusedUnlessForced(t *testing.T) {
	contents := map[string]func(t *testing.T, device string){
		"ext4 (label precious)": func(t *testing.T, device string) { run(t, "mkfs.ext4", "-q", "-L", "precious", device) },
		"btrfs":                 func(t *testing.T, device string) { run(t, "mkfs.btrfs", "-q", device) },
		"swap":                  func(t *testing.T, device string) { run(t, "mkswap", device) },
		"data of an unknown kind": func(t *testing.T, device string) {
			f, err := os.OpenFile(device, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("no signature, and still somebody's data"), 320<<20-4096)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		},
	}
	for what, put := range contents {
		t.Run(what, func(t *testing.T) {
			device := given(t, 1, 320<<20)[0]
			put(t, device)
			before := digest(t, device)
			wantRefusal(t, onGiven(device), what)
			if digest(t, device) != before {
				t.Fatal("a refused device was written to")
			}
			o := onGiven(device)
			o.Force = true
			up := bring(t, newRun(t), o)
			if err := up.Down(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestThingsThatAreNoDevicesAreRefused(t *testing.T) {
	device := given(t, 1, 320<<20)[0]
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(device, link); err != nil {
		t.Fatal(err)
	}
	two := onGiven(device, link)
	two.Kind = "btrfs-raid1"
	tests := []struct {
		o    Options
		want string
	}{
		{onGiven("/dev/null"), "no block device"},
		{onGiven(t.TempDir()), "no block device"},
		{onGiven("/dev/no-such-device"), "find device"},
		{onGiven(given(t, 1, 64<<20)[0]), "too small"},
		{two, "the same device"},
	}
	for _, tt := range tests {
		wantRefusal(t, tt.o, tt.want)
	}
}

func wantRefusal(t *testing.T, o Options, what string) {
	t.Helper()
	up, err := Bring(t.Context(), newRun(t), o)
	if up != nil || !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), what) {
		t.Errorf("Bring on %v (force %v) = %v, %v; want a refusal that says %q", o.Devices, o.Force, up, err, what)
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	path, err := lookPath(args[0])
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func digest(t *testing.T, device string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Options that make no sense are refused before anything is touched: there is no
// run here that could record it.
func TestBadOptions(t *testing.T) {
	tests := []struct {
		o    Options
		want string
	}{
		{Options{}, "unknown mirror"},
		{Options{Kind: "raid9"}, "known are btrfs-single, btrfs-raid1"},
		{Options{Kind: "ext4", Substrate: "paper"}, "unknown substrate"},
		{Options{Kind: "ext4", Substrate: "loop-dio"}, "--dir"},
		{Options{Kind: "btrfs-raid1", Substrate: "devices", Devices: []string{"/dev/x"}}, "needs 2 block devices and 1"},
		{Options{Kind: "btrfs-raid1", DeviceBytes: 64 << 20}, "too small"},
		{Options{Kind: "btrfs-raid1", FileBytes: 600 << 20}, "too small"},
		{Options{Kind: "ext4", FileBytes: 1 << 30}, "--device-size"},
		{Options{Kind: "ext4", FileBytes: 1<<63 - 4096}, "limit"},
		{Options{Kind: "ext4", DeviceBytes: 1<<63 - 4096}, "limit"},
		{Options{Kind: "ext4", FileBytes: 1000}, "multiple"},
		{Options{Kind: "ext4", DeviceBytes: -4096}, "multiple"},
		{Options{Kind: "ext4", Mode: "fast"}, "unknown mode"},
		{Options{Kind: "ext4", Csum: "on"}, "unknown checksum"},
		{Options{Kind: "ext4", Name: "../etc"}, "name"},
		{Options{Kind: "files", Legs: 99}, "legs"},
		{Options{Kind: "ext4", Files: -1}, "files"},
	}
	for _, tt := range tests {
		_, err := Bring(t.Context(), nil, tt.o)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Bring(%+v) = %v, want bad usage that says %q", tt.o, err, tt.want)
		}
	}
}

// Whatever the options, the check does not panic, and what it accepts fits.
func FuzzPlan(f *testing.F) {
	f.Add("btrfs-raid1", "loop", "direct", "crc32c", "leg", 2, 1, int64(1)<<30, int64(64)<<20)
	f.Add("files", "zram", "dsync", "", "", 16, 256, int64(1)<<50, int64(1)<<40)
	f.Fuzz(func(t *testing.T, kind, substrate, mode, csum, name string, legs, files int, device, file int64) {
		p, err := newPlan(Options{Kind: kind, Substrate: substrate, Mode: mode, Csum: csum, Name: name, Legs: legs, Files: files,
			DeviceBytes: device, FileBytes: file, Dir: "/", Devices: make([]string, 3)})
		if err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		if p.devices < 1 || p.copies < 1 || p.Substrate != "devices" && int64(p.Files)*p.FileBytes >= p.DeviceBytes {
			t.Fatalf("accepted %+v", p)
		}
	})
}

func TestMissingToolSaysWhichPackage(t *testing.T) {
	testkit.Need(t, testkit.Root)
	saved := sbin
	sbin = nil
	defer func() { sbin = saved }()
	t.Setenv("PATH", t.TempDir())
	for kind, want := range map[string]string{"btrfs-raid1": "apt-get install btrfs-progs", "ext4": "apt-get install e2fsprogs"} {
		_, err := Bring(t.Context(), newRun(t), Options{Kind: kind})
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s without its mkfs: %v", kind, err)
		}
	}
	missing := 0
	for _, a := range Available() {
		if a.Available == (a.Missing != "" || a.Fix != "") {
			t.Errorf("%+v contradicts itself", a)
		}
		if !a.Available {
			missing++
		}
	}
	if missing < 2 {
		t.Errorf("%d parts are missing without any mkfs", missing)
	}
}

// A device too large for the machine's memory is an error of the machine, which
// the caller can mend.
func TestTooLittleMemory(t *testing.T) {
	o := small("ext4", "loop")
	needs(t, o)
	o.DeviceBytes = 1 << 45
	if _, err := Bring(t.Context(), newRun(t), o); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "--device-size") {
		t.Errorf("Bring with a device of 32 TiB = %v", err)
	}
}

func TestRecognise(t *testing.T) {
	blank := make([]byte, areaBytes)
	if got := recognise(blank, true); got != "" {
		t.Errorf("a blank area holds %s", got)
	}
	for _, s := range signatures {
		area := bytes.Clone(blank)
		copy(area[s.offset:], s.magic)
		if got := recognise(area, true); got != s.name {
			t.Errorf("%s is taken for %q", s.name, got)
		}
		if got := recognise(area, false); got != "data of an unknown kind" {
			t.Errorf("%s at the end of a device is taken for %q", s.name, got)
		}
	}
}

func TestMountedOn(t *testing.T) {
	const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
50 27 0:41 / /mnt/b rw shared:1 - btrfs /dev/sdb rw,space_cache
broken line
`
	number := func(path string) uint64 {
		return map[string]uint64{"/dev/vda": unix.Mkdev(254, 0), "/dev/sdb": unix.Mkdev(8, 16)}[path]
	}
	for device, want := range map[Device]string{
		{Major: 254, Minor: 0}: "/", {Major: 8, Minor: 16}: "/mnt/b", {Major: 8, Minor: 17}: "",
	} {
		if got := mountedOn(mountinfo, device, number); got != want {
			t.Errorf("%d:%d is mounted on %q, want %q", device.Major, device.Minor, got, want)
		}
	}
}

// A device that is written to is not drained; when the writer stops, it is.
func TestDrained(t *testing.T) {
	up := bring(t, newRun(t), small("ext4", "loop"))
	ctx, cancel := context.WithCancel(t.Context())
	started, stopped := make(chan struct{}), make(chan error)
	go func() {
		stopped <- func() error {
			f, err := os.OpenFile(up.Targets[0][0], os.O_RDWR|unix.O_DSYNC, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := f.WriteAt([]byte(fmt.Sprint(n)), 0); err != nil {
					return err
				}
				if n == 0 {
					close(started)
				}
			}
			return nil
		}()
	}()
	<-started
	short, end := context.WithTimeout(ctx, 100*time.Millisecond)
	err := Drained(short, up.Devices)
	end()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drained beside a writer = %v", err)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err := Drained(t.Context(), up.Devices); err != nil {
		t.Errorf("Drained at rest = %v", err)
	}
	if _, err := WriteCounters([]Device{{Name: "gone", Major: 4095, Minor: 1}}); err == nil {
		t.Error("a device that is not there has counters")
	}
}
