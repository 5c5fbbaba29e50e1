package mirror

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/testkit"
)

// victimEnv makes the test binary bring up a mirror, stop at a step and wait to
// be killed. Its value is a victimOrder.
const victimEnv = "COREPLICA_TEST_VICTIM"

type victimOrder struct {
	Root    string
	Options Options
	StopAt  int
}

// victim prints its run's identity and the name of the step that it stops at,
// and never returns. A call beyond the last step means that the mirror is up.
func victim() {
	var order victimOrder
	if err := json.Unmarshal([]byte(os.Getenv(victimEnv)), &order); err != nil {
		fail(err)
	}
	run, err := cleanup.Open(context.Background(), cleanup.Options{Root: order.Root})
	if err != nil {
		fail(err)
	}
	wait := func(step string) {
		marks, err := json.Marshal(limits(run, "leg", 2))
		if err != nil {
			fail(err)
		}
		fmt.Printf("%s\t%s\t%s\n", run.ID(), marks, step)
		time.Sleep(time.Hour)
	}
	at := 0
	order.Options.hook = func(step string) error {
		if at++; at-1 == order.StopAt {
			wait(step)
		}
		return nil
	}
	up, err := Bring(context.Background(), run, order.Options)
	if err != nil {
		fail(err)
	}
	wait("up on " + up.Devices[0].Path)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// kill -9 in any phase, and Clean leaves nothing.
func TestKillAtEachStep(t *testing.T) {
	for name, o := range unfinished(t) {
		t.Run(name, func(t *testing.T) {
			needs(t, o)
			names := steps(t, o)
			for n := range len(names) + 1 {
				killAt(t, o, n)
			}
		})
	}
}

func killAt(t *testing.T, o Options, n int) {
	t.Helper()
	root, err := os.MkdirTemp("", rootName)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root) // Empty, or the check below has failed.
	order, err := json.Marshal(victimOrder{Root: root, Options: o, StopAt: n})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(order))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	spared, spareErr := cleanup.Clean(t.Context(), cleanup.Options{Root: root})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // It was killed, so it has an error to tell.
	fields := strings.Split(strings.TrimSpace(line), "\t")
	if readErr != nil || len(fields) != 3 {
		t.Fatalf("the victim said %q, %v", line, readErr)
	}
	if spareErr != nil || len(spared) != 1 || !spared[0].Spared {
		t.Errorf("Clean of a live run at %q: %v, %v", fields[2], spared, spareErr)
	}
	var marks []uint64
	if err := json.Unmarshal([]byte(fields[1]), &marks); err != nil {
		t.Fatal(err)
	}
	removed, err := cleanup.Clean(t.Context(), cleanup.Options{Root: root})
	if err != nil || len(removed) == 0 {
		t.Errorf("Clean after death at %q: %v, %v", fields[2], removed, err)
	}
	left := traces(t, fields[0], marks...)
	if o.Dir != "" {
		entries, err := os.ReadDir(o.Dir)
		if err != nil || len(entries) > 0 {
			t.Errorf("killed at %q, left in --dir %v, %v", fields[2], entries, err)
		}
	}
	if len(left) > 0 {
		t.Errorf("killed at %q, left %q", fields[2], left)
	}
}

// Without privilege the error comes before anything is made, and says the fix.
func TestWithoutPrivilege(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const nobody = 65534
	dir, err := os.MkdirTemp("", rootName) // t.TempDir is closed to others.
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied, root := filepath.Join(dir, "test"), filepath.Join(dir, "root")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(copied, binary, 0o755), os.Mkdir(root, 0o700), os.Chown(root, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(victimOrder{Root: root, Options: small("ext4", "loop"), StopAt: -2})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied)
	cmd.Env = append(os.Environ(), victimEnv+"="+string(order))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "need root") || !strings.Contains(string(out), "sudo") {
		t.Errorf("without privilege: %v, %q", err, out)
	}
}
