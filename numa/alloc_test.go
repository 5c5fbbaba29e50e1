package numa

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// alloc gives memory until the end of the test.
func alloc[T any](t testing.TB, n int, o AllocOptions) *Block[T] {
	t.Helper()
	b, err := Alloc[T](n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := b.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return b
}

func placement[T any](t testing.TB, b *Block[T]) Placement {
	t.Helper()
	p, err := b.Placement()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each policy, as the kernel tells by move_pages: nothing is anywhere before the
// first touch, and all of it is where the policy says afterwards.
func TestPoliciesByMovePages(t *testing.T) {
	topo := local(t)
	const pages = 512
	words := pages * os.Getpagesize() / 8
	policies := []Policy{LocalPolicy(), Interleave(topo.MemoryNodes()...)}
	for _, node := range topo.MemoryNodes() {
		policies = append(policies, Bind(node), Prefer(node))
	}
	for _, policy := range policies {
		for _, huge := range []Huge{HugeNever, HugeTransparent} {
			for _, populate := range []bool{false, true} {
				name := fmt.Sprintf("%s, huge %d, populate %v", policy, huge, populate)
				b := alloc[uint64](t, words, AllocOptions{Policy: policy, Huge: huge, Populate: populate})
				if p := placement(t, b); !populate && p.Present() != 0 || populate && p.Absent != 0 {
					t.Errorf("%s: before the first touch: %s", name, p)
				}
				for i := range b.Slice() {
					if b.Slice()[i] != 0 {
						t.Fatalf("%s: word %d is not zero", name, i)
					}
					b.Slice()[i] = uint64(i)
				}
				p := placement(t, b)
				if p.Pages != pages || p.Absent != 0 {
					t.Errorf("%s: %s", name, p)
				}
				for _, n := range p.Nodes {
					if !policy.Nodes.Has(n.Node) && policy.Mode != ModeLocal {
						t.Errorf("%s: %s", name, p)
					}
				}
				if policy.Mode == ModeInterleave && huge == HugeNever && len(p.Nodes) != len(policy.Nodes) {
					t.Errorf("%s: %s", name, p)
				}
				if huge == HugeTransparent && uintptr(unsafe.Pointer(&b.Slice()[0]))%hugeBytes != 0 {
					t.Errorf("%s: starts at %p", name, &b.Slice()[0])
				}
			}
		}
	}
}

// On a machine with two nodes: memory is on its node whoever touches it, local
// memory is where it was touched, and interleaved memory is spread evenly.
func TestPlacementOnTwoNodes(t *testing.T) {
	topo, near, far := twoNodes(t)
	const pages = 1000
	bytes := pages * os.Getpagesize()
	err := bound(topo.UsableCPUs(near)[:1], func(int) error {
		touch := func(o AllocOptions) Placement {
			b := alloc[byte](t, bytes, o)
			for i := 0; i < bytes; i += os.Getpagesize() {
				b.Slice()[i] = 1
			}
			return placement(t, b)
		}
		for _, tt := range []struct {
			policy  Policy
			node    int
			percent float64
		}{
			{Bind(far), far, 100}, {Bind(near), near, 100}, {Prefer(far), far, 100}, {LocalPolicy(), near, 100},
			{Interleave(near, far), far, 50}, {Interleave(near, far), near, 50},
		} {
			if p := touch(AllocOptions{Policy: tt.policy}); p.Percent(tt.node) != tt.percent {
				t.Errorf("policy %s, touched from node %d: %s, want %g %% on node %d", tt.policy, near, p, tt.percent, tt.node)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Heap values built on a thread of either node; the share is reported and may be
// anything, but what is built by Go's heap must be seen.
func TestBuild(t *testing.T) {
	topo := local(t)
	for _, node := range topo.ComputeNodes() {
		value, landed, err := Build(topo, node, func() map[string][]int {
			m := map[string][]int{}
			for i := range 100 {
				m[fmt.Sprint("key ", i)] = make([]int, 10_000)
			}
			return m
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(value) != 100 || landed.Objects != 200 || landed.Truncated || landed.Placement.Pages < 100*10_000*8/os.Getpagesize() || landed.Placement.Absent > 0 {
			t.Errorf("node %d: %d values, %s", node, len(value), landed)
		}
		t.Log(landed)
	}
	if _, _, err := Build(topo, 99, func() int { return 1 }); err == nil {
		t.Error("a node that does not exist builds something")
	}
}

func TestWhereIsFollowsPointers(t *testing.T) {
	type link struct {
		next *link
		any  any
		text string
		more [2][]*int
	}
	loop := &link{any: map[int]*int{1: new(int)}, text: strings.Repeat("x", 3)}
	loop.next = &link{next: loop, more: [2][]*int{1: {new(int), nil}}}
	for _, tt := range []struct {
		name    string
		value   any
		objects int
	}{
		{"nothing", nil, 0}, {"a number", 1, 0}, {"a nil pointer", (*int)(nil), 0}, {"an empty struct", &struct{}{}, 0},
		{"a loop", loop, 2 + 1 + 1 + 1 + 1}, {"a slice of structs", []struct{ a, b string }{{"p", "q"}, {"r", "s"}}, 5},
		{"a function and a channel", struct {
			f func()
			c chan int
		}{func() {}, make(chan int)}, 0},
	} {
		landed, err := WhereIs(tt.value, 0)
		if err != nil || landed.Objects != tt.objects {
			t.Errorf("%s: %s, %v; want %d objects", tt.name, landed, err, tt.objects)
		}
	}
	var list *link
	for range maxObjects + 10 {
		list = &link{next: list}
	}
	if landed, err := WhereIs(list, 0); err != nil || !landed.Truncated || landed.Objects != maxObjects {
		t.Errorf("a long list: %d objects, truncated %v, %v", landed.Objects, landed.Truncated, err)
	}
}

func TestPointerFree(t *testing.T) {
	type inner struct {
		_    [0]*int
		Next []struct{ P *int }
	}
	for _, tt := range []struct {
		value any
		where string
		kind  reflect.Kind
	}{
		{1, "", reflect.Invalid}, {[3]struct{ A, B uint16 }{}, "", reflect.Invalid}, {struct{}{}, "", reflect.Invalid}, {[0]string{}, "", reflect.Invalid},
		{uintptr(0), "", reflect.Invalid}, {"", "", reflect.String}, {new(int), "", reflect.Pointer}, {[]int{}, "", reflect.Slice},
		{map[int]int{}, "", reflect.Map}, {func() {}, "", reflect.Func}, {make(chan int), "", reflect.Chan}, {unsafe.Pointer(nil), "", reflect.UnsafePointer},
		{struct{ A [2]struct{ B any } }{}, "A[].B", reflect.Interface}, {inner{}, "Next", reflect.Slice}, {[2][3]string{}, "[][]", reflect.String},
		{struct{ X struct{ Y string } }{}, "X.Y", reflect.String},
	} {
		err := PointerFree(reflect.TypeOf(tt.value))
		var pointer *PointerError
		if !errors.As(err, &pointer) {
			pointer = &PointerError{}
		}
		if (err == nil) != (tt.kind == reflect.Invalid) || pointer.Where != tt.where || pointer.Kind != tt.kind {
			t.Errorf("%T: %v, want %v in %q", tt.value, err, tt.kind, tt.where)
		}
	}
	if PointerFree(nil) == nil {
		t.Error("no type is free of pointers")
	}
}

func TestAllocRefuses(t *testing.T) {
	for name, try := range map[string]func() error{
		"pointers":          func() error { _, err := Alloc[string](1, AllocOptions{}); return err },
		"nothing":           func() error { _, err := Alloc[int](0, AllocOptions{}); return err },
		"less":              func() error { _, err := Alloc[int](-1, AllocOptions{}); return err },
		"too much":          func() error { _, err := Alloc[int](1<<62, AllocOptions{}); return err },
		"values of no size": func() error { _, err := Alloc[struct{}](1, AllocOptions{}); return err },
		"strange pages":     func() error { _, err := Alloc[int](1, AllocOptions{Huge: 9}); return err },
		"strange mode":      func() error { _, err := Alloc[int](1, AllocOptions{Policy: Policy{Mode: 9}}); return err },
		"no nodes":          func() error { _, err := Alloc[int](1, AllocOptions{Policy: Bind()}); return err },
		"a negative node":   func() error { _, err := Alloc[int](1, AllocOptions{Policy: Bind(-1)}); return err },
		"too large a node":  func() error { _, err := Alloc[int](1, AllocOptions{Policy: Bind(maxNodes)}); return err },
		"two preferred": func() error {
			_, err := Alloc[int](1, AllocOptions{Policy: Policy{ModePrefer, List{0, 1}}})
			return err
		},
		"local with nodes": func() error { _, err := Alloc[int](1, AllocOptions{Policy: Policy{Nodes: List{0}}}); return err },
		"a node that is not": func() error {
			_, err := Alloc[int](1, AllocOptions{Policy: Bind(maxNodes - 1)})
			var policy *PolicyError
			if !errors.As(err, &policy) || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "numa topo") {
				return nil
			}
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: no error, or not the right one", name)
		}
	}
}

func TestClosedBlock(t *testing.T) {
	b := alloc[int](t, 10, AllocOptions{})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Placement(); b.Slice() != nil || err == nil {
		t.Errorf("after Close: %v, %v", b.Slice(), err)
	}
}

// Reserved pages come from the pool, and when it is empty that is an error and
// not the end of the program.
func TestReservedHugePages(t *testing.T) {
	testkit.Need(t, testkit.HugePages)
	const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	before, err := os.ReadFile(pool)
	if err != nil {
		t.Fatal(err)
	}
	set := func(n string) {
		if err := os.WriteFile(pool, []byte(n), 0); err != nil {
			t.Fatal(err)
		}
	}
	defer set(strings.TrimSpace(string(before)))
	set("2")
	if now, err := os.ReadFile(pool); err != nil || strings.TrimSpace(string(now)) != "2" {
		testkit.Skip(t, testkit.HugePages, fmt.Sprintf("of 2 pages the kernel reserved %s, %v", strings.TrimSpace(string(now)), err))
	}
	b, err := Alloc[byte](hugeBytes+1, AllocOptions{Huge: HugeReserved})
	if err != nil {
		t.Fatal(err)
	}
	if p := placement(t, b); p.Absent != 0 || p.Pages != 2*hugeBytes/os.Getpagesize() {
		t.Errorf("placement: %s", p)
	}
	_, err = Alloc[byte](1, AllocOptions{Huge: HugeReserved})
	if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "nr_hugepages") {
		t.Errorf("from an empty pool: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlacementOfNothing(t *testing.T) {
	if p, err := SlicePlacement[int](nil); err != nil || p.Pages != 0 {
		t.Errorf("%s, %v", p, err)
	}
	one := make([]int, 1)
	one[0] = 1
	if p, err := SlicePlacement(one); err != nil || p.Pages != 1 || p.Present() != 1 {
		t.Errorf("%s, %v", p, err)
	}
}

// What asking for placement costs, by page.
func BenchmarkPlacement(b *testing.B) {
	const pages = 4096
	block := alloc[byte](b, pages*os.Getpagesize(), AllocOptions{Populate: true})
	for b.Loop() {
		placement(b, block)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
}
