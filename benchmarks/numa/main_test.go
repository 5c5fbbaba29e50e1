package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coreplica/coreplica/numa/replicated/bench"
)

// Each implementation must give what the bare structure gives, or its speed says
// nothing.
func TestPeersAgree(t *testing.T) {
	const keys = 100
	for _, s := range structures() {
		var instances []bench.Instance
		var names []string
		for _, im := range implementations() {
			if !im.Serves(s, keys) {
				continue
			}
			inst, err := im.New(s, keys, 2)
			if err != nil {
				t.Fatal(err)
			}
			if inst.Close != nil {
				defer inst.Close()
			}
			instances, names = append(instances, inst), append(names, im.Name)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for step := range 2000 {
			worker, key, value := rng.IntN(2), rng.Uint64N(keys), rng.Uint64N(1000)
			var want uint64
			for i, inst := range instances {
				if step%2 == 0 {
					inst.Put(worker, key, value)
				}
				if got := inst.Get(worker, key); i == 0 {
					want = got
				} else if got != want {
					t.Fatalf("%s, step %d: %s gives %d, the bare structure %d", s.Name, step, names[i], got, want)
				}
			}
		}
	}
}

func TestOutputs(t *testing.T) {
	args := []string{"-structure", "hashmap", "-impl", "xsync,map1", "-keys", "1000", "-write", "10", "-threads", "1",
		"-dist", "uniform", "-blocks", "2", "-length", "1ms", "-o"}
	for _, tt := range []struct{ format, want string }{
		{"table", "xsync"}, {"json", `"impl":"xsync"`},
		{"bench", "BenchmarkReplicated/hashmap/keys=1000/write=10/threads=1/dist=uniform/impl=xsync 1 "},
	} {
		var out, log bytes.Buffer
		if err := run(append(slices.Clone(args), tt.format), &out, &log); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(out.String(), "\n"); lines != 3 || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s has %d lines:\n%s", tt.format, lines, out.String())
		}
		if tt.format == "json" {
			var r struct {
				NsPerOp float64 `json:"ns_per_op"`
			}
			if err := json.NewDecoder(&out).Decode(&r); err != nil || r.NsPerOp <= 0 {
				t.Errorf("read back %+v, %v", r, err)
			}
		}
	}
	for _, bad := range [][]string{{"-o", "xml"}, {"-keys", "many"}, {"-structure", "rope"}, {"-x"}} {
		if err := run(bad, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// The claim about xsync, on a machine of its own: COREPLICA_TRIAL=1.
func TestTrialOfMapReadsAgainstXsync(t *testing.T) {
	if os.Getenv("COREPLICA_TRIAL") == "" {
		t.Skip(`SKIP coreplica feature=trial reason="COREPLICA_TRIAL is not set"`)
	}
	contenders := slices.DeleteFunc(implementations(), func(im bench.Implementation) bool {
		return im.Name != "xsync" && im.Name != "map1"
	})
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d threads", workers), func(t *testing.T) {
			const most, tries = 1.3, 3
			for range tries {
				results, err := bench.Compare(structures()[0], contenders, bench.Case{Keys: 1000, Workers: workers}, bench.Plan{Base: "xsync", Blocks: 20})
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range results {
					t.Logf("%-8s %6.1f ns/op, ratio %.2f [%.2f, %.2f]", r.Implementation, r.NsPerOp, r.Ratio, r.Low, r.High)
					if r.Implementation == "map1" && r.Low <= most {
						return
					}
				}
			}
			t.Errorf("reads of a replicated map take more than %g times as long as xsync's, in each of %d tries", most, tries)
		})
	}
}
