package lab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseTopology(t *testing.T) {
	two, err := ParseTopology("2x2")
	if err != nil || two.CPUs() != 4 || two.MemoryMiB() != 1024 || two.String() != "2x2" {
		t.Fatalf("%+v, %v", two, err)
	}
	args := strings.Join(two.args(), " ")
	for _, want := range []string{"-smp 4,sockets=2,cores=2,threads=1", "node,nodeid=1,memdev=m1,cpus=2-3", "dist,src=0,dst=1,val=31", "dist,src=1,dst=0,val=31"} {
		if !strings.Contains(args, want) {
			t.Errorf("no %q in %q", want, args)
		}
	}
	if one, err := ParseTopology(""); err != nil || one.CPUs() != 2 || slices.Contains(one.args(), "-numa") {
		t.Errorf("the default: %+v, %v", one, err)
	}
	file := filepath.Join(t.TempDir(), "machine.json")
	text := `{"nodes": [{"cpus": 1, "memory_mib": 256}, {"cpus": 0, "memory_mib": 512}, {"cpus": 3}], "distances": [[10, 17, 21], [17, 10, 28], [21, 28, 10]]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	mixed, err := ParseTopology(file)
	if err != nil || mixed.CPUs() != 4 || mixed.String() != "3 nodes, 4 CPUs" {
		t.Fatalf("%+v, %v", mixed, err)
	}
	if args := strings.Join(mixed.args(), " "); !strings.Contains(args, "nodeid=1,memdev=m1 ") || !strings.Contains(args, "cpus=1-3") || !strings.Contains(args, "src=1,dst=2,val=28") {
		t.Errorf("arguments %q", args)
	}
	for _, bad := range []string{"2", "x", "0x1", "17x1", "2x0", "2x33", "-1x2", "/nonesuch", "2x2x2"} {
		if _, err := ParseTopology(bad); !errors.Is(err, ErrTopology) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzTopology(f *testing.F) {
	f.Add(`{"nodes": [{"cpus": 1, "memory_mib": 256}], "distances": [[10]]}`)
	f.Add(`{"nodes": [{"cpus": 1}, {"cpus": 2}], "distances": [[10, 20], [20, 10]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		top, err := parseTopologyJSON([]byte(text))
		if err != nil {
			if !errors.Is(err, ErrTopology) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if n := top.CPUs(); n < 1 || n > maxCPUs || len(top.args()) == 0 {
			t.Errorf("%q: %d CPUs", text, n)
		}
	})
}
