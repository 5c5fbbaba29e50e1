package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/kernelfs"
	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

// traces are what a run makes on the machine.
var traces = []testkit.Check{
	testkit.Loops("coreplica-"), testkit.Mounts("coreplica-"), testkit.Zrams(),
	testkit.Pins("coreplica"), testkit.Files("/run/coreplica", "coreplica-"),
}

// program builds the command as users have it and returns its path.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "the race detector sees nothing of another process"))
	}
	testkit.Need(t, testkit.GoCommand, testkit.Root, testkit.BTF, testkit.BPF, testkit.Btrfs, testkit.Ext4, testkit.Loop)
	return built(t)
}

// built is the command as a file.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "coreplica")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// shortRun is the smallest run that says something.
func shortRun(more ...string) []string {
	return append([]string{"mirrorcost", "run", "--duration", "2s", "--quads", "4", "--file-size", "16M"}, more...)
}

// Phases as a run names them on standard error, in their order.
var phases = []string{
	"bring up the baseline", "bring up the mirror", "find how fast the legs go", "measure quads",
	"count bios", "sample stacks", "measure what measuring costs", "take the legs down",
}

// kill -9 in any phase leaves things on the machine, which a second run's start
// does not hide, and `coreplica clean` removes all of them. That something was
// there before it is the control: a run that made nothing would pass too.
func TestKillInAnyPhase(t *testing.T) {
	coreplica := program(t)
	for _, phase := range phases {
		t.Run(phase, func(t *testing.T) {
			before := seen(t)
			cmd := startIn(t, coreplica, phase)
			time.Sleep(30 * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // It was killed, so it has an error to tell.
			if maps.Equal(before, seen(t)) {
				t.Error("a run that was killed left nothing: then this test proves nothing")
			}
			out, err := exec.Command(coreplica, "clean").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "removed") {
				t.Errorf("clean: %v\n%s", err, out)
			}
			if after := seen(t); !maps.Equal(before, after) {
				t.Errorf("left behind: %v", slices.Sorted(maps.Keys(after)))
			}
			if out, err := exec.Command(coreplica, "clean").CombinedOutput(); err != nil || string(out) != "nothing to remove\n" {
				t.Errorf("clean again: %v\n%s", err, out)
			}
		})
	}
}

// Ctrl-C ends a run soon, with exit code 1 and one line, and leaves nothing.
func TestInterrupt(t *testing.T) {
	coreplica := program(t)
	for _, phase := range []string{"bring up the mirror", "measure quads"} {
		before := seen(t)
		cmd := startIn(t, coreplica, phase)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
			t.Errorf("%s: %v, want exit code %d", phase, err, exitFailed)
		}
		if after := seen(t); !maps.Equal(before, after) {
			t.Errorf("%s: left behind: %v", phase, slices.Sorted(maps.Keys(after)))
		}
	}
}

// startIn starts a short run and returns when it comes to the phase.
func startIn(t *testing.T, coreplica, phase string) *exec.Cmd {
	t.Helper()
	probes := phase == "measure what measuring costs"
	// Nothing is read off these runs, so their passes may be too short to measure.
	cmd := exec.Command(coreplica, shortRun("--duration", "400ms", "--quads", "2", fmt.Sprintf("--probe-cost=%t", probes))...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var all strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), phase) {
			go func() { _, _ = io.Copy(io.Discard, stderr) }() // Its pipe must not fill up.
			return cmd
		}
	}
	t.Fatalf("the run ended before the phase %q:\n%s", phase, all.String())
	return nil
}

// seen lists all traces of runs on the machine now, after some patience for what
// goes away by itself.
func seen(t *testing.T) map[string]bool {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	all := map[string]bool{}
	for _, check := range traces {
		list, err := check.List()
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range list {
			all[check.Name+": "+key+" "+value] = true
		}
	}
	return all
}

// bpftool loads and pins each object as docs/mirrorcost.md says, and a run
// attaches and reads what it finds. The pins stay the owner's.
func TestRunWithPinnedProbes(t *testing.T) {
	coreplica := program(t)
	testkit.Need(t, testkit.Bpftool, testkit.BPFFS)
	testkit.Mount(t, kernelfs.BPFFS)
	pins, err := os.MkdirTemp(kernelfs.BPFFS.String(), "coreplica-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(pins); err != nil {
			t.Error(err)
		}
	}()
	steps := documentedSteps(t, coreplica, pins)
	script := exec.Command("sh", "-e", "-c", steps)
	script.Dir = t.TempDir()
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", steps, err, out)
	}
	var stdout, stderr bytes.Buffer
	run := exec.Command(coreplica, shortRun("--probe-cost=false", "-o", "json", "--pinned", pins)...)
	run.Stdout, run.Stderr = &stdout, &stderr
	if err := run.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var r report.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Mirror.CPUNsPerWrite.Mean < 1000 || r.Mirror.Samples == 0 || len(r.Mirror.BiosDataPerDevice) != 2 {
		t.Errorf("the pinned probes saw %v, %d samples, bios %v", r.Mirror.CPUNsPerWrite, r.Mirror.Samples, r.Mirror.BiosDataPerDevice)
	}
	if _, err := os.Stat(filepath.Join(pins, "ledger", "ledger_sched_switch")); err != nil {
		t.Errorf("the run took its owner's pins away: %v", err)
	}
}

// documentedSteps takes the commands that pin from the documentation, with the
// folder and the program of this test.
func documentedSteps(t *testing.T, coreplica, pins string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/mirrorcost.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```sh\ncoreplica mirrorcost objects probes\n")
	steps, _, end := strings.Cut(rest, "coreplica mirrorcost run --pinned")
	if !found || !end {
		t.Fatal("docs/mirrorcost.md does not show how to pin the probes")
	}
	steps = strings.ReplaceAll(steps, "/sys/fs/bpf/coreplica;", pins+";")
	return coreplica + " mirrorcost objects probes\n" + steps
}

// What a user may get wrong costs one line that says the fix, and exit code 2
// where the command line was wrong or 1 where the machine was.
func TestBadInput(t *testing.T) {
	coreplica := program(t)
	run := func(attr *syscall.SysProcAttr, args ...string) (int, string) {
		cmd := exec.Command(coreplica, append([]string{"mirrorcost", "run"}, args...)...)
		cmd.SysProcAttr = attr
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run()
		var complaint []string
		for line := range strings.Lines(stderr.String()) {
			if strings.HasPrefix(line, "coreplica: ") {
				complaint = append(complaint, line)
			} else if !strings.Contains(line, " left") {
				t.Errorf("%v: a line that is neither progress nor the complaint: %q", args, line)
			}
		}
		if len(complaint) != 1 {
			t.Errorf("%v: %d complaints: %q", args, len(complaint), complaint)
		}
		return cmd.ProcessState.ExitCode(), strings.Join(complaint, "")
	}
	// The program's folder is closed to others.
	if err := errors.Join(os.Chmod(filepath.Dir(coreplica), 0o755), os.Chmod(filepath.Dir(filepath.Dir(coreplica)), 0o755)); err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	before := seen(t)
	for _, tt := range []struct {
		name string
		attr *syscall.SysProcAttr
		args []string
		code int
		want []string
	}{
		{"no privilege", nobody, nil, exitFailed, []string{"root", "doctor"}},
		{"no writes", nil, []string{"--count", "0", "--duration", "0"}, exitUsage, []string{"zero writes", "--count", "--help"}},
		{"small device", nil, []string{"--device-size", "64M"}, exitUsage, []string{"too small", "--device-size"}},
		{"unknown mirror", nil, []string{"--mirror", "raid5"}, exitUsage, []string{"raid5", "btrfs-raid1c3"}},
		{"mounted device", nil, []string{"--substrate", "devices", "--devices", mountedDevice(t) + ",/dev/x,/dev/y", "--force"}, exitUsage, []string{"mounted"}},
		{"absent device", nil, []string{"--substrate", "devices", "--devices", "/dev/absent,/dev/x,/dev/y"}, exitUsage, []string{"/dev/absent"}},
		{"rate of nothing", nil, []string{"--rate", "0"}, exitUsage, []string{"half", "max"}},
		{"pins that are not there", nil, []string{"--pinned", "/sys/fs/bpf/absent"}, exitFailed, []string{"bpftool prog loadall"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, complaint := run(tt.attr, tt.args...)
			t.Log(strings.TrimSpace(complaint))
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(complaint, want) {
					t.Errorf("%q does not say %q", complaint, want)
				}
			}
		})
	}
	if after := seen(t); !maps.Equal(before, after) {
		t.Errorf("left behind: %v", slices.Sorted(maps.Keys(after)))
	}
}

// mountedDevice is a loop device of this test's that is mounted.
func mountedDevice(t *testing.T) string {
	t.Helper()
	image, point := filepath.Join(t.TempDir(), "image"), t.TempDir()
	shell := func(script string) string {
		out, err := exec.Command("sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; "+script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	shell("truncate -s 512M " + image + "; mkfs.ext4 -q " + image)
	device := shell("losetup --find --show " + image)
	t.Cleanup(func() { shell("losetup --detach " + device) })
	shell("mount " + device + " " + point)
	t.Cleanup(func() { shell("umount " + point) })
	return device
}
