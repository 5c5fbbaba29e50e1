package kallsyms

import (
	"errors"
	"strings"
	"testing"
)

const some = `ffffffff81000000 T _stext
ffffffff81000000 T startup_64
ffffffff81000100 t do_it
ffffffff81000200 D some_data
ffffffff81000300 W weak
ffffffffc0000000 t in_module	[btrfs]
`

func TestFind(t *testing.T) {
	table, err := Parse(strings.NewReader(some))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		address uint64
		name    string
		ok      bool
	}{
		{0xffffffff80ffffff, "", false},
		{0xffffffff81000000, "_stext", true},
		{0xffffffff810000ff, "_stext", true},
		{0xffffffff81000100, "do_it", true},
		{0xffffffff81000250, "do_it", true}, // Data is no function.
		{0xffffffff81000300, "weak", true},
		{0xffffffffc0000fff, "in_module", true},
	}
	for _, tt := range tests {
		if name, _, ok := table.Find(tt.address); name != tt.name || ok != tt.ok {
			t.Errorf("Find(%#x) = %q, %v; want %q, %v", tt.address, name, ok, tt.name, tt.ok)
		}
	}
}

func TestHidden(t *testing.T) {
	_, err := Parse(strings.NewReader("0000000000000000 T _stext\n0000000000000000 t do_it\n"))
	if !errors.Is(err, ErrHidden) || !strings.Contains(err.Error(), "kptr_restrict") {
		t.Errorf("error %v, want ErrHidden with the fix", err)
	}
}

// Whatever the file holds, parsing and finding do not panic, and what is found
// starts at or below the address.
func FuzzParse(f *testing.F) {
	f.Add(some, uint64(0xffffffff81000150))
	f.Add("zz t x\n", uint64(0))
	f.Fuzz(func(t *testing.T, text string, address uint64) {
		table, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		if _, start, ok := table.Find(address); ok && start > address {
			t.Errorf("Find(%#x) starts at %#x", address, start)
		}
	})
}
