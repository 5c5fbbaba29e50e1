package numa

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// statLine is a thread's stat with its last CPU in field 39.
func statLine(name string, cpu int) string {
	return fmt.Sprintf("7 (%s) S 1 7 7 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 5 6 7 8 9 10 11 12 13 14 0 0 0 0 0 0 17 %d 0 0 0", name, cpu)
}

// process adds a process to a machine with two sockets.
func process(t *testing.T) (fstest.MapFS, *Topology) {
	t.Helper()
	root := shapes[3].files()
	topo, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"proc/7/comm": "server",
		"proc/7/numa_maps": lines(
			"00400000 default file=/usr/bin/server mapped=10 N0=10 kernelpagesize_kB=4",
			"c000000000 default anon=300 dirty=300 N0=100 N1=200 kernelpagesize_kB=4",
			"7f0000000000 bind:1 anon=2 dirty=2 N1=2 huge kernelpagesize_kB=2048",
			"7f1000000000 default heap anon=5 N0=5 kernelpagesize_kB=4",
			"7ffe00000000 default stack anon=3 N1=3 kernelpagesize_kB=4",
			"7ffff0000000 default",
		),
		"proc/7/maps": lines(
			"00400000-00500000 r-xp 00000000 fe:00 1    /usr/bin/server",
			"c000000000-c000400000 rw-p 00000000 00:00 0    [anon: Go: heap]",
		),
		"proc/7/task/7/stat":   statLine("server", 0),
		"proc/7/task/7/status": "Cpus_allowed_list:\t0-15\n",
		"proc/7/task/8/stat":   statLine("a) b (c", 13),
		"proc/7/task/8/status": "Cpus_allowed_list:\t4-7,12-15,40\n",
		"proc/7/task/9/stat":   statLine("gone CPU", 99),
	} {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root, topo
}

func TestReadProcess(t *testing.T) {
	root, topo := process(t)
	got, err := ReadProcess(root, topo, 7)
	if err != nil {
		t.Fatal(err)
	}
	const page, huge = 4096, 2 << 20
	node0, node1 := uint64(115*page), uint64(203*page+2*huge)
	want := &Process{
		Schema: "coreplica.numa.place/1", PID: 7, Command: "server",
		Nodes: []ProcessNode{
			{0, node0, 100 * float64(node0) / float64(node0+node1), 1, 0},
			{1, node1, 100 * float64(node1) / float64(node0+node1), 1, 1},
		},
		Kinds: []MemoryKind{
			{"huge", 2 * huge, map[int]uint64{1: 2 * huge}},
			{"Go: heap", 300 * page, map[int]uint64{0: 100 * page, 1: 200 * page}},
			{"file", 10 * page, map[int]uint64{0: 10 * page}},
			{"heap", 5 * page, map[int]uint64{0: 5 * page}},
			{"stack", 3 * page, map[int]uint64{1: 3 * page}},
		},
		Policies: map[string]int{"default": 5, "bind:1": 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var table bytes.Buffer
	got.Command = "evil\x1b[2J"
	if err := got.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	rows := strings.Join(strings.Fields(table.String()), " ") // Without the padding.
	if text := table.String(); !strings.Contains(rows, "(evil?[2J)") || !strings.Contains(rows, " Go: heap 1.2 MiB 0: 400 KiB, 1: 800 KiB ") {
		t.Errorf("the table says\n%s", text)
	}
}

func TestReadProcessNamesTheFile(t *testing.T) {
	for _, tt := range []struct{ file, text string }{
		{"proc/7/numa_maps", "00400000"},
		{"proc/7/numa_maps", "00400000 default N0=x"},
		{"proc/7/numa_maps", "00400000 default N5=1"},
		{"proc/7/numa_maps", "00400000 default N99999=1"},
		{"proc/7/numa_maps", "00400000 default kernelpagesize_kB=big"},
		{"proc/7/task/8/stat", "8 (x) S 1"},
		{"proc/7/task/8/stat", "no parenthesis"},
		{"proc/7/task/8/stat", statLine("x", -1)},
		{"proc/7/task/8/status", "Cpus_allowed_list:\tx"},
	} {
		root, topo := process(t)
		root[tt.file] = &fstest.MapFile{Data: []byte(tt.text + "\n")}
		_, err := ReadProcess(root, topo, 7)
		var at *FileError
		if !errors.As(err, &at) || at.Path != "/"+tt.file {
			t.Errorf("%s = %q: %v", tt.file, tt.text, err)
		}
	}
	for _, file := range []string{"proc/7/comm", "proc/7/numa_maps"} {
		root, topo := process(t)
		delete(root, file)
		if _, err := ReadProcess(root, topo, 7); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without %s: %v", file, err)
		}
	}
}

// Of ourselves the kernel knows a heap by its name, and our threads.
func TestReadProcessHere(t *testing.T) {
	topo := local(t)
	if !topo.Settings.NUMA {
		t.Skip("the kernel was built without NUMA") // Then there is no numa_maps.
	}
	p, err := ReadProcess(os.DirFS("/"), topo, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	bytes, threads := uint64(0), 0
	for _, n := range p.Nodes {
		bytes += n.Bytes
		threads += n.Threads
	}
	if bytes < 1<<20 || threads < 2 || len(p.Kinds) < 2 {
		t.Errorf("of this process %d bytes and %d threads were found, in %d kinds", bytes, threads, len(p.Kinds))
	}
}

func FuzzParseArea(f *testing.F) {
	f.Add("00400000 default file=/x mapped=10 N0=10 kernelpagesize_kB=4")
	f.Add("7f00 bind:0-1 huge N0=1 N12=7 kernelpagesize_kB=2048")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := parseArea(line)
		if err != nil {
			return
		}
		for node := range a.pages {
			if node < 0 || node >= maxNodes {
				t.Errorf("%q has pages on node %d", line, node)
			}
		}
	})
}

func FuzzLastCPU(f *testing.F) {
	f.Add(statLine("a (b) c", 3))
	f.Fuzz(func(t *testing.T, stat string) {
		if cpu, err := lastCPU(stat); err == nil && cpu < 0 {
			t.Errorf("%q: CPU %d", stat, cpu)
		}
	})
}
