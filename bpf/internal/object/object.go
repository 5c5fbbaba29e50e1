package object

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Object is one compiled probe.
type Object struct {
	// Name is the probe's name with its way to attach, e.g. "ledger.tp_btf".
	Name string
	// Bytes is the ELF file, as bpftool loads it.
	Bytes []byte
	spec  func() (*ebpf.CollectionSpec, error)
}

// Spec parses the object.
func (o Object) Spec() (*ebpf.CollectionSpec, error) { return o.spec() }

// All returns every object of this architecture.
func All() []Object {
	return append([]Object{
		{"ledger.tp_btf", _LedgerBTFBytes, loadLedgerBTF},
		{"ledger.raw_tp", _LedgerRawBytes, loadLedgerRaw},
		{"ledger.tracepoint", _LedgerEventBytes, loadLedgerEvent},
		{"blockio.tp_btf", _BlockioBTFBytes, loadBlockioBTF},
		{"blockio.raw_tp", _BlockioRawBytes, loadBlockioRaw},
		{"blockio.tracepoint", _BlockioEventBytes, loadBlockioEvent},
		{"stacks.perf_event", _StacksBytes, loadStacks},
	}, vectors()...)
}

// Find returns the object of that name.
func Find(name string) (Object, error) {
	for _, o := range All() {
		if o.Name == name {
			return o, nil
		}
	}
	return Object{}, fmt.Errorf("find probe object: none is called %q on this architecture", name)
}
