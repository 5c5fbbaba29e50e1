package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/coreplica/coreplica/bpf/internal/object"
	"github.com/coreplica/coreplica/internal/kernelfs"
)

// AttachType is a way to attach a probe.
type AttachType string

// The ways to attach, cheapest first.
const (
	TPBTF         AttachType = "tp_btf"
	RawTracepoint AttachType = "raw_tp"
	Tracepoint    AttachType = "tracepoint"
)

// AttachTypes are all ways to attach, in order of preference.
func AttachTypes() []AttachType { return []AttachType{TPBTF, RawTracepoint, Tracepoint} }

// ErrRefused means that the kernel accepted no form of a probe. The error that
// wraps it lists each form with its reason.
var ErrRefused = errors.New("refused by the kernel")

// tracepoints says where each program belongs. Pinned programs carry no more
// than their name, so the section that they came from is kept here.
var tracepoints = map[string][2]string{
	"ledger_sched_switch":               {"sched", "sched_switch"},
	"ledger_irq_entry":                  {"irq", "irq_handler_entry"},
	"ledger_irq_exit":                   {"irq", "irq_handler_exit"},
	"ledger_softirq_entry":              {"irq", "softirq_entry"},
	"ledger_softirq_exit":               {"irq", "softirq_exit"},
	"ledger_work_start":                 {"workqueue", "workqueue_execute_start"},
	"ledger_sys_enter":                  {"raw_syscalls", "sys_enter"},
	"ledger_sys_exit":                   {"raw_syscalls", "sys_exit"},
	"vector_local_timer_entry":          {"irq_vectors", "local_timer_entry"},
	"vector_local_timer_exit":           {"irq_vectors", "local_timer_exit"},
	"vector_reschedule_entry":           {"irq_vectors", "reschedule_entry"},
	"vector_reschedule_exit":            {"irq_vectors", "reschedule_exit"},
	"vector_call_function_entry":        {"irq_vectors", "call_function_entry"},
	"vector_call_function_exit":         {"irq_vectors", "call_function_exit"},
	"vector_call_function_single_entry": {"irq_vectors", "call_function_single_entry"},
	"vector_call_function_single_exit":  {"irq_vectors", "call_function_single_exit"},
	"vector_irq_work_entry":             {"irq_vectors", "irq_work_entry"},
	"vector_irq_work_exit":              {"irq_vectors", "irq_work_exit"},
	"blockio_bio_queue":                 {"block", "block_bio_queue"},
	"blockio_bio_complete":              {"block", "block_bio_complete"},
	"blockio_backmerge":                 {"block", "block_bio_backmerge"},
	"blockio_frontmerge":                {"block", "block_bio_frontmerge"},
	"blockio_rq_issue":                  {"block", "block_rq_issue"},
	"blockio_rq_complete":               {"block", "block_rq_complete"},
}

// probe is a set of loaded programs and maps, from the embedded objects or from
// pins, and the links that attach them.
type probe struct {
	name     string
	form     AttachType
	programs map[string]*ebpf.Program
	maps     map[string]*ebpf.Map
	links    []link.Link
}

// change adjusts a spec before it is loaded; share replaces maps.
type loadOptions struct {
	forms  []AttachType
	change func(*ebpf.CollectionSpec)
	share  map[string]*ebpf.Map
	pinned string
}

// needsPrivilege is the commonest fix of a refusal.
const needsPrivilege = "it needs CAP_BPF and CAP_PERFMON, or root (see `coreplica doctor`)"

// open loads the named probe in the first form that loads and attaches, and
// leaves it attached.
func open(name string, o loadOptions) (*probe, error) {
	if o.pinned != "" {
		return openPinned(name, o.pinned, o.share)
	}
	forms := o.forms
	if len(forms) == 0 {
		forms = AttachTypes()
	}
	var refused []error
	for _, form := range forms {
		p, err := load(name, form, o)
		if err == nil {
			if err = p.attach(); err == nil {
				return p, nil
			}
			_ = p.Close()
		}
		refused = append(refused, fmt.Errorf("%s: %w", form, err))
	}
	return nil, fmt.Errorf("open probe %s: %w: %w; %s", name, ErrRefused, errors.Join(refused...), needsPrivilege)
}

func load(name string, form AttachType, o loadOptions) (*probe, error) {
	obj, err := object.Find(name + "." + string(form))
	if err != nil {
		return nil, err
	}
	spec, err := obj.Spec()
	if err != nil {
		return nil, fmt.Errorf("parse object %s: %w", obj.Name, err)
	}
	if o.change != nil {
		o.change(spec)
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: o.share})
	if err != nil {
		return nil, fmt.Errorf("load object %s: %w", obj.Name, err)
	}
	return &probe{name: name, form: form, programs: coll.Programs, maps: coll.Maps}, nil
}

// attach links every program that belongs to a tracepoint. Attached probes stay
// as they are. Classic tracepoints are found by files of tracefs, which is
// mounted for that while where the system has not.
func (p *probe) attach() (err error) {
	if len(p.links) > 0 {
		return nil
	}
	if p.form == Tracepoint {
		release, refused := kernelfs.Tracefs.Mount()
		if refused != nil {
			return refused
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	for name, prog := range p.programs {
		at, ok := tracepoints[name]
		if !ok {
			continue
		}
		l, err := attachOne(prog, at)
		if err != nil {
			_ = p.detach()
			return fmt.Errorf("attach %s to %s:%s: %w", name, at[0], at[1], err)
		}
		p.links = append(p.links, l)
	}
	return nil
}

func attachOne(prog *ebpf.Program, at [2]string) (link.Link, error) {
	switch prog.Type() {
	case ebpf.Tracing:
		return link.AttachTracing(link.TracingOptions{Program: prog})
	case ebpf.RawTracepoint:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: at[1], Program: prog})
	case ebpf.TracePoint:
		return link.Tracepoint(at[0], at[1], prog, nil)
	default:
		return nil, fmt.Errorf("program type %s does not attach to a tracepoint", prog.Type())
	}
}

func (p *probe) detach() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	return errors.Join(errs...)
}

// Close detaches and unloads. It is idempotent.
func (p *probe) Close() error {
	if p == nil {
		return nil
	}
	err := p.detach()
	for _, prog := range p.programs {
		_ = prog.Close()
	}
	for _, m := range p.maps {
		_ = m.Close()
	}
	p.programs, p.maps = nil, nil
	return err
}

// formOf reads the way to attach from a loaded program.
func formOf(prog *ebpf.Program) AttachType {
	switch prog.Type() {
	case ebpf.Tracing:
		return TPBTF
	case ebpf.RawTracepoint:
		return RawTracepoint
	default:
		return Tracepoint
	}
}

// Objects returns the compiled probes of this architecture by file name, as
// bpftool loads them.
func Objects() map[string][]byte {
	files := map[string][]byte{}
	for _, o := range object.All() {
		files["coreplica-"+strings.ReplaceAll(o.Name, ".", "-")+".bpf.o"] = o.Bytes
	}
	return files
}
