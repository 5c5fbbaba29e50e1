package cleanup

import (
	"bufio"
	"context"
	"fmt"
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

// victimEnv makes the test binary begin a run, make one thing of each kind, stop
// after as many steps as it says, and wait to be killed.
const victimEnv = "COREPLICA_TEST_VICTIM"

// victim prints its run's identity and what it did last.
func victim() {
	root, count, _ := strings.Cut(os.Getenv(victimEnv), "\n")
	stop, err := strconv.Atoi(count)
	must(err)
	r, err := Open(context.Background(), Options{Root: root})
	must(err)
	must(r.AcquireExclusive())
	done := 0
	step := func(name string, f func() error) {
		if done == stop {
			fmt.Printf("%s\tbefore %s\n", r.ID(), name)
			time.Sleep(time.Hour)
		}
		must(f())
		done++
	}
	victimSteps(r, root, step)
	fmt.Printf("%s\tend\n", r.ID())
	time.Sleep(time.Hour)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func victimSteps(r *Run, root string, step func(string, func() error)) {
	add := func(resource Resource) {
		step("record of "+resource.String(), func() error { return r.Add(resource) })
	}
	leg := filepath.Join(r.Dir(), "leg")
	add(Resource{Kind: KindDir, Path: leg})
	step("folder", func() error { return os.Mkdir(leg, 0o700) })
	outside := filepath.Join(filepath.Dir(root), r.ID()+".outside")
	add(Resource{Kind: KindDir, Path: outside})
	step("outside folder", func() error { return os.MkdirAll(outside+"/deep", 0o700) })
	add(Resource{Kind: KindMount, Path: leg})
	step("tmpfs", func() error { return unix.Mount("coreplica", leg, "tmpfs", 0, "size=8m") })
	image := filepath.Join(leg, "0.img")
	step("image", func() error { return os.WriteFile(image, make([]byte, 1<<20), 0o600) })
	add(Resource{Kind: KindLoop, Path: image})
	step("loop device", func() error { return exec.Command("/usr/sbin/losetup", "-f", image).Run() })
	add(Resource{Kind: KindZram, Path: "leg-0"})
	var zram string
	step("zram device", func() error {
		number, err := os.ReadFile("/sys/class/zram-control/hot_add")
		zram = "/sys/block/zram" + strings.TrimSpace(string(number))
		return err
	})
	step("zram mark", func() error {
		return os.WriteFile(zram+"/mem_limit", []byte(strconv.FormatUint(r.ZramLimit("leg-0"), 10)), 0)
	})
	step("zram size", func() error { return os.WriteFile(zram+"/disksize", []byte("1048576"), 0) })
	child := exec.Command("sleep", "3600")
	child.Env = append(os.Environ(), r.Env())
	child.Dir = leg // It keeps the tmpfs busy.
	step("process", child.Start)
	step("record of the process", func() error {
		p, err := Process(child.Process.Pid)
		if err != nil {
			return err
		}
		return r.Add(p)
	})
}

// kill -9 between any two steps, and Clean leaves nothing; before, while the
// victim lives, it touches nothing.
func TestKillAtEachStep(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Loop, testkit.Zram)
	for stop := 0; ; stop++ {
		if at := killAfter(t, stop); at == "end" {
			if stop < 10 {
				t.Errorf("only %d steps", stop)
			}
			return
		}
	}
}

func killAfter(t *testing.T, stop int) string {
	t.Helper()
	root := newRoot(t)
	zramsBefore, err := zramNames()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+root+"\n"+strconv.Itoa(stop))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	id, at, _ := strings.Cut(strings.TrimSpace(line), "\t")
	for _, r := range clean(t, root) {
		if !r.Spared {
			t.Errorf("%s: the live run lost %v", at, r)
		}
	}
	stopped(t, cmd)
	if readErr != nil {
		t.Fatal(readErr)
	}
	removed := clean(t, root)
	if len(removed) == 0 || removed[0].PID != cmd.Process.Pid {
		t.Errorf("%s: removed %v", at, removed)
	}
	absent(t, root)
	absent(t, filepath.Join(filepath.Dir(root), id+".outside"))
	if left := marked(id); len(left) > 0 {
		t.Errorf("%s: left %v", at, left)
	}
	for _, check := range []testkit.Check{testkit.Loops(id), testkit.Mounts(id)} {
		if left, err := check.List(); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", at, left, err)
		}
	}
	leftZrams(t, at, id, zramsBefore)
	return at
}

// leftZrams looks for the victim's zram device: one with its mark, or, when it
// died before it could set it, one that was not there and is empty.
func leftZrams(t *testing.T, at, id string, before []string) {
	t.Helper()
	now, err := zramNames()
	if err != nil {
		t.Fatal(err)
	}
	tag := strconv.FormatUint(zramTag(id, "leg-0"), 10)
	for _, name := range now {
		fresh := at == "before zram mark" && !contained(before, name) && zramUnused(name) && zramLimit(name) == "0"
		if zramLimit(name) == tag || fresh {
			t.Errorf("%s: left %s", at, name)
		}
	}
}

func contained(list []string, s string) bool {
	for _, other := range list {
		if other == s {
			return true
		}
	}
	return false
}

// An empty zram device that was there before, or that appeared long after, is
// somebody else's.
func TestForeignZramIsSpared(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Zram)
	before, err := zramNames()
	if err != nil {
		t.Fatal(err)
	}
	number, err := os.ReadFile("/sys/class/zram-control/hot_add")
	if err != nil {
		t.Fatal(err)
	}
	name := "zram" + strings.TrimSpace(string(number))
	defer func() {
		if err := removeZram(context.Background(), name); err != nil {
			t.Error(err)
		}
	}()
	resource := Resource{Kind: KindZram, Path: "x"}
	now := time.Now().UnixNano()
	for what, intent := range map[string]record{
		"there before":    {Resource: &resource, AtNs: now, Zrams: append([]string{name}, before...)},
		"made long after": {Resource: &resource, AtNs: now - int64(time.Minute), Zrams: before},
		"made before":     {Resource: &resource, AtNs: now + int64(time.Minute), Zrams: before},
	} {
		found, err := findZram(testID, intent)
		if err != nil || contained(found, name) {
			t.Errorf("a device %s is claimed: %v, %v", what, found, err)
		}
	}
	limit := strconv.FormatUint(zramTag(testID, "x"), 10)
	if err := os.WriteFile("/sys/block/"+name+"/mem_limit", []byte(limit), 0); err != nil {
		t.Fatal(err)
	}
	found, err := findZram(testID, record{Resource: &resource})
	if err != nil || len(found) != 1 || found[0] != name {
		t.Errorf("a marked device is not found: %v, %v", found, err)
	}
}
