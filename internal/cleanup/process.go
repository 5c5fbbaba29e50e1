package cleanup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process returns the resource of a running process.
func Process(pid int) (Resource, error) {
	ticks, err := startTicks(pid)
	if err != nil {
		return Resource{}, err
	}
	return Resource{Kind: KindProcess, PID: pid, StartTicks: ticks}, nil
}

func startTicks(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	ticks, err := parseStartTicks(string(text))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return ticks, nil
}

// parseStartTicks reads the 22nd field of /proc/PID/stat. The second is the
// program's name in parentheses and may hold any character, so counting begins
// at the last one.
func parseStartTicks(stat string) (uint64, error) {
	rest := ""
	if end := strings.LastIndexByte(stat, ')'); end >= 0 {
		rest = stat[end+1:]
	}
	const field = 22 - 3 // The first after the name is the third.
	fields := strings.Fields(rest)
	if len(fields) <= field {
		return 0, fmt.Errorf("parse stat: %d fields after the name, want more than %d", len(fields), field)
	}
	return strconv.ParseUint(fields[field], 10, 64)
}

// kill ends a process if it is still the one that was recorded, and waits until
// it is dead. The descriptor pins the process, so that the number cannot pass to
// another one between the check and the signal.
func kill(ctx context.Context, pid int, ticks uint64) (killed bool, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return false, nil // Dead, or the number of a thread by now.
	}
	if err != nil {
		return false, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if now, err := startTicks(pid); err != nil || now != ticks {
		return false, nil // Somebody else's, or dead.
	}
	if dead(fd, 0) {
		return false, nil // Its parent has not waited for it yet; nothing runs.
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return false, nil
		}
		return false, fmt.Errorf("kill process %d: %w", pid, err)
	}
	for deadline := time.Now().Add(patience); !dead(fd, 50*time.Millisecond); {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false, fmt.Errorf("kill process %d: it does not die; it may hang in the kernel, waiting for a device", pid)
		}
	}
	return true, nil
}

func dead(pidfd int, wait time.Duration) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
	return err == nil && n > 0
}

// marked returns the processes that carry a run's mark in their environment,
// but for this one.
func marked(id string) []Resource {
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil // The pattern is constant and good.
	}
	want := []byte(EnvName + "=" + id)
	var found []Resource
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(path)
		if err != nil {
			continue // It ended, or it is another user's and so not ours.
		}
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.Equal(entry, want) {
				if r, err := Process(pid); err == nil {
					found = append(found, r)
				}
				break
			}
		}
	}
	return found
}
