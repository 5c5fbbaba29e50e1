package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

// Each implementation must give what the bare structure gives, or its speed says
// nothing.
func TestImplementationsAgree(t *testing.T) {
	const keys = 100
	for _, s := range Structures() {
		var instances []Instance
		var names []string
		for _, im := range Implementations() {
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
		for step := range 5000 {
			worker, key, value := rng.IntN(2), rng.Uint64N(keys), rng.Uint64N(1000)
			write := rng.IntN(2) == 0
			var want uint64
			for i, inst := range instances {
				if write {
					inst.Put(worker, key, value)
				}
				got := inst.Get(worker, key)
				if i == 0 {
					want = got
				} else if got != want {
					t.Fatalf("%s, step %d: %s gives %d, the bare structure %d", s.Name, step, names[i], got, want)
				}
			}
		}
	}
}

// Copy-on-write is measured where a block holds more than a write or two, and only of
// what can be copied. What it copies shares nothing: a reader's copy stays as it was.
func TestCopyOnWrite(t *testing.T) {
	i := slices.IndexFunc(Implementations(), func(im Implementation) bool { return im.Name == "cow" })
	cow := Implementations()[i]
	for _, s := range Structures() {
		if !cow.Serves(s, 1000) || cow.Serves(s, 1_000_000) || cow.Serves(Structure{Name: s.Name, New: s.New}, 1000) {
			t.Errorf("%s: served with 1,000 keys %v, with 1,000,000 %v", s.Name, cow.Serves(s, 1000), cow.Serves(s, 1_000_000))
		}
		const keys = 300
		store := s.New(keys)
		content := func(s Store) (all []uint64) {
			for k := range uint64(keys) {
				all = append(all, s.Get(k))
			}
			return all
		}
		before := content(store)
		clone := s.Clone(store)
		if !slices.Equal(content(clone), before) {
			t.Errorf("%s: a clone differs", s.Name)
		}
		for k := range uint64(keys) {
			clone.Put(k, k+7)
		}
		if !slices.Equal(content(store), before) {
			t.Errorf("%s: writes to a clone change the original", s.Name)
		}
		if slices.Equal(content(clone), before) {
			t.Errorf("%s: writes change nothing: the test is blind", s.Name)
		}
	}
}

// The LRU cache against one that anybody can check: a list in order of age.
func TestLRUAgainstAList(t *testing.T) {
	l := newLRU(20)
	var ages []uint64 // the youngest first
	for k := range uint64(10) {
		ages = append(ages, k)
	}
	values := map[uint64]uint64{}
	for _, k := range ages {
		values[k] = k
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for step := range 10000 {
		key, value := rng.Uint64N(20), rng.Uint64()
		l.Put(key, value)
		next := []uint64{key}
		for _, k := range ages {
			if k != key {
				next = append(next, k)
			}
		}
		ages = next[:10]
		values[key] = value
		for k := range uint64(20) {
			want := uint64(0)
			for _, a := range ages {
				if a == k {
					want = values[k]
				}
			}
			if got := l.Get(k); got != want {
				t.Fatalf("step %d: key %d gives %d, want %d", step, k, got, want)
			}
		}
	}
}

// A comparison must see a difference that is there, and none that is not.
func TestCompareSeesADifference(t *testing.T) {
	slow := func(name string, extra int) Implementation {
		return Implementation{Name: name, New: func(Structure, int, int) (Instance, error) {
			work := func() (n uint64) {
				for i := range 100 + extra {
					n = n*31 + uint64(i)
				}
				return n
			}
			return Instance{Get: func(int, uint64) uint64 { return work() }, Put: func(int, uint64, uint64) { work() }}, nil
		}}
	}
	testkit.Quiet(t, 5, func() string {
		results, err := Compare(Structure{Name: "work"}, []Implementation{slow("a", 0), slow("b", 0), slow("c", 900)},
			Case{Keys: 10, Workers: 1}, Plan{Base: "a", Blocks: 10, Length: 2 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if b := results[1]; b.Low > 2 || b.High < 0.5 {
			return fmt.Sprintf("the same work differs by %.2f to %.2f", b.Low, b.High)
		}
		if c := results[2]; c.Low < 2 {
			return fmt.Sprintf("ten times the work differs by %.2f to %.2f only", c.Low, c.High)
		}
		return ""
	})
	if _, err := Compare(Structure{}, nil, Case{Keys: 10}, Plan{Base: "a"}); err == nil {
		t.Error("a comparison with nothing gave no error")
	}
}

func TestScriptsKeepToTheirCase(t *testing.T) {
	for _, c := range Cases() {
		writes := 0
		for _, s := range c.scripts(1) {
			for _, op := range s {
				if op>>1 >= uint64(c.Keys) {
					t.Fatalf("%v: key %d", c, op>>1)
				}
				writes += int(op & 1)
			}
		}
		got := float64(100*writes) / float64(scriptOps*c.Workers)
		if want := float64(c.WritePercent); got < want-1 || got > want+1 {
			t.Errorf("%v: %g percent of writes", c, got)
		}
	}
}
