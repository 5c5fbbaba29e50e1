package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of a saved run.
const (
	jsonFile       = "report.json"
	tableFile      = "table.txt"
	csvFile        = "report.csv"
	benchFile      = "bench.txt"
	foldedFile     = "stacks.folded"
	profileFile    = "profile.pb.gz"
	differenceFile = "difference.pb.gz"
	// HTMLFile is where [Save] expects the page, which package serve makes.
	HTMLFile = "report.html"
)

// ErrForeignDir means that [Save] was given a folder that holds something else
// than a saved run.
var ErrForeignDir = errors.New("the folder holds something else than a saved run")

// Save keeps a run in a folder: the report in every format, the difference as
// a profile, and extra files by their names, such as [HTMLFile]. The folder
// appears whole or not at all. An older run in it is replaced; a folder with
// anything else in it is refused with [ErrForeignDir].
func Save(dir string, r *Report, extra map[string][]byte) error {
	files, err := savedFiles(r, extra)
	if err != nil {
		return fmt.Errorf("save run: %w", err)
	}
	if err := saveFiles(dir, files); err != nil {
		return fmt.Errorf("save run in %s: %w", dir, err)
	}
	return nil
}

// savedFiles renders everything before the first file is made.
func savedFiles(r *Report, extra map[string][]byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, content := range extra {
		if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			return nil, fmt.Errorf("%w: %q is not the name of a file in the folder", ErrUsage, name)
		}
		files[name] = content
	}
	for name, format := range map[string]Format{
		jsonFile: JSON, tableFile: Table, csvFile: CSV, benchFile: Bench, foldedFile: Folded, profileFile: Pprof,
	} {
		var buf bytes.Buffer
		if err := Write(&buf, r, format); err != nil {
			return nil, err
		}
		files[name] = buf.Bytes()
	}
	difference, err := DiffProfile(r)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := difference.Write(&buf); err != nil {
		return nil, fmt.Errorf("write difference: %w", err)
	}
	files[differenceFile] = buf.Bytes()
	return files, nil
}

func saveFiles(dir string, files map[string][]byte) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	// A link is followed, so that what it points to is replaced and not the
	// link.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	exists, err := ours(dir, files)
	if err != nil {
		return err
	}
	parent, base := filepath.Split(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	// Beside the folder, not in the system's place for temporary files:
	// only within a file system is a rename one step.
	temp, err := os.MkdirTemp(parent, "."+base+".saving-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeSynced(filepath.Join(temp, name), files[name]); err != nil {
			return err
		}
	}
	if !exists {
		return errors.Join(os.Rename(temp, dir), syncDir(parent))
	}
	return errors.Join(exchange(temp, dir), syncDir(parent))
}

// exchange lets two folders trade places, in one step where the file system
// can. What was in dir is in temp afterwards, to be removed.
func exchange(temp, dir string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	aside := temp + "-old"
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return errors.Join(err, os.Rename(aside, dir))
	}
	return os.RemoveAll(aside)
}

// ours reports whether there is a folder, and fails if it is not one that may
// be replaced: empty, or an older run and nothing else.
func ours(dir string, files map[string][]byte) (exists bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case len(entries) == 0:
		return true, nil
	}
	report, err := os.Open(filepath.Join(dir, jsonFile))
	if err != nil {
		return false, fmt.Errorf("%w: it has no %s; name an empty or a new folder", ErrForeignDir, jsonFile)
	}
	defer func() { _ = report.Close() }() // It was only read.
	head := make([]byte, 512)
	n, err := io.ReadFull(report, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Contains(head[:n], []byte(schemaFamily)) {
		return false, fmt.Errorf("%w: its %s is not of a run; name an empty or a new folder", ErrForeignDir, jsonFile)
	}
	known := []string{jsonFile, tableFile, csvFile, benchFile, foldedFile, profileFile, differenceFile, HTMLFile}
	for _, entry := range entries {
		if _, replaced := files[entry.Name()]; !replaced && !slices.Contains(known, entry.Name()) || !entry.Type().IsRegular() {
			return false, fmt.Errorf("%w: %s lies beside the run; move it away or name a new folder", ErrForeignDir, entry.Name())
		}
	}
	return true, nil
}

// schemaFamily begins the schema of every version.
const schemaFamily = `"coreplica.mirrorcost/`

// writeSynced writes a file that survives a crash after the rename.
func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
