package cleanup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mountPoints returns the mount points of this process's namespace in the order
// in which they were mounted. One that is mounted over twice is there twice.
func mountPoints() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return parseMountPoints(string(text)), nil
}

func parseMountPoints(mountinfo string) []string {
	var points []string
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, unescape(fields[4]))
		}
	}
	return points
}

// unescape undoes the octal escapes with which the kernel writes blanks and
// backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// loops returns the backing files of the loop devices in use, by device name.
func loops() (map[string]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	list := map[string]string{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // Detached while we looked.
		}
		backing := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
		list[filepath.Base(filepath.Dir(filepath.Dir(path)))] = backing
	}
	return list, nil
}

// loopsOver returns the loop devices whose backing file a test accepts, sorted.
func loopsOver(accept func(backing string) bool) ([]string, error) {
	list, err := loops()
	if err != nil {
		return nil, err
	}
	var names []string
	for name, backing := range list {
		if accept(backing) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// zramNames returns the zram devices there are.
func zramNames() ([]string, error) {
	dirs, err := filepath.Glob("/sys/block/zram*")
	if err != nil {
		return nil, fmt.Errorf("list zram devices: %w", err)
	}
	for i, dir := range dirs {
		dirs[i] = filepath.Base(dir)
	}
	slices.Sort(dirs)
	return dirs, nil
}

// zramBirth bounds the time between the recorded intent and the appearance of
// the device that it was for.
const zramBirth = time.Second

// findZram returns the devices that an intent made. One with the run's mark is
// certainly ours. A run that was killed between making a device and marking it,
// two system calls apart, left one without: it is taken to be ours if it appeared
// within a second of the intent and was never given a size, so that it is empty.
func findZram(id string, intent record) ([]string, error) {
	names, err := zramNames()
	if err != nil {
		return nil, err
	}
	var marked, newborn []string
	tag := strconv.FormatUint(zramTag(id, intent.Path), 10)
	for _, name := range names {
		switch limit := zramLimit(name); {
		case limit == tag:
			marked = append(marked, name)
		case limit == "0" && !slices.Contains(intent.Zrams, name) && zramUnused(name) && bornAfter(name, intent.AtNs):
			newborn = append(newborn, name)
		}
	}
	if len(marked) > 0 || len(newborn) > 1 {
		return marked, nil // Of two newborn devices one is somebody else's.
	}
	return newborn, nil
}

// zramLimit returns the memory limit of a zram device in bytes: the fourth
// number of mm_stat.
func zramLimit(name string) string {
	text, err := os.ReadFile(filepath.Join("/sys/block", name, "mm_stat"))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 4 {
		return ""
	}
	return fields[3]
}

func zramUnused(name string) bool {
	for attribute, empty := range map[string]string{"disksize": "0", "initstate": "0"} {
		text, err := os.ReadFile(filepath.Join("/sys/block", name, attribute))
		if err != nil || strings.TrimSpace(string(text)) != empty {
			return false
		}
	}
	return true
}

// bornAfter reports whether the device's node appeared right after a time. The
// kernel makes the node in devtmpfs together with the device.
func bornAfter(name string, atNs int64) bool {
	info, err := os.Stat(filepath.Join("/dev", name))
	if err != nil {
		return false
	}
	// The kernel stamps with a clock that is up to a tick behind.
	const tick = 20 * time.Millisecond
	age := info.ModTime().Sub(time.Unix(0, atNs))
	return age >= -tick && age <= zramBirth
}

// mountedBelow returns a mount point at or below a folder, or "".
func mountedBelow(dir string) (string, error) {
	points, err := mountPoints()
	if err != nil {
		return "", err
	}
	for _, point := range points {
		if point == dir || strings.HasPrefix(point, dir+"/") {
			return point, nil
		}
	}
	return "", nil
}

// removeTree removes a folder unless something is mounted in it: what is
// mounted may not be ours.
func removeTree(dir string) (removed bool, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	point, err := mountedBelow(dir)
	if err != nil {
		return false, err
	}
	if point != "" {
		return false, fmt.Errorf("remove %s: something is mounted on %s; unmount it first", dir, point)
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, fmt.Errorf("remove folder: %w", err)
	}
	return true, nil
}
