package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/blockserver"
	"golang.org/x/sys/unix"
)

const (
	cutSeeds    = 20
	cutControls = 4
	// sectors of each kind that a guest writes to each disk.
	cutSectors = 31
	syncedAt   = 0
	unsyncedAt = 1 << 20
)

// disks are the guest's, in the order of their letters.
func disks() ([]string, error) { return filepath.Glob("/dev/vd*") }

// writeDisks writes sectors to each disk, some with fsync and some without, says
// so and waits for the power to go.
func writeDisks() error {
	all, err := disks()
	if err != nil {
		return err
	}
	for _, disk := range all {
		f, err := os.OpenFile(disk, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(aligned('S'), syncedAt); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if _, err := f.WriteAt(aligned('U'), unsyncedAt); err != nil {
			return err
		}
	}
	fmt.Printf("wrote %d disks\n", len(all))
	time.Sleep(time.Hour)
	return nil
}

// readDisks prints for each disk how many sectors of each kind are there.
func readDisks() error {
	all, err := disks()
	if err != nil {
		return err
	}
	for _, disk := range all {
		f, err := os.Open(disk)
		if err != nil {
			return err
		}
		for _, part := range []struct {
			at   int64
			want byte
		}{{syncedAt, 'S'}, {unsyncedAt, 'U'}} {
			text := make([]byte, cutSectors*512)
			if _, err := f.ReadAt(text, part.at); err != nil {
				return err
			}
			n := 0
			for i := range cutSectors {
				if bytes.Count(text[i*512:(i+1)*512], []byte{part.want}) == 512 {
					n++
				}
			}
			fmt.Printf("%d ", n)
		}
		fmt.Println()
	}
	return nil
}

// aligned is a buffer that a direct write takes.
func aligned(fill byte) []byte {
	const page = 4096
	raw := make([]byte, cutSectors*512+page)
	skip := (page - int(uintptr(unsafe.Pointer(&raw[0]))%page)) % page
	b := raw[skip : skip+cutSectors*512]
	for i := range b {
		b[i] = fill
	}
	return b
}

// watcher calls a function once when a text has passed.
type watcher struct {
	text bytes.Buffer
	want string
	then func()
}

func (w *watcher) Write(p []byte) (int, error) {
	w.text.Write(p)
	if w.then != nil && strings.Contains(w.text.String(), w.want) {
		w.then()
		w.then = nil
	}
	return len(p), nil
}

// After a loss of power what was synced is there, over twenty seeds, and of what
// was not some is lost. The control: disks that keep all lose nothing.
func TestPowerCut(t *testing.T) {
	k := needGuest(t)
	dir := t.TempDir()
	var servers []*blockserver.Server
	spec := Spec{Kernel: k, Args: []string{"/init"}, Timeout: 2 * time.Minute}
	for i := range cutSeeds + cutControls {
		socket, err := os.MkdirTemp("", "cut")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(socket) })
		s, err := blockserver.New(filepath.Join(dir, fmt.Sprint(i)), filepath.Join(socket, "s"), blockserver.Options{
			SizeBytes: 4 << 20, Seed: uint64(i), KeepAll: i >= cutSeeds,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		servers = append(servers, s)
		spec.Disks = append(spec.Disks, "file="+s.URI()+",format=raw,cache=none")
	}

	run, err := cleanup.Open(t.Context(), cleanup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	}()
	spec.Env = []string{playEnv + "=write disks"}
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	g, err := Start(ctx, run, run.Dir(), spec, &watcher{want: fmt.Sprintf("wrote %d disks", len(servers)), then: cut})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Wait(); ctx.Err() == nil {
		t.Fatalf("the guest ended before its power was cut: %v", err)
	}
	for _, s := range servers {
		if _, err := s.PowerCut(); err != nil {
			t.Fatal(err)
		}
	}

	spec.Env = []string{playEnv + "=read disks"}
	var out bytes.Buffer
	if r, err := Run(t.Context(), spec, io.Writer(&out)); err != nil || r.ExitCode != 0 {
		t.Fatalf("exit code %d, %v: %s", r.ExitCode, err, &out)
	}
	lost := 0
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(servers) {
		t.Fatalf("%d disks were read", len(lines))
	}
	for i, line := range lines {
		var synced, unsynced int
		if _, err := fmt.Sscan(line, &synced, &unsynced); err != nil {
			t.Fatal(err)
		}
		if synced != cutSectors {
			t.Errorf("disk %d: %d of %d synced sectors are there", i, synced, cutSectors)
		}
		if i >= cutSeeds && unsynced != cutSectors {
			t.Errorf("control %d: %d of %d sectors are there on a disk that keeps all", i, unsynced, cutSectors)
		}
		if i < cutSeeds {
			lost += cutSectors - unsynced
		}
	}
	t.Logf("of %d sectors that were not synced, on %d disks, %d were lost", cutSeeds*cutSectors, cutSeeds, lost)
	if lost < cutSeeds*cutSectors/10 {
		t.Error("hardly anything was lost")
	}
}
