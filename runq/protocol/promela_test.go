package protocol_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

// The Promela model holds, and each of its mutants does not.
func TestPromelaTrial(t *testing.T) {
	testkit.Need(t, testkit.Trial, testkit.Spin)
	model, err := filepath.Abs("promela/runq.pml")
	if err != nil {
		t.Fatal(err)
	}
	if out := spin(t, model); !regexp.MustCompile(`errors: 0\b`).MatchString(out) || regexp.MustCompile(`Search not completed|max search depth`).MatchString(out) {
		t.Errorf("the model does not hold, or was not searched to its end:\n%s", out)
	} else {
		t.Log(regexp.MustCompile(`\d+ states, stored`).FindString(out))
	}
	for _, mutant := range []string{"ACK_EARLY", "NO_SEAL", "SHORTEST", "FORGET", "NO_ACTIVE"} {
		if out := spin(t, model, "-D"+mutant); !regexp.MustCompile(`assertion violated`).MatchString(out) {
			t.Errorf("mutant %s is not noticed:\n%s", mutant, out)
		}
	}
}

// spin checks a model and returns the verifier's report.
func spin(t *testing.T, model string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if _, exited := err.(*exec.ExitError); err != nil && !exited {
			t.Fatalf("%s: %v", name, err)
		}
		return string(out)
	}
	generated := run("spin", append(flags, "-a", model)...)
	if _, err := os.Stat(filepath.Join(dir, "pan.c")); err != nil {
		t.Fatalf("spin made no verifier: %s", generated)
	}
	if out := run("gcc", "-O2", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"); out != "" {
		t.Logf("gcc: %s", out)
	}
	return run(filepath.Join(dir, "pan"), "-m100000")
}
