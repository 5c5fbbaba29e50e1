package load

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) {
	// The race detector would hold up each exit of a load by a second.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	Hook()
	if os.Getenv(parentEnv) != "" {
		parent()
	}
	testkit.Main(m)
}

// start starts a load, and ends it with the test.
func start(t testing.TB, legs map[string]Spec) *Process {
	t.Helper()
	p, err := Start(t.Context(), legs, StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := p.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return p
}

// targets makes empty files, so that what is written can be told from what was
// there.
func targets(t testing.TB, threads, files int) [][]string {
	t.Helper()
	dir := t.TempDir()
	list := make([][]string, threads)
	for i := range list {
		for j := range files {
			path := filepath.Join(dir, "target-"+string(rune('a'+i))+string(rune('0'+j)))
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			list[i] = append(list[i], path)
		}
	}
	return list
}

// spec is a plain load on new files.
func spec(t testing.TB, threads, files int) Spec {
	t.Helper()
	return Spec{
		Targets:   targets(t, threads, files),
		FileBytes: 1 << 20,
		SizeBytes: 4096,
		Mode:      ModeBuffered,
		Pattern:   PatternSeq,
		Batch:     1,
	}
}

// run runs a block that must work.
func run(t testing.TB, p *Process, b Block) Result {
	t.Helper()
	r, err := p.Run(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
