package bpf

import (
	"encoding/binary"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/coreplica/coreplica/bpf/internal/object"
)

// The Go types have the layout of the objects' own types, in each form.
func TestLayout(t *testing.T) {
	tests := []struct {
		probe, name string
		goType      any
	}{
		{"ledger", "cpu", cpuState{}},
		{"ledger", "name", nameKey{}},
		{"blockio", "device", deviceCounts{}},
		{"stacks", "sample", sampleKey{}},
	}
	for _, o := range object.All() {
		spec, err := o.Spec()
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			if !strings.HasPrefix(o.Name, tt.probe+".") {
				continue
			}
			t.Run(o.Name+"/"+tt.name, func(t *testing.T) {
				var c *btf.Struct
				if err := spec.Types.TypeByName(tt.name, &c); err != nil {
					t.Fatal(err)
				}
				compareLayout(t, c, reflect.TypeOf(tt.goType))
			})
		}
	}
}

// compareLayout compares with the packed form of a Go type, which is how the
// map library writes it.
func compareLayout(t *testing.T, c *btf.Struct, g reflect.Type) {
	if int(c.Size) != binary.Size(reflect.Zero(g).Interface()) || len(c.Members) != g.NumField() {
		t.Fatalf("C has %d bytes in %d fields, Go %s", c.Size, len(c.Members), g)
	}
	offset := 0
	for i, m := range c.Members {
		f := g.Field(i)
		// exec_scale and ExecScale are the same name.
		if plain := strings.ReplaceAll(m.Name, "_", ""); !strings.EqualFold(plain, f.Name) {
			t.Errorf("field %d is %s in C and %s in Go", i, m.Name, f.Name)
		}
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		goSize := binary.Size(reflect.Zero(f.Type).Interface())
		if int(m.Offset.Bytes()) != offset || size != goSize {
			t.Errorf("%s is %d bytes at %d in C, and %d at %d in Go", m.Name, size, m.Offset.Bytes(), goSize, offset)
		}
		offset += goSize
	}
}

// The numbers of contexts, flags and events are the same on both sides. The
// objects are compiled from this header; see package object's test.
func TestNumbers(t *testing.T) {
	header, err := os.ReadFile("src/ledger.h")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"CTX_UNKNOWN": ctxUnknown, "CTX_IDLE": ctxIdle, "CTX_LOAD_USER": ctxLoadUser, "CTX_LOAD_KERNEL": ctxLoadKernel,
		"CTX_SELF": ctxSelf, "CTX_OTHER": ctxOther, "CTX_STOLEN": ctxStolen, "CTX_WORKER_IDLE": ctxWorkerIdle,
		"CTX_OVERFLOW": ctxOverflow, "CTX_SOFTIRQ": ctxSoftirq, "CTX_VECTOR": ctxVector,
		"CTX_FIRST_NAMED": ctxFirstNamed, "CTX_MAX": ctxMax,
		"FLAG_IRQ_TIME": flagIRQTime, "EVENT_MAX": len(eventNames),
		"VECTOR_IRQ_WORK": len(vectorNames) - 1,
	}
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^\t([A-Z_]+) = (\d+),`).FindAllStringSubmatch(string(header), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if expect, ok := want[m[1]]; ok {
			found++
			if n != expect {
				t.Errorf("%s is %d in C and %d in Go", m[1], n, expect)
			}
		} else if strings.HasPrefix(m[1], "CTX_") {
			t.Errorf("Go knows no %s", m[1])
		}
	}
	if found != len(want) {
		t.Errorf("the header has %d of the %d numbers that Go uses", found, len(want))
	}
}
