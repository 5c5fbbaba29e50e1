package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Kind says what a record tells.
type Kind uint8

const (
	// Submitting stands before a task is handed to the queue.
	Submitting Kind = iota + 1
	// Acknowledged says that the queue took the task.
	Acknowledged
	// Refused says that it did not and never will.
	Refused
	// Cancelling stands before a cancellation.
	Cancelling
	// Cancelled says that the queue promised that the task will not start.
	Cancelled
	// CancelLate says that the task had begun or ended before.
	CancelLate
	// Began is the first thing that a handler does.
	Began
	// Ended is the last.
	Ended
	// Accepting stands before a worker hands a result to the protocol.
	Accepting
	// Accepted says that a result is in every in-sync copy.
	Accepted
	// Seen says that the submitter was given a result.
	Seen
	// Lost says that the queue reported the task as lost.
	Lost
	// Fenced says that a publish of this worker failed on the fence.
	Fenced
	// Failed says that this worker killed itself between two steps of a
	// takeover of Worker's queue; Attempt is the step.
	Failed
	// Killed says that a worker was sent SIGKILL.
	Killed
	// Stopped is a SIGSTOP.
	Stopped
	// Continued is the SIGCONT after it.
	Continued
	// Inherited is the first claim after a takeover of Worker's queue.
	Inherited
	kinds
)

var kindNames = [kinds]string{"", "submitting", "acknowledged", "refused", "cancelling", "cancelled", "cancel-late", "began", "ended",
	"accepting", "accepted", "seen", "lost", "fenced", "failed", "killed", "stopped", "continued", "inherited"}

func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Mode is a task's dispatch mode, as the trial chose it.
type Mode uint8

const (
	// AtLeastOnce tasks are tried until one attempt ends.
	AtLeastOnce Mode = iota
	// AtMostOnce tasks are started once, and reported if their core fails.
	AtMostOnce
	// OnceRecorded tasks have one accepted result and a fencing token.
	OnceRecorded
)

// Record is one line of a journal.
type Record struct {
	Kind Kind
	Mode Mode
	// Worker is the core of the process that wrote it, or that it is about.
	Worker uint16
	// PID is the process that wrote it, and Doer the one that ran the attempt.
	PID, Doer uint32
	// Task is the number that the trial gave to the task.
	Task    uint64
	Attempt uint32
	Token   uint32
	// TimeNs is when, by CLOCK_MONOTONIC.
	TimeNs int64
}

// RecordBytes is the size of a record in a file: two fit into a cache line, and no
// page boundary goes through one.
const RecordBytes = 64

const magic = 0xc0de_d0e5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendTo appends the record as it stands in a file.
func (r Record) AppendTo(b []byte) []byte {
	var buf [RecordBytes]byte
	le := binary.LittleEndian
	le.PutUint32(buf[0:], magic)
	buf[4], buf[5] = byte(r.Kind), byte(r.Mode)
	le.PutUint16(buf[6:], r.Worker)
	le.PutUint32(buf[8:], r.PID)
	le.PutUint64(buf[16:], r.Task)
	le.PutUint32(buf[24:], r.Attempt)
	le.PutUint32(buf[28:], r.Token)
	le.PutUint64(buf[32:], uint64(r.TimeNs))
	le.PutUint32(buf[40:], r.Doer)
	le.PutUint32(buf[60:], crc32.Checksum(buf[:60], castagnoli))
	return append(b, buf[:]...)
}

// ErrJournal is wrapped by errors about a journal that no crash explains.
var ErrJournal = errors.New("damaged journal")

// Parse reads the records of a file. A last record that is cut off is a process
// that died while it wrote, which torn reports. Anything else that is not a record
// is an error: journals are what the verdict rests on.
func Parse(data []byte) (records []Record, torn bool, err error) {
	le := binary.LittleEndian
	for at := 0; at < len(data); at += RecordBytes {
		if len(data)-at < RecordBytes {
			return records, true, nil
		}
		buf := data[at : at+RecordBytes]
		if le.Uint32(buf) != magic || le.Uint32(buf[60:]) != crc32.Checksum(buf[:60], castagnoli) {
			return records, false, fmt.Errorf("read record at %d: %w", at, ErrJournal)
		}
		r := Record{
			Doer: le.Uint32(buf[40:]),
			Kind: Kind(buf[4]), Mode: Mode(buf[5]), Worker: le.Uint16(buf[6:]), PID: le.Uint32(buf[8:]), Task: le.Uint64(buf[16:]),
			Attempt: le.Uint32(buf[24:]), Token: le.Uint32(buf[28:]), TimeNs: int64(le.Uint64(buf[32:])),
		}
		if r.Kind == 0 || r.Kind >= kinds || r.Mode > OnceRecorded {
			return records, false, fmt.Errorf("read record at %d: kind %d, mode %d: %w", at, r.Kind, r.Mode, ErrJournal)
		}
		records = append(records, r)
	}
	return records, false, nil
}

// Now reads the clock that all journals share, in nanoseconds.
func Now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // It cannot fail for this clock.
	return ts.Nano()
}

// Writer appends to the journal of a process. Its methods may be called by several
// goroutines at once.
type Writer struct {
	mu   sync.Mutex
	file *os.File
	buf  []byte
	pid  uint32
}

// Create opens this process's journal in a directory.
func Create(dir string) (*Writer, error) {
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("journal-%d", os.Getpid())), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return &Writer{file: file, pid: uint32(os.Getpid())}, nil
}

// Append writes records by one system call. When it returns, they survive the
// process. A time of zero becomes now.
func (w *Writer) Append(records ...Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = w.buf[:0]
	now := Now()
	for _, r := range records {
		r.PID = w.pid
		if r.TimeNs == 0 {
			r.TimeNs = now
		}
		w.buf = r.AppendTo(w.buf)
	}
	if _, err := w.file.Write(w.buf); err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	return nil
}

// Close closes the file and leaves it there.
func (w *Writer) Close() error { return w.file.Close() }

// ReadDir reads all journals of a directory, and says how many end in a torn
// record.
func ReadDir(dir string) (records []Record, torn int, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "journal-*"))
	if err != nil {
		return nil, 0, fmt.Errorf("list journals: %w", err)
	}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return nil, 0, fmt.Errorf("open journal: %w", err)
		}
		data, err := io.ReadAll(file)
		_ = file.Close() // Nothing was written.
		if err != nil {
			return nil, 0, fmt.Errorf("read journal: %w", err)
		}
		some, cut, err := Parse(data)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		if cut {
			torn++
		}
		records = append(records, some...)
	}
	return records, torn, nil
}
