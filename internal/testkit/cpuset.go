package testkit

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// NewCpuset makes a control group for CPUs and memory nodes, both lists as the
// kernel writes them, and removes it with the test. It returns the group's folder:
// a process joins by writing its number to cgroup.procs.
func NewCpuset(t testing.TB, cpus, nodes string) string {
	t.Helper()
	Need(t, Cpuset)
	parent := "/sys/fs/cgroup"
	if _, err := os.Stat(parent + "/cpuset/cpuset.cpus"); err == nil {
		parent += "/cpuset"
	} else {
		handDown(t, filepath.Join(parent, "cgroup.subtree_control"))
	}
	group := filepath.Join(parent, "coreplica-numa-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(group); err != nil {
			t.Error(err)
		}
	})
	for name, value := range map[string]string{"cpuset.cpus": cpus, "cpuset.mems": nodes} {
		if err := os.WriteFile(filepath.Join(group, name), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	return group
}

// handDown gives groups of version 2 the cpuset controller for the time of the
// test, where they do not have it.
func handDown(t testing.TB, control string) {
	t.Helper()
	before, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(before), "cpuset") {
		return
	}
	if err := os.WriteFile(control, []byte("+cpuset"), 0); err != nil {
		Skip(t, Cpuset, err.Error())
	}
	t.Cleanup(func() {
		if err := os.WriteFile(control, []byte("-cpuset"), 0); err != nil {
			t.Error(err)
		}
	})
}
