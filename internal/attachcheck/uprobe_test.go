package attachcheck

import "testing"

func TestFileOffset(t *testing.T) {
	const maps = "00400000-00401000 r--p 00000000 fe:00 1 /bin/x\n" +
		"00401000-00800000 r-xp 00001000 fe:00 1 /bin/x\n" +
		"garbage\n" +
		"7f0000000000-7f0000001000 r-xp 00002000 fe:00 2 /lib/y\n"
	tests := []struct{ address, want uint64 }{
		{0x400010, 0x10},
		{0x401000, 0x1000},
		{0x401234, 0x1234},
		{0x7f0000000fff, 0x2fff},
	}
	for _, tt := range tests {
		if got, err := fileOffset(maps, tt.address); err != nil || got != tt.want {
			t.Errorf("fileOffset(%#x) = %#x, %v; want %#x", tt.address, got, err, tt.want)
		}
	}
	if _, err := fileOffset(maps, 0x800000); err == nil {
		t.Error("an address behind the last mapping has no offset")
	}
}

func FuzzFileOffset(f *testing.F) {
	f.Add("00400000-00401000 r--p 00000000 fe:00 1 /bin/x\n", uint64(0x400010))
	f.Fuzz(func(t *testing.T, maps string, address uint64) {
		_, _ = fileOffset(maps, address) // It reads the kernel's text and must not panic on any other.
	})
}
