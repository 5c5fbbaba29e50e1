package numa

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestReadShapes(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			topo, err := Read(s.files())
			if err != nil {
				t.Fatal(err)
			}
			if got := topo.summary(); got != s.want {
				t.Errorf("got  %s\nwant %s", got, s.want)
			}
			if err := consistent(topo); err != nil {
				t.Error(err)
			}
			text, err := json.Marshal(topo)
			if err != nil {
				t.Fatal(err)
			}
			var again Topology
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatal(err)
			}
			// A list that is empty may come back as another kind of empty.
			if diff := cmp.Diff(topo, &again, cmp.Comparer(func(a, b List) bool { return a.Equal(b) })); diff != "" {
				t.Errorf("JSON changes it (-before +after):\n%s", diff)
			}
			if !strings.Contains(string(text), `"schema":"coreplica.numa.topo/1"`) {
				t.Errorf("the JSON form has no schema: %s", text)
			}
		})
	}
}

// consistent checks what must hold of every topology that was read.
func consistent(t *Topology) error {
	var placed []int
	for i, n := range t.Nodes {
		placed = append(placed, n.CPUs...)
		if len(n.Distances) != len(t.Nodes) || i > 0 && t.Nodes[i-1].ID >= n.ID {
			return fmt.Errorf("node %d of %v has distances %v", n.ID, t.NodeIDs(), n.Distances)
		}
	}
	slices.Sort(placed)
	if !slices.Equal(placed, []int(t.Online)) || len(t.CPUs) != len(t.Online) {
		return fmt.Errorf("nodes have CPUs %v, %s are online, %d are described", placed, t.Online, len(t.CPUs))
	}
	inCores := 0
	for _, core := range t.Cores() {
		inCores += len(core)
	}
	if inCores != len(t.CPUs) {
		return fmt.Errorf("cores hold %d of %d CPUs", inCores, len(t.CPUs))
	}
	for _, c := range t.Caches {
		if len(c.CPUs) == 0 || len(c.CPUs.Minus(t.Online)) > 0 {
			return fmt.Errorf("a cache belongs to CPUs %s", c.CPUs)
		}
	}
	if len(t.Limits.CPUs) == 0 || len(t.Limits.CPUs.Minus(t.Online)) > 0 || len(t.Limits.Nodes.Minus(t.NodeIDs())) > 0 {
		return fmt.Errorf("limits %s and %s", t.Limits.CPUs, t.Limits.Nodes)
	}
	for _, c := range t.CPUs {
		if n, found := t.Node(c.Node); !found || !n.CPUs.Has(c.ID) {
			return fmt.Errorf("CPU %d says that it is on node %d", c.ID, c.Node)
		}
	}
	return nil
}

// A control: consistent must notice what it is there for.
func TestConsistentCanFail(t *testing.T) {
	for name, spoil := range map[string]func(*Topology){
		"distances":     func(t *Topology) { t.Nodes[0].Distances = nil },
		"order":         func(t *Topology) { slices.Reverse(t.Nodes) },
		"lost CPU":      func(t *Topology) { t.Nodes[0].CPUs = nil },
		"lost core":     func(t *Topology) { t.CPUs[0].Siblings = List{1} },
		"strange cache": func(t *Topology) { t.Caches[0].CPUs = List{99} },
		"no limits":     func(t *Topology) { t.Limits.CPUs = nil },
		"moved CPU":     func(t *Topology) { t.CPUs[0].Node = 1 },
	} {
		topo, err := Read(shapes[3].files())
		if err != nil {
			t.Fatal(err)
		}
		if spoil(topo); consistent(topo) == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestReadNamesTheFile(t *testing.T) {
	const remove = "\x00"
	for _, tt := range []struct{ file, text, why string }{
		{cpuDir + "/online", remove, "not exist"},
		{cpuDir + "/online", "", "no CPU is online"},
		{cpuDir + "/online", "0-x", "parse list"},
		{cpuDir + "/online", "0-15,8191", "in the list of no node"},
		{cpuDir + "/possible", "9000", "below 8192"},
		{nodeDir + "/online", "", "no node is online"},
		{nodeDir + "/online", "0-1,1024", "more than 1023"},
		{nodeDir + "/online", "0-2", "2 distances for 3 nodes"},
		{nodeDir + "/node1/cpulist", "3-7,12-15", "CPU 3 is also in node 0"},
		{nodeDir + "/node1/cpulist", "5-7,12-15", "CPU 4 is in the list of no node"},
		{nodeDir + "/node1/cpulist", remove, "not exist"},
		{nodeDir + "/node0/distance", "10 -20", "no distance"},
		{nodeDir + "/node0/distance", "10", "1 distances for 2 nodes"},
		{nodeDir + "/node0/meminfo", "Node 1 MemTotal: 1 kB", "no line Node 0 MemTotal"},
		{nodeDir + "/node0/meminfo", "Node 0 MemTotal: 1 MB", "not so many kB"},
		{nodeDir + "/node0/meminfo", "Node 0 MemTotal: 99999999999999999999 kB", "not so many kB"},
		{nodeDir + "/node0/numastat", "numa_hit x", "no count"},
		{nodeDir + "/node0/hugepages/hugepages-2M/nr_hugepages", "1", "no size"},
		{nodeDir + "/node0/hugepages/hugepages-2048kB/nr_hugepages", "-1", "no count"},
		{cpuDir + "/cpu4/topology/core_id", "four", "no number"},
		{cpuDir + "/cpu4/topology/physical_package_id", "99999999999", "no number"},
		{cpuDir + "/cpu4/topology/thread_siblings_list", "12", "not among its own siblings"},
		{cpuDir + "/cpu4/topology/thread_siblings_list", "4-5,12", "knows nothing of it"},
		{cpuDir + "/cpu4/cache/index0/size", "32", "no size such as"},
		{cpuDir + "/cpu4/cache/index0/type", remove, "not exist"},
		{cpuDir + "/cpu4/cache/index0/shared_cpu_list", "5", "does not share its own cache"},
		{cpuDir + "/cpu12/cache/index3/shared_cpu_list", "4,12", "CPU 4 says 4-7,12-15"},
		{"sys/kernel/mm/transparent_hugepage/enabled", "always", "no word in brackets"},
		{"proc/sys/kernel/numa_balancing", "yes", "no number"},
		{"proc/self/status", "Cpus_allowed_list:\t16-20", "may use none"},
		{"proc/self/status", "Mems_allowed_list:\tall", "parse list"},
		{"proc/self/cgroup", "nonsense", "no line of the form"},
	} {
		root := shapes[3].files()
		if tt.text == remove {
			delete(root, tt.file)
		} else {
			root[tt.file] = &fstest.MapFile{Data: []byte(tt.text + "\n")}
		}
		_, err := Read(root)
		var at *FileError
		if !errors.As(err, &at) || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s = %q: %v, want an error with %q", tt.file, tt.text, err, tt.why)
			continue
		}
		// A contradiction between two files may be told of either.
		if !strings.HasPrefix("/"+tt.file, at.Path) && !strings.Contains(tt.why, "distances for 3") && !strings.Contains(tt.why, "list of no node") {
			t.Errorf("%s = %q: the error names %s", tt.file, tt.text, at.Path)
		}
	}
}

func TestReadErrorOfTheFileSystem(t *testing.T) {
	root := shapes[3].files()
	_, err := Read(failing{root, cpuDir + "/cpu2/topology/core_id"})
	var at *FileError
	if !errors.As(err, &at) || at.Path != "/"+cpuDir+"/cpu2/topology/core_id" || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	root[nodeDir+"/node0/cpulist"] = &fstest.MapFile{Data: make([]byte, maxFileBytes+1)}
	if _, err = Read(root); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a huge file: %v", err)
	}
}

// failing refuses to open one file.
type failing struct {
	fs.FS
	name string
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.FS.Open(name)
}

func TestDistances(t *testing.T) {
	topo, err := Read(shapes[7].files()) // Node 2 has memory only.
	if err != nil {
		t.Fatal(err)
	}
	if d := topo.Distance(0, 1); d != 32 {
		t.Errorf("Distance(0, 1) = %d", d)
	}
	if d := topo.Distance(0, 9); d != Unknown {
		t.Errorf("Distance(0, 9) = %d", d)
	}
	if near := topo.Nearest(0); !slices.Equal(near, []int{0, 2, 1}) {
		t.Errorf("Nearest(0) = %v", near)
	}
	if nodes := topo.ComputeNodes(); !nodes.Equal(List{0, 1}) {
		t.Errorf("ComputeNodes = %v", nodes)
	}
	memoryless, err := Read(shapes[6].files())
	if err != nil {
		t.Fatal(err)
	}
	if n := memoryless.NearestMemory(1); n != 0 {
		t.Errorf("the memory nearest to node 1 is on node %d", n)
	}
	if n := memoryless.NodeOf(99); n != Unknown {
		t.Errorf("NodeOf(99) = %d", n)
	}
}

// Spoiled machines are read, and then they are consistent, or refused with an
// error that names a file. Never is there a panic.
func TestSpoiledMachines(t *testing.T) {
	if testing.Short() {
		spoiledMachines(t, 500) // Under the race detector, or in a guest.
		return
	}
	spoiledMachines(t, 5_000)
}

// The same a million times.
func TestTrialSpoiledMachines(t *testing.T) {
	testkit.Need(t, testkit.Trial)
	spoiledMachines(t, 1_000_000)
}

func spoiledMachines(t *testing.T, rounds int) {
	seed := uint64(time.Now().UnixNano())
	machines := make([]quick, len(shapes))
	for i, s := range shapes {
		machines[i] = newQuick(s.files())
	}
	read, refused := 0, 0
	for round := range rounds {
		random := rand.New(rand.NewPCG(seed, uint64(round)))
		machine := machines[random.IntN(len(machines))]
		machine.MapFS = spoil(random, maps.Clone(machine.MapFS), machine.names)
		topo, err := Read(machine)
		if err == nil {
			read++
			err = consistent(topo)
		} else if at := new(FileError); errors.As(err, &at) && strings.HasPrefix(at.Path, "/") && fs.ValidPath(at.Path[1:]) {
			refused++
			err = nil
		}
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
	}
	t.Logf("%d machines: %d read, %d refused", rounds, read, refused)
	if read == 0 || refused == 0 {
		t.Error("machines are spoiled too much or too little to prove anything")
	}
}

// quick answers at once for files that are not there, for which MapFS searches
// all its files.
type quick struct {
	fstest.MapFS
	names   []string
	folders map[string]bool
}

func newQuick(root fstest.MapFS) quick {
	q := quick{root, slices.Sorted(maps.Keys(root)), map[string]bool{}}
	for _, name := range q.names {
		for dir := path.Dir(name); !q.folders[dir]; dir = path.Dir(dir) {
			q.folders[dir] = true
		}
	}
	return q
}

func (q quick) Open(name string) (fs.File, error) {
	if q.MapFS[name] == nil && !q.folders[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return q.MapFS.Open(name)
}

func (q quick) ReadDir(name string) ([]fs.DirEntry, error) {
	if !q.folders[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return q.MapFS.ReadDir(name)
}

func (q quick) Stat(name string) (fs.FileInfo, error) {
	if q.MapFS[name] == nil && !q.folders[name] {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return q.MapFS.Stat(name)
}

// spoil changes a few files of a machine.
func spoil(random *rand.Rand, root fstest.MapFS, names []string) fstest.MapFS {
	for range 1 + random.IntN(3) {
		name := names[random.IntN(len(names))]
		if root[name] == nil {
			continue // Deleted in the round before.
		}
		var data []byte
		switch random.IntN(6) {
		case 0:
			delete(root, name)
			continue
		case 1:
			if other := root[names[random.IntN(len(names))]]; other != nil {
				data = other.Data
			}
		case 2:
			data = root[name].Data[:random.IntN(len(root[name].Data)+1)]
		case 3:
			data = []byte(fmt.Sprint(random.Int64() >> random.IntN(64)))
		default:
			data = slices.Clone(root[name].Data)
			for range 1 + random.IntN(3) {
				at := random.IntN(len(data) + 1)
				data = slices.Insert(data, at, []byte("0123456789,-\n [K")[random.IntN(16)])
				if random.IntN(2) == 0 {
					at = random.IntN(len(data))
					data = slices.Delete(data, at, at+1)
				}
			}
		}
		root[name] = &fstest.MapFile{Data: data}
	}
	return root
}

// The fuzzer changes one file at a time.
func FuzzRead(f *testing.F) {
	machine := newQuick(shapes[len(shapes)-1].files())
	for i, name := range machine.names {
		f.Add(uint16(i), string(machine.MapFS[name].Data))
	}
	f.Fuzz(func(t *testing.T, which uint16, text string) {
		spoiled := machine
		spoiled.MapFS = maps.Clone(machine.MapFS)
		spoiled.MapFS[machine.names[int(which)%len(machine.names)]] = &fstest.MapFile{Data: []byte(text)}
		topo, err := Read(spoiled)
		if err == nil {
			err = consistent(topo)
		} else if at := new(FileError); errors.As(err, &at) {
			err = nil
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseList(f *testing.F) {
	f.Add("0-3,8\n")
	f.Add("3,1-2,1")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseList(text)
		if err != nil {
			return
		}
		for i := 1; i < len(l); i++ {
			if l[i-1] >= l[i] {
				t.Fatalf("%q becomes %v", text, []int(l))
			}
		}
		again, err := ParseList(l.String())
		if err != nil || !again.Equal(l) {
			t.Errorf("%q becomes %s becomes %s, %v", text, l, again, err)
		}
	})
}

func TestListSets(t *testing.T) {
	a, b := ListOf(5, 1, 3, 1), ListOf(3, 4)
	for _, tt := range []struct{ name, got, want string }{
		{"ListOf", a.String(), "1,3,5"}, {"And", a.And(b).String(), "3"}, {"Or", a.Or(b).String(), "1,3-5"},
		{"Minus", a.Minus(b).String(), "1,5"}, {"empty", List(nil).String(), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if a.Has(2) || !a.Has(5) {
		t.Error("Has is wrong")
	}
}
