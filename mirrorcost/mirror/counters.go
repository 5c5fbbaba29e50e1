package mirror

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// drainTick is the time between two looks, and drainQuiet the number of
	// looks in a row that must see nothing in flight and no new write.
	drainTick  = 500 * time.Microsecond
	drainQuiet = 3
	// drainTime bounds the wait: a synced file system on memory is at rest
	// within milliseconds, and on a disk within seconds.
	drainTime = 10 * time.Second
)

// Fields of a block device's stat file, from 0.
const (
	statWrites  = 4
	statFlushes = 15 // since Linux 5.5
)

// Drained waits until the devices are at rest: nothing in flight, and no write
// completed for a moment.
func Drained(ctx context.Context, devices []Device) error {
	deadline := time.Now().Add(drainTime)
	ticker := time.NewTicker(drainTick)
	defer ticker.Stop()
	var last map[string]uint64
	for quiet := 0; quiet < drainQuiet; {
		busy, err := inFlight(devices)
		if err != nil {
			return err
		}
		now, err := WriteCounters(devices)
		if err != nil {
			return err
		}
		if quiet++; busy != "" || !same(last, now) {
			quiet = 0
		}
		last = now
		if time.Now().After(deadline) {
			return fmt.Errorf("drain devices: %s is still written to after %s; does another program use it?", firstOf(busy, devices), drainTime)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain devices: %w", ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

func firstOf(busy string, devices []Device) string {
	if busy == "" && len(devices) > 0 {
		return devices[0].Name
	}
	return busy
}

func same(a, b map[string]uint64) bool {
	if a == nil || len(a) != len(b) {
		return false
	}
	for name, count := range a {
		if b[name] != count {
			return false
		}
	}
	return true
}

// inFlight returns the name of a device with I/O in flight, or "".
func inFlight(devices []Device) (string, error) {
	for _, d := range devices {
		counts, err := d.numbers("inflight", 2)
		if err != nil {
			return "", err
		}
		if counts[0]+counts[1] > 0 {
			return d.Name, nil
		}
	}
	return "", nil
}

// WriteCounters returns, by device name, how many writes and flushes completed
// since the device was made.
func WriteCounters(devices []Device) (map[string]uint64, error) {
	counters := make(map[string]uint64, len(devices))
	for _, d := range devices {
		counts, err := d.numbers("stat", statWrites+1)
		if err != nil {
			return nil, err
		}
		counters[d.Name] = counts[statWrites]
		if len(counts) > statFlushes {
			counters[d.Name] += counts[statFlushes]
		}
	}
	return counters, nil
}

// numbers reads an attribute of the device that holds at least so many numbers.
// The path by device number serves partitions and mapped devices too.
func (d Device) numbers(attribute string, least int) ([]uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/%s", d.Major, d.Minor, attribute))
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", attribute, d.Name, err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < least {
		return nil, fmt.Errorf("read %s of %s: %d numbers, want %d", attribute, d.Name, len(fields), least)
	}
	numbers := make([]uint64, len(fields))
	for i, field := range fields {
		if numbers[i], err = strconv.ParseUint(field, 10, 64); err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", attribute, d.Name, err)
		}
	}
	return numbers, nil
}
