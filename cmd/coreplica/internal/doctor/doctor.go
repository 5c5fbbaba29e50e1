package doctor

import (
	"io/fs"
)

// Schema names the version of the JSON form.
const Schema = "coreplica.doctor/1"

// Status is the outcome of a check.
type Status string

// The outcomes. Miss means that something useful is not there, Warn that it is
// there and a reader of figures must know about it, Info that it is a fact
// without a judgement.
const (
	OK   Status = "ok"
	Miss Status = "miss"
	Warn Status = "warn"
	Info Status = "info"
)

// Check is one thing that was looked at.
type Check struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Status  Status `json:"status"`
	// Needed is true for what `coreplica mirrorcost run` with its defaults
	// cannot do without.
	Needed bool   `json:"needed"`
	Detail string `json:"detail"`
	// Consequence and Fix are set for a miss or a warning.
	Consequence string `json:"consequence,omitempty"`
	Fix         string `json:"fix,omitempty"`
}

// Report is what an examination found.
type Report struct {
	Schema  string  `json:"schema"`
	Version string  `json:"version"`
	Checks  []Check `json:"checks"`
	// CanRun is true when nothing that is needed is missing.
	CanRun bool `json:"can_run"`
}

// Machine is what an examination looks at. [Local] returns this one; tests put
// fixtures in its place.
type Machine struct {
	// Root looks like the file system of the machine, from /.
	Root fs.FS
	// UID is the effective user.
	UID int
	// Attach loads and attaches a BPF program of a kind of package
	// attachcheck, and detaches it.
	Attach func(kind string) error
	// Cycles opens a hardware counter.
	Cycles func() error
	// LookPath finds a command.
	LookPath func(name string) (string, error)
	// CPUs is the number of CPUs that this process may run on.
	CPUs int
	// Arch is Go's name of the architecture.
	Arch string
	// Identities are the opinions of the CPUID libraries, the one to trust
	// first.
	Identities []Identity
}

// Examine looks at everything.
func Examine(m Machine, version string) Report {
	e := &examination{Machine: m}
	for _, part := range []struct {
		name string
		look func(*examination)
	}{
		{"kernel", (*examination).kernel},
		{"privileges", (*examination).privileges},
		{"BPF", (*examination).bpf},
		{"symbols and counters", (*examination).counters},
		{"file systems", (*examination).mounts},
		{"mirrors", (*examination).mirrors},
		{"tools", (*examination).tools},
		{"CPU", (*examination).cpu},
	} {
		e.section = part.name
		part.look(e)
	}
	report := Report{Schema: Schema, Version: version, Checks: e.checks, CanRun: true}
	for _, check := range e.checks {
		if check.Needed && check.Status == Miss {
			report.CanRun = false
		}
	}
	return report
}

// examination collects checks.
type examination struct {
	Machine
	section string
	checks  []Check
}

func (e *examination) add(c Check) {
	c.Section = e.section
	e.checks = append(e.checks, c)
}

func (e *examination) ok(name, detail string) { e.add(Check{Name: name, Status: OK, Detail: detail}) }

func (e *examination) info(name, detail string) {
	e.add(Check{Name: name, Status: Info, Detail: detail})
}

// lack adds a check that is fine when there is no complaint, and otherwise has
// the consequence and the fix of c.
func (e *examination) lack(c Check, complaint, fine string) {
	if complaint == "" {
		c.Status, c.Detail, c.Consequence, c.Fix = OK, fine, "", ""
	} else {
		c.Detail = complaint
		if c.Status == "" {
			c.Status = Miss
		}
	}
	e.add(c)
}
