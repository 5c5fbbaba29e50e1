package cleanup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// EnvName is the environment variable that marks the processes of a run; see
// [Run.Env].
const EnvName = "COREPLICA_RUN"

// closeTime bounds what [Run.Close] may wait for devices and processes.
const closeTime = 30 * time.Second

// Options of [Open] and [Clean]. The zero value is the machine's usual place.
type Options struct {
	// Root is the folder that holds the runs. Empty means /run/coreplica,
	// or a folder of the user's own below the temporary folder where /run
	// cannot be written to.
	Root string
	// Logger gets what is removed; nil is silent.
	Logger *slog.Logger
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// Run is a live run's record of what it made. Its methods may be called from
// several goroutines.
type Run struct {
	id     string
	root   root
	logger *slog.Logger

	mu        sync.Mutex
	lock      *os.File // held until Close
	exclusive *os.File // nil unless held
	journal   *os.File
	bytes     int // written to the journal
	open      []record
	closed    bool
}

// Open begins a run: it makes the run's folder, locks it and starts the journal.
func Open(ctx context.Context, o Options) (*Run, error) {
	var errs []error
	for _, candidate := range o.roots() {
		place, err := candidate.make()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return open(ctx, place, o.logger())
	}
	return nil, fmt.Errorf("open run: %w", errors.Join(errs...))
}

func open(ctx context.Context, place root, logger *slog.Logger) (_ *Run, err error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	r := &Run{
		id:     fmt.Sprintf("%s%d-%s", Prefix, os.Getpid(), hex.EncodeToString(random[:])),
		root:   place,
		logger: logger,
	}
	// Without this lock Clean could see the folder before its own lock is
	// held, and take the run for a dead one.
	release, err := place.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := os.Mkdir(r.Dir(), 0o700); err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	if err := r.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open run: %w", err), r.letGo(), os.RemoveAll(r.Dir()))
	}
	return r, nil
}

func (r *Run) begin(ctx context.Context) (err error) {
	if r.lock, err = lock(ctx, filepath.Join(r.Dir(), "lock"), false); err != nil {
		return err
	}
	r.journal, err = os.OpenFile(r.journalPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make journal: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	return r.write(record{Op: opRun, ID: r.id, Boot: boot})
}

// ID is the run's identity, "coreplica-PID-RANDOM". Whatever the run makes
// outside of its folder must lie in a folder of this name.
func (r *Run) ID() string { return r.id }

// Dir is the run's own folder. Only its owner can enter it.
func (r *Run) Dir() string { return filepath.Join(string(r.root), r.id) }

// Env marks a process as the run's: it belongs into the environment of each
// child, so that a child is found even if the run was killed before it could
// record it.
func (r *Run) Env() string { return EnvName + "=" + r.id }

// ZramLimit is the value that must be written to the mem_limit of a new zram
// device, first of all, to mark it as the run's.
func (r *Run) ZramLimit(label string) uint64 { return zramTag(r.id, label) }

func (r *Run) journalPath() string { return filepath.Join(r.Dir(), "journal") }

// AcquireExclusive makes this run the only one of its kind on the machine until
// Close, or returns an error that wraps [ErrBusy] and names the holder.
func (r *Run) AcquireExclusive() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	if r.exclusive != nil {
		return nil
	}
	var err error
	r.exclusive, err = r.root.exclusive()
	return err
}

var errClosed = errors.New("the run is closed")

// Add records that a thing is about to be made. Nothing may be made if it fails.
func (r *Run) Add(resource Resource) error {
	if err := resource.check(r.id); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.find(resource) >= 0 {
		return fmt.Errorf("record: %s is recorded already", resource)
	}
	rec := record{Op: opAdd, Resource: &resource}
	if resource.Kind == KindZram {
		names, err := zramNames()
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		rec.AtNs, rec.Zrams = time.Now().UnixNano(), names
	}
	if err := r.write(rec); err != nil {
		return fmt.Errorf("record %s: %w", resource, err)
	}
	r.open = append(r.open, rec)
	return nil
}

// Done records that a thing is no more, or was never made.
func (r *Run) Done(resource Resource) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done(resource)
}

func (r *Run) done(resource Resource) error {
	at := r.find(resource)
	if at < 0 {
		return nil
	}
	if r.closed {
		// Close has tried before, and failed with this one: its record is
		// Clean's now, and Clean does not mind that it is gone.
		r.open = slices.Delete(r.open, at, at+1)
		return nil
	}
	if err := r.write(record{Op: opDone, Resource: &resource}); err != nil {
		return fmt.Errorf("record the end of %s: %w", resource, err)
	}
	r.open = slices.Delete(r.open, at, at+1)
	return nil
}

// Remove removes a recorded thing, the way [Clean] would, and records that. A
// thing that is gone already, or was never recorded, is no error.
func (r *Run) Remove(ctx context.Context, resource Resource) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.find(resource)
	if at < 0 {
		return nil
	}
	if _, err := r.remover().remove(ctx, r.open[at]); err != nil {
		return err
	}
	return r.done(resource)
}

func (r *Run) find(resource Resource) int {
	return slices.IndexFunc(r.open, func(o record) bool { return *o.Resource == resource })
}

func (r *Run) remover() *remover {
	return &remover{id: r.id, sameBoot: true, logger: r.logger}
}

// write appends a record. The caller holds the lock, or is alone.
func (r *Run) write(rec record) error {
	if r.closed {
		return errClosed
	}
	line, err := rec.line()
	if err != nil {
		return err
	}
	if r.bytes+len(line) > maxJournalBytes {
		return fmt.Errorf("the journal is full at %d bytes", maxJournalBytes)
	}
	n, err := r.journal.Write(line)
	r.bytes += n
	return err
}

// Close removes whatever of the run is still there, last made first, and then
// the run's folder. If something cannot be removed, the record of it stays for
// [Clean]. Close is idempotent.
func (r *Run) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	open := r.open
	_, err := r.remover().all(ctx, open, func(resource Resource) { err := r.done(resource); r.complain(err) })
	r.closed = true
	release, lockErr := r.root.lock(ctx)
	if lockErr != nil {
		return errors.Join(err, lockErr, r.letGo())
	}
	if err == nil {
		err = os.RemoveAll(r.Dir())
	}
	return errors.Join(err, r.letGo(), release())
}

func (r *Run) complain(err error) {
	if err != nil {
		r.logger.Warn("write journal", "error", err)
	}
}

// letGo closes what the run holds open.
func (r *Run) letGo() error {
	var errs []error
	if r.exclusive != nil {
		errs = append(errs, unlock(r.exclusive))
	}
	for _, f := range []*os.File{r.journal, r.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	r.exclusive, r.journal, r.lock = nil, nil, nil
	return errors.Join(errs...)
}

// bootID tells a process number of this boot from one of another.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// gone reports whether an error says that a thing is not there.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}
