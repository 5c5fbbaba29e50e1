package numa

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the pictures in testdata anew")

// Pictures of machines, to be read by people: testdata/topo-*.
func TestPictures(t *testing.T) {
	for name, index := range map[string]int{"smt": 1, "two-sockets": 3, "memory-only": 7, "offline": 8, "cpuset": 10} {
		topo, err := Read(shapes[index].files())
		if err != nil {
			t.Fatal(err)
		}
		for form, write := range map[string]func(io.Writer) error{"txt": topo.WriteTable, "dot": topo.WriteDOT} {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "topo-"+name+"."+form)
			if *rewrite {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s (-want +got), -rewrite accepts it:\n%s", file, diff)
			}
		}
	}
}

// Braces and quotes come in pairs on every machine, so Graphviz reads it.
func TestDOTIsWellFormed(t *testing.T) {
	for _, s := range shapes {
		topo, err := Read(s.files())
		if err != nil {
			t.Fatal(err)
		}
		var dot bytes.Buffer
		if err := topo.WriteDOT(&dot); err != nil {
			t.Fatal(err)
		}
		text := dot.String()
		if strings.Count(text, "{") != strings.Count(text, "}") || strings.Count(text, `"`)%2 != 0 {
			t.Errorf("%s:\n%s", s.name, text)
		}
		for _, core := range topo.Cores() {
			if !strings.Contains(text, `"CPU `+core.String()+`"`) {
				t.Errorf("%s: core %s is missing", s.name, core)
			}
		}
	}
}

func TestWritersTellErrors(t *testing.T) {
	root, topo := process(t)
	p, err := ReadProcess(root, topo, 7)
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(io.Writer) error{"table": topo.WriteTable, "dot": topo.WriteDOT, "process": p.WriteTable} {
		if err := write(broken{}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 16 << 30: "16 GiB", 1<<64 - 1: "16 EiB"} {
		if got := size(bytes); got != want {
			t.Errorf("size(%d) = %s, want %s", bytes, got, want)
		}
	}
}
