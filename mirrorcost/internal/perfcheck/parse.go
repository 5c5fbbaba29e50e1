package perfcheck

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Sample is one stack of kernel functions, leaf first.
type Sample struct {
	Comm  string
	PID   int
	Stack []string
	// User is true where the sample fell into user mode.
	User bool
}

// ErrFormat means that a text is not what `perf script -F
// comm,pid,tid,cpu,time,ip,sym` prints.
var ErrFormat = errors.New("not the output of perf script")

// kernelHalf is where addresses of the kernel begin, on every 64-bit
// architecture that we build for.
const kernelHalf = 1 << 63

// maxLine bounds a line: symbols of C++ programs are long.
const maxLine = 1 << 20

// Parse reads all samples.
func Parse(r io.Reader) (samples []Sample, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var at *Sample
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			at = nil
		case line[0] == ' ' || line[0] == '\t':
			if at == nil {
				return nil, fmt.Errorf("%w: line %d: a frame without a sample", ErrFormat, n)
			}
			if err := at.frame(line); err != nil {
				return nil, fmt.Errorf("%w: line %d: %w", ErrFormat, n, err)
			}
		default:
			s, err := head(line)
			if err != nil {
				return nil, fmt.Errorf("%w: line %d: %w", ErrFormat, n, err)
			}
			samples = append(samples, s)
			at = &samples[len(samples)-1]
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read perf script: %w", err)
	}
	return samples, nil
}

// head reads "kworker/u8:4-ev  1702/1702  [001] 14500.599207:". A comm may hold
// blanks, so the rest is found from the right.
func head(line string) (s Sample, err error) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasSuffix(fields[len(fields)-1], ":") {
		return s, fmt.Errorf("%q is no head of a sample", line)
	}
	pid, _, _ := strings.Cut(fields[len(fields)-3], "/")
	if s.PID, err = strconv.Atoi(pid); err != nil {
		return s, fmt.Errorf("%q has no process number", line)
	}
	s.Comm = strings.Join(fields[:len(fields)-3], " ")
	return s, nil
}

func (s *Sample) frame(line string) error {
	address, symbol, _ := strings.Cut(strings.TrimSpace(line), " ")
	at, err := strconv.ParseUint(address, 16, 64)
	if err != nil {
		return fmt.Errorf("%q is no frame", line)
	}
	if at < kernelHalf {
		// The callers of a system call are not of interest.
		s.User = s.User || len(s.Stack) == 0
		return nil
	}
	symbol, _, _ = strings.Cut(strings.TrimSpace(symbol), "+")
	name, _, _ := strings.Cut(symbol, ".") // .isra.0, .constprop.0, .cold
	s.Stack = append(s.Stack, name)
	return nil
}
