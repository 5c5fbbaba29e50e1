package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { Main(m) }

// recorder is a test that remembers how it ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                           {}
func (r *recorder) Skip(args ...any)                  { r.skipped = fmt.Sprint(args...) }
func (r *recorder) Fatalf(format string, args ...any) { r.failed = fmt.Sprintf(format, args...) }

func TestASkipNamesItsFeature(t *testing.T) {
	t.Setenv(ExpectEnv, "root,bpf")
	var r recorder
	Skip(&r, Kprobes, `the "kernel" has none`)
	if r.failed != "" || r.skipped != `SKIP coreplica feature=kprobes reason="the \"kernel\" has none"` {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
}

func TestAnExpectedFeatureFailsInstead(t *testing.T) {
	t.Setenv(ExpectEnv, "root,bpf,kprobes")
	var r recorder
	Skip(&r, Kprobes, "the kernel has none")
	if r.skipped != "" || !strings.Contains(r.failed, "kprobes is missing: the kernel has none") {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
}

func TestNeedOfAnUnknownFeature(t *testing.T) {
	t.Setenv(ExpectEnv, "")
	var r recorder
	Need(&r, "telepathy")
	if _, reason, ok := ParseSkip(r.skipped); !ok || !strings.Contains(reason, "does not know") {
		t.Errorf("skipped with %q", r.skipped)
	}
}

func TestEveryFeatureHasAnAnswer(t *testing.T) {
	for _, feature := range Features() {
		if reason := Missing(feature); reason != "" {
			t.Logf("%s is missing: %s", feature, reason)
			if strings.Contains(reason, "does not know") {
				t.Errorf("%s has no look-up", feature)
			}
		}
	}
}

func TestSkipLineRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		feature := Feature(rapid.StringMatching(`[a-z0-9]+`).Draw(t, "feature"))
		reason := rapid.String().Draw(t, "reason")
		gotFeature, gotReason, ok := ParseSkip("    x_test.go:12: " + SkipLine(feature, reason) + "\n")
		if !ok || gotFeature != feature || gotReason != reason {
			t.Fatalf("read back %q %q %v", gotFeature, gotReason, ok)
		}
	})
}

func FuzzParseSkip(f *testing.F) {
	f.Add(`SKIP coreplica feature=x reason="y"`)
	f.Add("SKIP coreplica feature=x reason=")
	f.Fuzz(func(t *testing.T, line string) { ParseSkip(line) })
}

// brief is enough patience for a control that waits in vain.
const brief = 30 * time.Millisecond

// runWith runs fake tests under one check and returns the exit code and the
// log.
func runWith(check Check, tests func() int) (int, string) {
	var log strings.Builder
	code := run(tests, &log, brief, []Check{check})
	return code, log.String()
}

func TestCleanTestsPass(t *testing.T) {
	for _, check := range []Check{FDs(), Children(), Affinity(), Loops("no-such-loop"), Zrams(), Mounts("no-such-mount"), Pins("no-such-pin")} {
		if code, log := runWith(check, func() int { return 0 }); code != 0 {
			t.Errorf("%s: exit %d: %s", check.Name, code, log)
		}
	}
}

func TestFailuresKeepTheirCode(t *testing.T) {
	if code, _ := runWith(FDs(), func() int { return 7 }); code != 7 {
		t.Errorf("exit %d, want the tests' own 7", code)
	}
}

// Each check must be able to fail: here are real leaks of each kind that needs
// no device.
func TestLeaksAreSeen(t *testing.T) {
	dir := t.TempDir()
	var file *os.File
	code, log := runWith(FDs(), func() int {
		var err error
		if file, err = os.Create(filepath.Join(dir, "leaked")); err != nil {
			t.Fatal(err)
		}
		return 0
	})
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	wantLeak(t, code, log, "leaked")

	child := exec.Command("sleep", "60")
	code, log = runWith(Children(), func() int {
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		return 0
	})
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // It was killed, so it has an error to tell.
	wantLeak(t, code, log, "sleep")

	code, log = runWith(Files(dir, "pin"), func() int {
		if err := os.WriteFile(filepath.Join(dir, "pinned"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return 0
	})
	wantLeak(t, code, log, "pinned")
}

// The checks by name read lists that the kernel writes; a fake list stands in
// for devices that this test must not touch.
func TestAChangeOfStateIsALeak(t *testing.T) {
	state := map[string]string{"process": "may run on 2 CPUs"}
	check := Check{Name: "fake", List: func() (map[string]string, error) {
		return map[string]string{"process": state["process"]}, nil
	}}
	code, log := runWith(check, func() int { state["process"] = "may run on 1 CPUs"; return 0 })
	wantLeak(t, code, log, "1 CPUs")
}

func TestWhatGoesAwayByItselfIsNoLeak(t *testing.T) {
	calls := 0
	check := Check{Name: "slow", List: func() (map[string]string, error) {
		if calls++; calls == 2 {
			return map[string]string{"going": ""}, nil
		}
		return nil, nil
	}}
	if code, log := runWith(check, func() int { return 0 }); code != 0 || calls < 3 {
		t.Errorf("exit %d after %d looks: %s", code, calls, log)
	}
}

func TestAListThatFailsIsNotSilence(t *testing.T) {
	calls := 0
	check := Check{Name: "blind", List: func() (map[string]string, error) {
		if calls++; calls > 1 {
			return nil, errors.New("cannot see")
		}
		return nil, nil
	}}
	code, log := runWith(check, func() int { return 0 })
	if code != LeakExit || !strings.Contains(log, "cannot see") {
		t.Errorf("exit %d: %s", code, log)
	}
}

func wantLeak(t *testing.T, code int, log, what string) {
	t.Helper()
	if code != LeakExit || !strings.Contains(log, "LEAK ") || !strings.Contains(log, what) {
		t.Errorf("exit %d, want %d and a word about %q: %s", code, LeakExit, what, log)
	}
}

func TestParentOf(t *testing.T) {
	tests := []struct {
		stat   string
		parent int
		name   string
		ok     bool
	}{
		{"12 (sh) S 7 12", 7, "sh", true},
		{"12 (a) (b) c) R 9 1", 9, "a) (b) c", true},
		{"12 sh S 7", 0, "", false},
		{"12 (sh) S", 0, "", false},
	}
	for _, tt := range tests {
		if parent, name, ok := parentOf(tt.stat); parent != tt.parent || name != tt.name || ok != tt.ok {
			t.Errorf("parentOf(%q) = %d, %q, %v", tt.stat, parent, name, ok)
		}
	}
}
