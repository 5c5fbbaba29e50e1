package object

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// What is checked in is what the pinned compiler makes of the sources, byte for
// byte: nobody has to trust a binary in the tree.
func TestGenerate(t *testing.T) {
	testkit.Need(t, testkit.Clang14, testkit.GoCommand)
	if testing.Short() {
		t.Skip("compiles twenty objects")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	for _, pattern := range []string{"go.mod", "go.sum", "bpf/src/*", "bpf/internal/object/generate.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			copyFile(t, file, filepath.Join(copied, strings.TrimPrefix(file, root)))
		}
	}
	dir := filepath.Join(copied, "bpf/internal/object")
	generate := exec.Command("go", "generate", ".")
	generate.Dir = dir
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*_bpfel.*"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob("*_bpfel.*")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != len(kept) || len(made) < 2*2*10-2*3 {
		t.Errorf("%d files were generated and %d are checked in", len(made), len(kept))
	}
	for _, file := range made {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Base(file))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what the sources compile to; run `make generate`", filepath.Base(file))
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
