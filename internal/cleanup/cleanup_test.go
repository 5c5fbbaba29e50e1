package cleanup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// rootName is in the path of all that these tests make.
const rootName = "coreplica-cleanup-test"

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
	}
	testkit.Main(m, testkit.Loops(rootName), testkit.Mounts(rootName), testkit.Files(os.TempDir(), rootName))
}

// newRoot returns a folder for runs, and checks at the end that they left none.
func newRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", rootName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "root")
}

func openRun(t *testing.T, root string) *Run {
	t.Helper()
	r, err := Open(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// abandon lets go of a run as its death would, leaving all of it behind.
func abandon(t *testing.T, r *Run) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.exclusive != nil {
		if err := r.exclusive.Close(); err != nil {
			t.Fatal(err)
		}
		r.exclusive = nil
	}
	if err := r.letGo(); err != nil {
		t.Fatal(err)
	}
}

func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

func clean(t *testing.T, root string) []Removed {
	t.Helper()
	removed, err := Clean(t.Context(), Options{Root: root})
	if err != nil {
		t.Errorf("clean: %v", err)
	}
	return removed
}

func TestCloseLeavesNothing(t *testing.T) {
	root := newRoot(t)
	r := openRun(t, root)
	for _, resource := range []Resource{{Kind: KindDir, Path: r.Dir() + "/leg"}, {Kind: KindFile, Path: r.Dir() + "/leg/file"}} {
		if err := r.Add(resource); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(r.Dir()+"/leg/deep", 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	absent(t, root)
	if err := r.Add(Resource{Kind: KindFile, Path: r.Dir() + "/late"}); !errors.Is(err, errClosed) {
		t.Errorf("Add after Close = %v", err)
	}
}

func TestCleanSparesALiveRun(t *testing.T) {
	root := newRoot(t)
	live, dead := openRun(t, root), openRun(t, root)
	file := filepath.Join(live.Dir(), "precious")
	for _, r := range []*Run{live, dead} {
		if err := r.Add(Resource{Kind: KindFile, Path: filepath.Join(r.Dir(), "precious")}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.Dir(), "precious"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	abandon(t, dead)
	removed := clean(t, root)
	var spared, cleaned int
	for _, r := range removed {
		switch {
		case r.Spared && r.Run == live.ID() && r.PID == os.Getpid():
			spared++
		case !r.Spared && r.Run == dead.ID():
			cleaned++
		default:
			t.Errorf("unexpected: %v", r)
		}
	}
	if spared != 1 || cleaned != 2 {
		t.Errorf("spared %d, removed %d: %v", spared, cleaned, removed)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the live run lost its file: %v", err)
	}
	absent(t, dead.Dir())
}

// What cannot be proved later must not be recorded at all.
func TestAddRefusesWhatItCouldNotProve(t *testing.T) {
	r := openRun(t, newRoot(t))
	for _, resource := range []Resource{
		{Kind: KindDir, Path: "/etc"},
		{Kind: KindDir, Path: r.Dir() + "/../other"},
		{Kind: KindDir, Path: "/tmp/x" + r.ID()},
		{Kind: KindLoop, Path: r.ID() + "/relative"},
		{Kind: KindMount, Path: "/"},
		{Kind: KindFile, Path: r.Dir() + "/a\nb"},
		{Kind: KindProcess, PID: 1, StartTicks: 1},
		{Kind: KindProcess, PID: 77},
		{Kind: KindZram},
		{Kind: "volcano", Path: r.Dir()},
	} {
		if err := r.Add(resource); err == nil {
			t.Errorf("%+v was recorded", resource)
		}
	}
	for _, resource := range []Resource{
		{Kind: KindDir, Path: "/somewhere/" + r.ID()},
		{Kind: KindPins, Path: "/sys/fs/bpf/" + r.ID() + ".maps"},
	} {
		if err := r.Add(resource); err != nil {
			t.Error(err)
		}
		if err := r.Add(resource); err == nil {
			t.Errorf("%v was recorded twice", resource)
		}
		if err := r.Done(resource); err != nil {
			t.Error(err)
		}
	}
}

// A process number that somebody else has by now is left alone, and so is a
// process of another boot.
func TestCleanSparesStrangers(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, r *Run, p *Resource){
		"another start time": func(_ *testing.T, _ *Run, p *Resource) { p.StartTicks++ },
		"another boot": func(t *testing.T, r *Run, _ *Resource) {
			line, err := record{Op: opRun, ID: r.ID(), Boot: "another"}.line()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(r.journalPath(), line, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			r := openRun(t, root)
			stranger := exec.Command("sleep", "60")
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			defer stopped(t, stranger)
			p, err := Process(stranger.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			spoil(t, r, &p)
			if err := r.Add(p); err != nil {
				t.Fatal(err)
			}
			abandon(t, r)
			clean(t, root)
			if _, err := startTicks(stranger.Process.Pid); err != nil {
				t.Errorf("the stranger is gone: %v", err)
			}
			absent(t, root)
		})
	}
}

func stopped(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	_ = cmd.Wait() // It was killed, so it has an error to tell.
}

// A process is found by the mark in its environment even if nobody recorded it.
func TestCloseKillsMarkedProcesses(t *testing.T) {
	r := openRun(t, newRoot(t))
	child, other := exec.Command("sleep", "60"), exec.Command("sleep", "60")
	child.Env = append(os.Environ(), r.Env())
	other.Env = append(os.Environ(), r.Env()+"0")
	for _, cmd := range []*exec.Cmd{child, other} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer stopped(t, cmd)
	}
	waitFor(t, func() bool { return len(marked(r.ID())) == 1 }) // The mark shows when the child has begun its program.
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the marked child ended with %v", err)
	}
	if err := other.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the other child: %v", err)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// A foreign folder mounted into the run's is unmounted, never emptied.
func TestMountedFoldersAreNotEmptied(t *testing.T) {
	testkit.Need(t, testkit.Root)
	root := newRoot(t)
	r := openRun(t, root)
	foreign := t.TempDir()
	precious := filepath.Join(foreign, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(r.Dir(), "leg", "with blank")
	if err := os.MkdirAll(point, 0o700); err != nil {
		t.Fatal(err)
	}
	leg := Resource{Kind: KindDir, Path: filepath.Dir(point)}
	if err := r.Add(leg); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(foreign, point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), leg); err == nil || !strings.Contains(err.Error(), "mounted on") {
		t.Errorf("Remove of a folder with a mount in it = %v", err)
	}
	abandon(t, r)
	// The mount was not recorded, so the journal leads nowhere; the kernel's
	// own list does.
	clean(t, root)
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("a foreign file is gone: %v", err)
	}
	absent(t, root)
}

func TestDamagedJournal(t *testing.T) {
	root := newRoot(t)
	r := openRun(t, root)
	outside := filepath.Join(filepath.Dir(root), "outside")
	inside := filepath.Join(r.Dir(), "inside")
	for _, path := range []string{outside, inside} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := `{"op":"run","id":"` + r.ID() + `"}
{"op":"add","kind":"file","path":"` + outside + `"}
not json
{"op":"add","kind":"file","path":"` + inside + `"}
{"op":"add","kind":"fi`
	if err := os.WriteFile(r.journalPath(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	abandon(t, r)
	_, err := Clean(t.Context(), Options{Root: root})
	if err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "line 3") || strings.Contains(err.Error(), "line 5") {
		t.Errorf("clean = %v, want a complaint about lines 2 and 3", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a file outside of the run is gone: %v", err)
	}
	absent(t, inside)
}

func TestExclusive(t *testing.T) {
	root := newRoot(t)
	a, b := openRun(t, root), openRun(t, root)
	if err := errors.Join(a.AcquireExclusive(), a.AcquireExclusive()); err != nil {
		t.Fatal(err)
	}
	err := b.AcquireExclusive()
	var busy *BusyError
	if !errors.Is(err, ErrBusy) || !errors.As(err, &busy) || busy.PID != os.Getpid() {
		t.Errorf("second AcquireExclusive = %v", err)
	}
	if clean(t, root); b.AcquireExclusive() == nil {
		t.Error("Clean took the lock from a live run")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.AcquireExclusive(); err != nil {
		t.Errorf("after the holder's end: %v", err)
	}
	abandon(t, b)
	c := openRun(t, root)
	if err := c.AcquireExclusive(); err != nil {
		t.Errorf("after the holder's death: %v", err)
	}
}

func TestOthersMustNotWriteToTheRoot(t *testing.T) {
	root := newRoot(t)
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	link := root + "-link"
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{root, link} {
		if r, err := Open(t.Context(), Options{Root: place}); err == nil {
			t.Errorf("Open accepted %s", place)
			_ = r.Close() // The test has failed already.
		}
		if _, err := Clean(t.Context(), Options{Root: place}); err == nil {
			t.Errorf("Clean believed %s", place)
		}
	}
}

func TestCleanOfNothing(t *testing.T) {
	root := newRoot(t)
	if removed := clean(t, root); len(removed) != 0 {
		t.Errorf("removed %v from nowhere", removed)
	}
	absent(t, root)
}

// Runs that begin and end while others are cleaned neither fail nor stay.
func TestManyAtOnce(t *testing.T) {
	root := newRoot(t)
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for range 15 {
				r, err := Open(context.Background(), Options{Root: root})
				if err != nil {
					t.Error(err)
					return
				}
				dir := Resource{Kind: KindDir, Path: r.Dir() + "/x"}
				if err := errors.Join(r.Add(dir), os.Mkdir(dir.Path, 0o700)); err != nil {
					t.Errorf("a live run lost its folder: %v", err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		group.Go(func() {
			for range 15 {
				if _, err := Clean(context.Background(), Options{Root: root}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	absent(t, root)
}

// The journal of a very long run ends with an error, not with the disk.
func TestJournalIsBounded(t *testing.T) {
	r := openRun(t, newRoot(t))
	long := Resource{Kind: KindFile, Path: filepath.Join(r.Dir(), strings.Repeat("x/", 1500)+"f")}
	for range maxJournalBytes / 2000 {
		err := r.Add(long)
		if err != nil {
			if !strings.Contains(err.Error(), "full") {
				t.Error(err)
			}
			if info, err := os.Stat(r.journalPath()); err != nil || info.Size() > maxJournalBytes {
				t.Errorf("%v, %v", info.Size(), err)
			}
			return
		}
		if err := r.Done(long); err != nil {
			return // Full on the second line of the two is full as well.
		}
	}
	t.Error("the journal has no end")
}
