package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Removed is one line of what [Clean] did.
type Removed struct {
	// Run is the identity of the run that it belonged to, PID its process.
	Run string
	PID int
	// Resource that was removed. For a spared run it is the run's folder.
	Resource Resource
	// Spared is true for a run that still lives: nothing of it was touched.
	Spared bool
}

func (r Removed) String() string {
	if r.Spared {
		return fmt.Sprintf("spared the live run of process %d", r.PID)
	}
	return fmt.Sprintf("removed %s, left by process %d", r.Resource, r.PID)
}

// Find returns the files of a name in the folders of runs, living or dead: how one
// process finds what another one serves.
func Find(o Options, name string) []string {
	var found []string
	for _, place := range o.roots() {
		entries, err := os.ReadDir(string(place))
		if err != nil {
			continue // Not there, or another user's.
		}
		for _, entry := range entries {
			path := filepath.Join(string(place), entry.Name(), name)
			if _, err := os.Lstat(path); err == nil && entry.IsDir() && idPattern.MatchString(entry.Name()) {
				found = append(found, path)
			}
		}
	}
	return found
}

// deadRun is a run whose lock we hold, because nobody else does.
type deadRun struct {
	id   string
	root root
	lock *os.File
}

// Clean removes what runs left that died before they could, and reports what it
// found. Live runs are spared and reported too. It goes on after errors: what
// could not be removed stays recorded for the next time.
func Clean(ctx context.Context, o Options) ([]Removed, error) {
	var report []Removed
	var errs []error
	for _, place := range o.roots() {
		if _, err := os.Lstat(string(place)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		real, err := place.make()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		dead, spared, err := real.survey(ctx)
		errs = append(errs, err)
		report = append(report, spared...)
		for _, run := range dead {
			removed, err := run.clean(ctx, o)
			report, errs = append(report, removed...), append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return report, fmt.Errorf("clean: %w", err)
	}
	return report, nil
}

// survey tells the dead runs from the live ones and takes the locks of the dead.
func (r root) survey(ctx context.Context) (dead []deadRun, spared []Removed, err error) {
	release, err := r.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	entries, err := os.ReadDir(string(r))
	if err != nil {
		return nil, nil, fmt.Errorf("list runs: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !idPattern.MatchString(entry.Name()) {
			continue // Not made by Open.
		}
		dir := filepath.Join(string(r), entry.Name())
		f, lockErr := lock(ctx, filepath.Join(dir, "lock"), false)
		switch {
		case lockErr == nil:
			dead = append(dead, deadRun{id: entry.Name(), root: r, lock: f})
		case errors.Is(lockErr, errLocked):
			spared = append(spared, Removed{Run: entry.Name(), PID: pidOf(entry.Name()), Resource: Resource{Kind: KindDir, Path: dir}, Spared: true})
		default:
			err = errors.Join(err, lockErr)
		}
	}
	return dead, spared, errors.Join(err, r.dropExclusive(ctx))
}

// dropExclusive removes the file of the exclusive lock if its holder is dead.
func (r root) dropExclusive(ctx context.Context) error {
	path := filepath.Join(string(r), "exclusive")
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f, err := lock(ctx, path, false)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	return unlock(f)
}

func pidOf(id string) int {
	m := idPattern.FindStringSubmatch(id)
	if m == nil {
		return 0
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return pid
}

// clean removes what a dead run left, and then its folder.
func (d deadRun) clean(ctx context.Context, o Options) (report []Removed, err error) {
	defer func() { err = errors.Join(err, d.lock.Close()) }()
	dir := filepath.Join(string(d.root), d.id)
	text, err := readJournal(filepath.Join(dir, "journal"))
	if err != nil {
		return nil, err
	}
	j, parseErr := parseJournal(text, d.id)
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	// Without a first line the run died before it made anything, or its
	// journal is damaged; then the identity alone decides.
	m := &remover{id: d.id, sameBoot: j.Boot == boot || j.Boot == "", logger: o.logger()}
	removed, err := m.all(ctx, j.Open, func(Resource) {})
	for _, r := range removed {
		report = append(report, Removed{Run: d.id, PID: pidOf(d.id), Resource: r})
	}
	if err != nil {
		return report, errors.Join(err, parseErr)
	}
	release, err := d.root.lock(ctx)
	if err != nil {
		return report, errors.Join(err, parseErr)
	}
	did, err := removeTree(dir)
	if did {
		report = append(report, Removed{Run: d.id, PID: pidOf(d.id), Resource: Resource{Kind: KindDir, Path: dir}})
	}
	return report, errors.Join(err, parseErr, release())
}

// readJournal reads a journal, one byte more than may be there at most. A run
// that died early has none.
func readJournal(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxJournalBytes+1))
	if err != nil {
		err = fmt.Errorf("read journal: %w", err)
	}
	return text, errors.Join(err, f.Close())
}
