package report

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/pprof/profile"
)

// Limits of what [Open] reads. A report of a day's run on a large machine has
// a few megabytes; what has more is not a report, or means harm.
const (
	maxJSONBytes    = 64 << 20
	maxProfileBytes = 512 << 20
)

// Open reads a run back: a folder that [Save] wrote, or a file with the JSON
// form. Stacks come from the profile in the folder, or beside a file named
// report.json; without it the report has none.
func Open(path string) (*Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	file := path
	if info.IsDir() {
		file = filepath.Join(path, jsonFile)
	}
	data, err := readLimited(file, maxJSONBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open run: %s has no %s: is it a folder that `--save` made? %w", path, jsonFile, err)
	} else if err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	r, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	if filepath.Base(file) != jsonFile {
		return r, nil
	}
	stacks := filepath.Join(filepath.Dir(file), profileFile)
	packed, err := readLimited(stacks, maxProfileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return nil, fmt.Errorf("open stacks: %w", err)
	}
	if r.Samples, err = parseSamples(packed, r); err != nil {
		return nil, fmt.Errorf("open stacks from %s: %w", stacks, err)
	}
	return r, nil
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // It was only read.
	return readAll(f, limit, path)
}

func readAll(r io.Reader, limit int64, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d MiB", name, limit>>20)
	}
	return data, err
}

// parseSamples reads the stacks of a report from a gzipped profile. It unpacks
// by itself: pprof's own way has no limit.
func parseSamples(packed []byte, r *Report) ([]Sample, error) {
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	data, err := readAll(zip, maxProfileBytes, "the unpacked profile")
	if err != nil {
		return nil, err
	}
	p, err := profile.ParseUncompressed(data)
	if err != nil {
		return nil, err
	}
	if err := p.CheckValid(); err != nil {
		return nil, err
	}
	return samplesOf(p, r)
}
