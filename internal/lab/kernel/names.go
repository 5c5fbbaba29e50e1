package kernel

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// series is a kind of kernel that can be asked for.
type series struct {
	suite   string
	archive string // below the mirror
	pattern *regexp.Regexp
	// parts are the packages beside the image that hold its files, by
	// prefix; the rest of the name is the image's.
	parts []string
}

// The kernels that guests may run. Cloud kernels lack drivers for real
// hardware, which makes them small, and have all that the guests need.
var known = map[string]series{
	"6.1":  {"bookworm-security", "debian-security", regexp.MustCompile(`^linux-image-6\.1\.0-\d+-cloud-amd64$`), nil},
	"6.12": {"bookworm-security", "debian-security", regexp.MustCompile(`^linux-image-6\.12\.\d+\+deb12-cloud-amd64$`), nil},
	// With sched_ext. Its image package holds no files.
	"7": {"trixie-backports", "debian", regexp.MustCompile(`^linux-image-7\.\d+(\.\d+)?\+deb13-cloud-amd64$`), []string{"linux-base-", "linux-binary-", "linux-modules-"}},
}

// Names returns the names that [Fetch] takes, in order.
func Names() []string { return slices.SortedFunc(maps.Keys(known), compareVersions) }

// newest returns the package of a series with the highest version in its name.
func newest(pattern *regexp.Regexp, names []string) (string, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !pattern.MatchString(n) })
	if len(names) == 0 {
		return "", fmt.Errorf("no package is named %s", pattern)
	}
	return slices.MaxFunc(names, compareVersions), nil
}

// compareVersions compares names with numbers in them by the numbers' values,
// and the text between them as text.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		digitsA, digitsB := leading(a, isDigit), leading(b, isDigit)
		if digitsA != "" && digitsB != "" {
			x, y := strings.TrimLeft(digitsA, "0"), strings.TrimLeft(digitsB, "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[len(digitsA):], b[len(digitsB):]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func leading(s string, is func(byte) bool) string {
	for i := range len(s) {
		if !is(s[i]) {
			return s[:i]
		}
	}
	return s
}
