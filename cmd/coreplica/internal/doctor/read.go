package doctor

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/coreplica/coreplica/internal/cpulist"
)

// maxConfigBytes bounds the kernel configuration. Distributions ship 300 KB;
// a file that unpacks to more is something else.
const maxConfigBytes = 16 << 20

// text returns the trimmed text of a small file, or "" if it cannot be read.
func (e *examination) text(name string) string {
	text, err := fs.ReadFile(e.Root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (e *examination) exists(name string) bool {
	_, err := fs.Stat(e.Root, name)
	return err == nil
}

// release is the kernel's release, e.g. "6.1.0-18-amd64".
func (e *examination) release() string { return e.text("proc/sys/kernel/osrelease") }

// atLeast compares the kernel's release with a version.
func (e *examination) atLeast(major, minor int) bool {
	gotMajor, gotMinor := parseRelease(e.release())
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// parseRelease reads the first two numbers of a release. What is no number is
// 0, so a strange release counts as old.
func parseRelease(release string) (major, minor int) {
	first, rest, _ := strings.Cut(release, ".")
	second := strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	major, _ = strconv.Atoi(first)
	if len(second) > 0 && strings.HasPrefix(rest, second[0]) {
		minor, _ = strconv.Atoi(second[0])
	}
	return major, minor
}

// config returns the kernel's configuration and where it was found.
func (e *examination) config() (config map[string]string, from string) {
	if packed, err := fs.ReadFile(e.Root, "proc/config.gz"); err == nil {
		if text, err := unpack(packed); err == nil {
			return parseConfig(text), "/proc/config.gz"
		}
	}
	name := "boot/config-" + e.release()
	if text, err := fs.ReadFile(e.Root, name); err == nil {
		return parseConfig(string(text)), "/" + name
	}
	return nil, ""
}

func unpack(packed []byte) (string, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", fmt.Errorf("unpack kernel configuration: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxConfigBytes))
	if err != nil {
		return "", fmt.Errorf("unpack kernel configuration: %w", err)
	}
	return string(text), nil
}

// parseConfig reads lines of CONFIG_X=value. Options that are not set are not
// in the map.
func parseConfig(text string) map[string]string {
	config := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && strings.HasPrefix(name, "CONFIG_") {
			config[name] = value
		}
	}
	return config
}

// capabilities returns the effective capabilities of this process.
func (e *examination) capabilities() uint64 {
	for line := range strings.Lines(e.text("proc/self/status")) {
		if hex, found := strings.CutPrefix(line, "CapEff:"); found {
			set, _ := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return set
		}
	}
	return 0
}

// mounted returns where a file system of a kind is mounted, or "".
func (e *examination) mounted(kind string) []string {
	var points []string
	for line := range strings.Lines(e.text("proc/self/mounts")) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == kind {
			points = append(points, fields[1])
		}
	}
	return points
}

// filesystem reports whether the kernel knows a file system now.
func (e *examination) filesystem(name string) bool {
	for line := range strings.Lines(e.text("proc/filesystems")) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	return false
}

// module reports whether a module lies ready to be loaded.
func (e *examination) module(name string) bool {
	deps := e.text(path.Join("lib/modules", e.release(), "modules.dep"))
	for line := range strings.Lines(deps) {
		file, _, _ := strings.Cut(line, ":")
		base, _, _ := strings.Cut(path.Base(file), ".")
		if strings.ReplaceAll(base, "-", "_") == strings.ReplaceAll(name, "-", "_") {
			return true
		}
	}
	return false
}

// countList counts the members of a list like "0-3,8". What is no list has
// none.
func countList(list string) int {
	numbers, _ := cpulist.Parse(list)
	return len(numbers)
}
