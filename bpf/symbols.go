package bpf

import (
	"fmt"

	"github.com/coreplica/coreplica/bpf/internal/kallsyms"
)

// Symbols turns kernel addresses into function names. It is immutable; a nil
// Symbols answers with addresses.
type Symbols struct {
	table *kallsyms.Table
}

// LoadSymbols reads the running kernel's symbols. It fails when the kernel hides
// addresses.
func LoadSymbols() (*Symbols, error) {
	t, err := kallsyms.Read()
	if err != nil {
		return nil, err
	}
	return &Symbols{t}, nil
}

// Name returns the function that holds address, or the address in hexadecimal.
func (s *Symbols) Name(address uint64) string {
	if s != nil {
		if name, _, ok := s.table.Find(address); ok {
			return name
		}
	}
	return fmt.Sprintf("0x%x", address)
}
