package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The program re-executes itself as a hog that burns CPU until it is killed.
func TestMain(m *testing.M) {
	if os.Getenv("COREPLICA_TEST_HOG") != "" {
		for {
		}
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	for _, form := range AttachTypes() {
		t.Run(string(form), func(t *testing.T) {
			l, err := OpenLedger(LedgerOptions{Forms: []AttachType{form}})
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer l.Close()
			hog := exec.Command("/proc/self/exe")
			hog.Env = append(os.Environ(), "COREPLICA_TEST_HOG=1", "GOMAXPROCS=1")
			if err := hog.Start(); err != nil {
				t.Fatal(err)
			}
			defer hog.Wait()
			defer hog.Process.Kill()
			time.Sleep(50 * time.Millisecond)
			if err := l.Start(0, os.Getpid()); err != nil {
				t.Fatal(err)
			}
			a, err := l.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			s0 := schedstat(hog.Process.Pid)
			time.Sleep(time.Second)
			s1 := schedstat(hog.Process.Pid)
			b, err := l.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			d, err := b.Since(a)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println(l.Attached(), "wall", d.WallNs, "sum", d.SumNs(), "hog", s1-s0, d.Events)
			for id, ns := range d.Ns {
				fmt.Printf("   %-30s %d\n", l.ContextName(id), ns)
			}
		})
	}
}

func schedstat(pid int) (ns int64) {
	es, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, e := range es {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, e.Name()))
		f := strings.Fields(string(b))
		n, _ := strconv.ParseInt(f[0], 10, 64)
		ns += n
	}
	return ns
}
