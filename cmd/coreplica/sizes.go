package main

import (
	"fmt"
	"strconv"

	"github.com/docker/go-units"

	"github.com/coreplica/coreplica/bpf"
)

// size is a flag's value in bytes: 4096, 4k, 64MiB. Units are powers of 1024.
type size[T int | int64] struct {
	bytes *T
}

func (s size[T]) String() string {
	if s.bytes == nil || *s.bytes == 0 {
		return ""
	}
	n, unit := int64(*s.bytes), 0
	for n%1024 == 0 && unit < len(sizeUnits)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + sizeUnits[unit]
}

var sizeUnits = []string{"", "k", "M", "G", "T"}

// Type names the value in help texts.
func (s size[T]) Type() string { return "size" }

// Set reads a size.
func (s size[T]) Set(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 || int64(T(n)) != n {
		return fmt.Errorf("%q is not a size such as 4096, 4k or 64M", text)
	}
	*s.bytes = T(n)
	return nil
}

// cpuList is a flag's value such as 0-3,8.
type cpuList struct {
	cpus *[]int
	text string
}

func (l *cpuList) String() string { return l.text }

// Type names the value in help texts.
func (l *cpuList) Type() string { return "list" }

// Set reads a list and refuses CPUs that are not online.
func (l *cpuList) Set(text string) error {
	cpus, err := bpf.ParseCPUList(text)
	if err != nil {
		return err
	}
	*l.cpus, l.text = cpus, text
	return nil
}

// rate is a flag's value: writes a second, "half" or "max".
type rate struct {
	perSecond *float64
	saturate  *bool
}

func (r rate) String() string {
	switch {
	case r.perSecond == nil || *r.perSecond == 0 && !*r.saturate:
		return "half"
	case *r.saturate:
		return "max"
	}
	return strconv.FormatFloat(*r.perSecond, 'g', -1, 64)
}

// Type names the value in help texts.
func (r rate) Type() string { return "N|half|max" }

// Set reads a rate.
func (r rate) Set(text string) error {
	switch text {
	case "half":
		*r.perSecond, *r.saturate = 0, false
		return nil
	case "max":
		*r.perSecond, *r.saturate = 0, true
		return nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n > 0 && n < 1e9) {
		return fmt.Errorf("%q is not a number of writes a second above 0, half (of what the slower leg can do) or max", text)
	}
	*r.perSecond, *r.saturate = n, false
	return nil
}
