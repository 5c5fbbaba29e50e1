package vagrant

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

// libvirtd stands for the real one, which takes seconds to start. Like that, it
// has children that know nothing of the lab.
const libvirtd = `#!/bin/sh
setsid sleep 600 &
ip link add labtest type bridge && echo up >"$COREPLICA_LAB_TEST"
sleep 600
`

// marked lists the processes that have a word in their environment.
func marked(t *testing.T, word string) (processes []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		// A process that has ended meanwhile has no environment.
		if environ, err := os.ReadFile(name); err == nil && bytes.Contains(environ, []byte(word)) {
			processes = append(processes, filepath.Dir(name))
		}
	}
	return processes
}

// startSandbox starts the first process of a lab's namespaces in a state folder,
// as lab.sh does, and waits until its libvirtd is there.
func startSandbox(t *testing.T, state string) (sandbox *exec.Cmd, mark string) {
	t.Helper()
	run, ready := filepath.Join(state, "run"), filepath.Join(t.TempDir(), "ready")
	fill(t, run, "libvirt/etc/x", "libvirt/lib/x", "libvirt/log/x", "libvirt/cache/x")
	if err := os.WriteFile(filepath.Join(run, "mode"), []byte("own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	programs := t.TempDir()
	if err := os.WriteFile(filepath.Join(programs, "libvirtd"), []byte(libvirtd), 0o700); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("sandbox.sh")
	if err != nil {
		t.Fatal(err)
	}
	mark = "COREPLICA_LAB_TEST=" + ready
	sandbox = exec.Command("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", script, run)
	sandbox.Env = append(os.Environ(), mark, "PATH="+programs+":"+os.Getenv("PATH"))
	var said bytes.Buffer
	sandbox.Stdout, sandbox.Stderr = &said, &said
	if err := sandbox.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return sandbox, mark
		}
		if time.Now().After(deadline) {
			_ = sandbox.Process.Kill()
			_ = sandbox.Wait() // It was killed, so it has an error to tell.
			t.Fatalf("the sandbox does not start: %s", said.String())
		}
	}
}

// needSandbox skips where there are no folders of libvirt to mount over.
func needSandbox(t *testing.T) {
	t.Helper()
	testkit.Need(t, testkit.Root)
	for _, dir := range []string{"/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"} {
		if _, err := os.Stat(dir); err != nil {
			testkit.Skip(t, "lab", "scripts/setup lab was not run: "+err.Error())
		}
	}
}

// When make and lab.sh were killed, the namespaces go on. Down ends all that runs
// in them, also what has detached itself, and a neighbour's lab goes on.
func TestDownEndsTheNamespaces(t *testing.T) {
	needSandbox(t)
	state, neighbour := t.TempDir(), t.TempDir()
	sandbox, mark := startSandbox(t, state)
	other, otherMark := startSandbox(t, neighbour)
	for _, m := range []string{mark, otherMark} {
		if found := marked(t, m); len(found) < 4 {
			t.Errorf("only %d processes run: then this test proves little", len(found))
		}
	}
	down := func(state string) {
		t.Helper()
		if code, said := run(t, []string{"COREPLICA_LAB_STATE=" + state}, "./lab.sh", "down"); code != 0 || !strings.Contains(said, "the lab is gone") {
			t.Errorf("exit %d: %s", code, said)
		}
	}
	down(state)
	_ = sandbox.Wait() // It was killed, so it has an error to tell.
	if left := marked(t, mark); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if len(marked(t, otherMark)) < 4 {
		t.Error("the neighbour's lab is hurt")
	}
	down(neighbour)
	_ = other.Wait()
	if left := marked(t, otherMark); len(left) != 0 {
		t.Errorf("left of the neighbour: %v", left)
	}
}

// The first process may itself be killed: nothing survives it.
func TestNothingSurvivesTheSandbox(t *testing.T) {
	needSandbox(t)
	sandbox, mark := startSandbox(t, t.TempDir())
	if err := sandbox.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = sandbox.Wait() // It was killed, so it has an error to tell.
	for deadline := time.Now().Add(10 * time.Second); len(marked(t, mark)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", marked(t, mark))
		}
	}
}
