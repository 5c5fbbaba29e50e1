package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/cluster"
	"github.com/coreplica/coreplica/internal/testkit"
)

// labCommand is the command as a user has it, where nodes can run.
type labCommand string

func needLab(t *testing.T) labCommand {
	t.Helper()
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "the race detector sees nothing of another process"))
	}
	testkit.Need(t, testkit.QEMU, testkit.Busybox, testkit.GoCommand)
	return labCommand(built(t))
}

// run returns the command's exit code and what it printed.
func (c labCommand) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(string(c), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// qemus returns the processes of guests that carry a run's mark.
func qemus(t *testing.T, run string) (pids []string) {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environs {
		environ, err := os.ReadFile(path)
		if err == nil && bytes.Contains(environ, []byte(cleanup.EnvName+"="+run)) {
			pids = append(pids, path)
		}
	}
	return pids
}

// A lab of one node from the command line: it runs commands, refuses a second lab,
// and when its process is killed its guests die with it and down removes the rest.
func TestLab(t *testing.T) {
	c := needLab(t)
	if _, err := cluster.Find(cleanup.Options{}); err == nil {
		t.Fatal("a lab is up on this machine already")
	}
	if code, _, stderr := c.run(t, "lab", "ls"); code != exitFailed || !strings.Contains(stderr, "coreplica lab up") {
		t.Errorf("ls without a lab: exit code %d, %q", code, stderr)
	}
	code, _, stderr := c.run(t, "lab", "up", "-n", "1", "--module", "loop")
	if code != 0 {
		t.Fatalf("up: exit code %d: %s", code, stderr)
	}
	defer c.run(t, "lab", "down")
	_, stdout, _ := c.run(t, "lab", "ls", "-o", "json")
	var status cluster.Status
	if err := json.Unmarshal([]byte(stdout), &status); err != nil || status.Schema != cluster.Schema || len(status.Nodes) != 1 {
		t.Fatalf("ls: %v: %s", err, stdout)
	}
	run := filepath.Base(filepath.Dir(filepath.Dir(status.Nodes[0].Log)))
	if len(qemus(t, run)) == 0 {
		t.Error("no guest carries the lab's mark")
	}
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"lab up", 1, "", "lab down"},
		{"lab exec node1 -- coreplica version", 0, "coreplica", ""},
		{"lab exec node1 -- sh -c false", 1, "", "exit code 1"},
		{"lab exec node2 -- true", 2, "", "node1 to node1"},
		{"lab net drop 101%", 2, "", "0% to 100%"},
		{"lab push node1 go.mod /tmp/x", 1, "", "go.mod"},
	} {
		code, stdout, stderr := c.run(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%s: exit code %d, output %q, errors %q", tt.args, code, stdout, stderr)
		}
	}
	if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(qemus(t, run)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("guests live on: %q", qemus(t, run))
		}
	}
	if code, stdout, stderr := c.run(t, "lab", "down"); code != 0 || !strings.Contains(stdout, run) {
		t.Errorf("down: exit code %d, output %q, errors %q", code, stdout, stderr)
	}
	for _, pattern := range []string{"/run/coreplica/" + run, filepath.Join(os.TempDir(), run)} {
		if _, err := os.Lstat(pattern); err == nil {
			t.Errorf("%s is left", pattern)
		}
	}
}

// When `lab up` is killed before its nodes are up, they come down by themselves.
func TestLabUpKilled(t *testing.T) {
	c := needLab(t)
	up := exec.Command(string(c), "lab", "up", "-n", "2")
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("30 s and still not: %s", what)
			}
		}
	}
	var run string
	until("the lab serves its socket and boots guests", func() bool {
		for _, socket := range cleanup.Find(cleanup.Options{}, "lab.sock") {
			run = filepath.Base(filepath.Dir(socket))
		}
		return run != "" && len(qemus(t, run)) > 1
	})
	if err := up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = up.Wait() // Killed.
	until("its processes are gone", func() bool { return len(qemus(t, run)) == 0 })
	until("its files are gone", func() bool {
		_, err := os.Lstat("/run/coreplica/" + run)
		return errors.Is(err, os.ErrNotExist)
	})
	if code, stdout, stderr := c.run(t, "lab", "down"); code != 0 || !strings.Contains(stdout, "no lab is up") {
		t.Errorf("down: exit code %d, %q, %q", code, stdout, stderr)
	}
}

// What nobody can start says why in one line, and leaves nothing.
func TestLabRefusals(t *testing.T) {
	c := needLab(t)
	for _, tt := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"lab up -n 0", 2, "1 to 16"},
		{"lab up --kernel 2.4", 2, "6.12"},
		{"lab up --topology 0x0", 2, "2x2"},
		{"lab up --tool nonesuch", 2, "not installed here"},
		{"lab up --module nonesuch -n 1", 2, "no such module"},
		{"lab test", 2, "--help"},
		{"lab test --topology 99x9 ./testdata", 1, ""},
		{"lab kill", 2, "--help"},
	} {
		code, _, stderr := c.run(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: exit code %d, %q", tt.args, code, stderr)
		}
	}
}
