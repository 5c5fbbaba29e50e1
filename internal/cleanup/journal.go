package cleanup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// maxJournalBytes bounds what a run may record and what Clean will read: about
// five thousand things made and removed.
const maxJournalBytes = 1 << 20

// The operations of a journal.
const (
	opRun  = "run"  // the first line: whose journal it is
	opAdd  = "add"  // about to be made
	opDone = "done" // is removed
)

// record is one line of a journal.
type record struct {
	Op string `json:"op"`
	*Resource

	// ID, Boot: the first line's alone.
	ID   string `json:"id,omitempty"`
	Boot string `json:"boot,omitempty"`

	// AtNs is when a zram device was about to be made and Zrams are those
	// that were there then. The kernel chooses its number and gives no time
	// to mark it: see findZram.
	AtNs  int64    `json:"at_ns,omitempty"`
	Zrams []string `json:"zrams,omitempty"`
}

// line is the record as it stands in the file.
func (r record) line() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	return append(text, '\n'), nil
}

// journal is what a file says: whose it is, and what is not yet removed, in the
// order in which it was made.
type journal struct {
	ID   string
	Boot string
	Open []record
}

// parseJournal reads the journal of the run id. A last line without its end is
// an intent that was never completed, so nothing was made by it. A line that
// makes no sense is left out and becomes part of the error; what the others say
// stands.
func parseJournal(text []byte, id string) (*journal, error) {
	j := &journal{}
	var errs []error
	if len(text) > maxJournalBytes {
		errs = append(errs, fmt.Errorf("read journal: it has %d bytes, more than %d; the rest is not read", len(text), maxJournalBytes))
		text = text[:maxJournalBytes]
	}
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			break
		}
		text = rest
		if err := j.apply(line, id, n == 1); err != nil {
			errs = append(errs, fmt.Errorf("read journal, line %d: %w", n, err))
		}
	}
	return j, errors.Join(errs...)
}

func (j *journal) apply(line []byte, id string, first bool) error {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	if r.Op == opRun {
		if !first || r.ID != id {
			return fmt.Errorf("it belongs to run %q", r.ID)
		}
		j.ID, j.Boot = r.ID, r.Boot
		return nil
	}
	if r.Resource == nil {
		return fmt.Errorf("operation %q names nothing", r.Op)
	}
	if err := r.Resource.check(id); err != nil {
		return err
	}
	at := slices.IndexFunc(j.Open, func(o record) bool { return *o.Resource == *r.Resource })
	switch r.Op {
	case opAdd:
		if at < 0 {
			j.Open = append(j.Open, r)
		}
	case opDone:
		if at >= 0 {
			j.Open = slices.Delete(j.Open, at, at+1)
		}
	default:
		return fmt.Errorf("unknown operation %q", r.Op)
	}
	return nil
}
