package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// runtimeFDs are opened once by Go's own runtime or by cilium/ebpf's caches, on
// first use and for good.
var runtimeFDs = []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/proc/sys/kernel/cap_last_cap"}

// FDs looks for open file descriptors. It counts them by what they point to,
// since a number that was closed and given out again is not a leak.
func FDs() Check {
	return Check{Name: "file descriptors", List: func() (map[string]string, error) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return nil, err
		}
		seen := map[string]int{}
		list := map[string]string{}
		for _, entry := range entries {
			to, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
			if err != nil {
				continue // It was the one that read the folder.
			}
			if slices.Contains(runtimeFDs, to) || strings.HasSuffix(to, "/fd") && strings.HasPrefix(to, "/proc/") {
				continue
			}
			list[fmt.Sprintf("%s#%d", to, seen[to])] = ""
			seen[to]++
		}
		return list, nil
	}}
}

// Children looks for processes that this one started and that still live, or
// that it has not waited for.
func Children() Check {
	return Check{Name: "child processes", List: func() (map[string]string, error) {
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			return nil, err
		}
		me := os.Getpid()
		list := map[string]string{}
		for _, path := range stats {
			stat, err := os.ReadFile(path)
			if err != nil {
				continue // It ended while we looked.
			}
			if parent, name, ok := parentOf(string(stat)); ok && parent == me {
				list[filepath.Base(filepath.Dir(path))] = name
			}
		}
		return list, nil
	}}
}

// parentOf reads /proc/PID/stat. The name stands in parentheses and may hold
// any character, so the last one closes it.
func parentOf(stat string) (parent int, name string, ok bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return 0, "", false
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 2 {
		return 0, "", false
	}
	parent, err := strconv.Atoi(fields[1])
	return parent, stat[open+1 : end], err == nil
}

// Affinity looks at the CPUs that the process may run on. A test that pins the
// main thread and forgets it slows all tests after it.
func Affinity() Check {
	return Check{Name: "CPU affinity", List: func() (map[string]string, error) {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
			return nil, fmt.Errorf("get affinity: %w", err)
		}
		return map[string]string{"process": fmt.Sprintf("may run on %d CPUs: %x", set.Count(), set)}, nil
	}}
}

// Loops looks for loop devices whose backing file has the given text in its
// path, e.g. the prefix of this package's temporary folders.
func Loops(text string) Check {
	return Check{Name: "loop devices", List: func() (map[string]string, error) {
		files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		if err != nil {
			return nil, err
		}
		list := map[string]string{}
		for _, path := range files {
			backing, err := os.ReadFile(path)
			if err != nil {
				continue // Detached while we looked.
			}
			if name := strings.TrimSpace(string(backing)); strings.Contains(name, text) {
				list[strings.Split(path, "/")[3]] = name
			}
		}
		return list, nil
	}}
}

// Zrams looks for zram devices, whoever made them: they carry no name.
func Zrams() Check {
	return Check{Name: "zram devices", List: func() (map[string]string, error) {
		devices, err := filepath.Glob("/sys/block/zram*")
		list := map[string]string{}
		for _, device := range devices {
			list[filepath.Base(device)] = ""
		}
		return list, err
	}}
}

// Mounts looks for mounts with the given text in their line of mountinfo, that
// is in the mount point, the source or the options.
func Mounts(text string) Check {
	return Check{Name: "mounts", List: func() (map[string]string, error) {
		info, err := os.ReadFile("/proc/self/mountinfo")
		list := map[string]string{}
		for line := range strings.Lines(string(info)) {
			if fields := strings.Fields(line); len(fields) > 4 && strings.Contains(line, text) {
				list[fields[0]] = fields[4]
			}
		}
		return list, err
	}}
}

// Pins looks for pinned BPF objects with the given text in their path.
func Pins(text string) Check { return Files("/sys/fs/bpf", text) }

// Files looks for files and folders below a folder with the given text in
// their path. A folder that is not there holds none.
func Files(below, text string) Check {
	return Check{Name: "files in " + below, List: func() (map[string]string, error) {
		list := map[string]string{}
		err := filepath.WalkDir(below, func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil // Gone while we looked, or none of our business.
			}
			if err == nil && path != below && strings.Contains(path, text) {
				list[path] = ""
			}
			return err
		})
		return list, err
	}}
}
