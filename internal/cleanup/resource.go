package cleanup

import (
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"regexp"
	"strings"
)

// Kind says what a [Resource] is, and so how it is removed.
type Kind string

// The kinds of things that a run makes.
const (
	KindDir     Kind = "dir"     // a folder with all that is in it
	KindFile    Kind = "file"    // one file
	KindPins    Kind = "pins"    // a folder on bpffs
	KindMount   Kind = "mount"   // a mount, by mount point
	KindLoop    Kind = "loop"    // a loop device, by backing file
	KindZram    Kind = "zram"    // a zram device, by a label of the run's choice
	KindArray   Kind = "array"   // an md array, by a label of the run's choice
	KindProcess Kind = "process" // a process, by number and start time
)

// Resource is one thing that a run makes. It is named by what is known before
// it exists: a loop device is known by its backing file, since its number is
// the kernel's choice.
type Resource struct {
	Kind Kind `json:"kind"`
	// Path of the file, folder, mount point or backing file; for a zram
	// device or an array its label. A path must have a folder in it, or be one, whose
	// name is the run's [Run.ID], or that and a dot and more: it is what
	// proves later whose it is.
	Path string `json:"path,omitempty"`
	// PID and StartTicks, since boot, tell a process from a later one of
	// the same number.
	PID        int    `json:"pid,omitempty"`
	StartTicks uint64 `json:"start_ticks,omitempty"`
}

func (r Resource) String() string {
	switch r.Kind {
	case KindProcess:
		return fmt.Sprintf("process %d", r.PID)
	case KindLoop:
		return "loop device over " + r.Path
	case KindZram:
		return fmt.Sprintf("zram device %q", r.Path)
	case KindArray:
		return fmt.Sprintf("md array %q", r.Path)
	case KindMount:
		return "mount on " + r.Path
	case KindPins:
		return "pinned BPF objects in " + r.Path
	}
	return string(r.Kind) + " " + r.Path
}

// Prefix begins the name of everything that coreplica makes.
const Prefix = "coreplica-"

// idPattern is what [Open] makes and [Clean] believes.
var idPattern = regexp.MustCompile(`^` + Prefix + `([1-9][0-9]{0,9})-[0-9a-f]{16}$`)

// maxPath is the kernel's PATH_MAX. It bounds a record of the journal.
const maxPath = 4096

// errNotOurs is returned for a name that could never be proved to be a run's.
var errNotOurs = errors.New("does not carry the run's identity")

// check refuses what could not be found and proved later.
func (r Resource) check(id string) error {
	switch r.Kind {
	case KindDir, KindFile, KindPins, KindMount, KindLoop:
		if r.PID != 0 || r.StartTicks != 0 {
			return fmt.Errorf("%s: is not a process", r)
		}
		if !owned(r.Path, id) {
			return fmt.Errorf("%s: %w: the path needs a folder named %s", r, errNotOurs, id)
		}
	case KindZram, KindArray:
		if r.Path == "" || len(r.Path) > maxPath || r.PID != 0 || r.StartTicks != 0 {
			return fmt.Errorf("%s: is named by a label alone", r)
		}
	case KindProcess:
		if r.PID <= 1 || r.StartTicks == 0 || r.Path != "" {
			return fmt.Errorf("process %d: is named by its number and start time, see Process", r.PID)
		}
	default:
		return fmt.Errorf("unknown kind %q", r.Kind)
	}
	return nil
}

// owned reports whether a path is below, or is, a folder named after the run:
// its identity, or that with a dot and more.
// A path with dots in it could lead out again, so only clean ones count.
func owned(path, id string) bool {
	if len(path) > maxPath || !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsAny(path, "\x00\n") {
		return false
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if name == id || strings.HasPrefix(name, id+".") {
			return true
		}
	}
	return false
}

// zramTag is the memory limit, in bytes, that marks a run's zram device. It lies
// between 2 and 4 EiB, so it never limits anything, and a run's devices differ.
func zramTag(id, label string) uint64 {
	const pageShift = 16 // The largest page of any architecture that we build for.
	h := fnv.New64a()
	h.Write([]byte(id + "/" + label)) // A hash's Write never fails.
	return 1<<61 | h.Sum64()>>3>>pageShift<<pageShift
}
