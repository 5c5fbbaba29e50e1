package kallsyms

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// ErrHidden means that the kernel shows every address as zero.
var ErrHidden = errors.New("kernel addresses are hidden: run as root, or set kernel.kptr_restrict to 0")

// Table finds functions by address. It is immutable.
type Table struct {
	symbols []symbol
}

type symbol struct {
	address uint64
	name    string
}

// Read reads the running kernel's table.
func Read() (*Table, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	return Parse(f)
}

// Parse reads lines of the form "address type name [module]".
func Parse(r io.Reader) (*Table, error) {
	t := &Table{}
	hidden := true
	s := bufio.NewScanner(r)
	for s.Scan() {
		address, rest, ok := strings.Cut(s.Text(), " ")
		kind, name, ok2 := strings.Cut(rest, " ")
		if !ok || !ok2 || len(kind) != 1 || !strings.Contains("tTwW", kind) {
			continue
		}
		a, err := strconv.ParseUint(address, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("parse kernel symbols: %q is no address", address)
		}
		name, _, _ = strings.Cut(name, "\t")
		hidden = hidden && a == 0
		t.symbols = append(t.symbols, symbol{a, strings.TrimSpace(name)})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("parse kernel symbols: %w", err)
	}
	if hidden {
		return nil, ErrHidden
	}
	// Of several names for one address the first in the table stands.
	slices.SortStableFunc(t.symbols, func(a, b symbol) int { return cmp.Compare(a.address, b.address) })
	return t, nil
}

// Find returns the function that holds address, and where it starts.
func (t *Table) Find(address uint64) (name string, start uint64, ok bool) {
	i := sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].address > address })
	if i == 0 {
		return "", 0, false
	}
	start = t.symbols[i-1].address
	for i > 1 && t.symbols[i-2].address == start {
		i--
	}
	return t.symbols[i-1].name, start, true
}
