package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, err := range []error{
		w.Char("dev/console", 0o600, 5, 1),
		w.Bytes("init", 0o755, []byte("#!\n")),
		w.Bytes("etc/empty", 0o644, nil),
		w.Dir("etc", 0o700), // Made above, and so left alone.
		w.Symlink("lib/libx.so", "libx.so.1"),
		w.File("lib/libx.so.1", 0o644, 1009, io.LimitReader(zeros{}, 2000)),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// list reads an archive by the kernel's description of the format alone: names,
// modes, devices and sizes.
func list(t *testing.T, a []byte) (lines []string) {
	t.Helper()
	for at := 0; ; {
		if string(a[at:at+6]) != "070701" || at%4 != 0 {
			t.Fatalf("no header at %d", at)
		}
		var f [13]int64
		for i := range f {
			n, err := strconv.ParseInt(string(a[at+6+8*i:at+14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			f[i] = n
		}
		at += 110
		name := string(a[at : at+int(f[11])-1])
		at = (at + int(f[11]) + 3) &^ 3
		if name == trailer {
			return lines
		}
		line := fmt.Sprintf("%06o %d,%d %d %s", f[1], f[9], f[10], f[6], name)
		if f[1]&0o170000 == typeSymlink {
			line += " -> " + string(a[at:at+int(f[6])])
		}
		lines = append(lines, line)
		at = (at + int(f[6]) + 3) &^ 3
	}
}

func TestFormat(t *testing.T) {
	want := []string{
		"040755 0,0 0 dev", "020600 5,1 0 dev/console", "100755 0,0 3 init", "040755 0,0 0 etc", "100644 0,0 0 etc/empty",
		"040755 0,0 0 lib", "120777 0,0 9 lib/libx.so -> libx.so.1", "100644 0,0 1009 lib/libx.so.1",
	}
	if got := list(t, archive(t)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// Equal contents give equal bytes, so a guest's archive can be compared.
func TestReproducible(t *testing.T) {
	if a, b := archive(t), archive(t); !bytes.Equal(a, b) || len(a)%512 != 0 {
		t.Errorf("two archives of %d and %d bytes differ", len(a), len(b))
	}
}

func TestRefused(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, name := range []string{"", ".", "..", "/abs", "a//b", "../up", "a/../b", "nul\x00", trailer, strings.Repeat("n", maxName)} {
		if err := w.Bytes(name, 0o644, nil); !errors.Is(err, ErrName) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if err := w.Bytes("file", 0o644, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Bytes("file", 0o644, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second file of one name: %v", err)
	}
	if err := w.Bytes("file/below", 0o644, nil); err == nil {
		t.Error("a file inside a file")
	}
	if err := w.File("short", 0o644, 7, strings.NewReader("abc")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short file: %v", err)
	}
	if err := w.File("huge", 0o644, 1<<32, nil); err == nil {
		t.Error("a file of 4 GiB")
	}
}

// Headers stand at multiples of four, whatever the lengths of names and files.
func FuzzAlignment(f *testing.F) {
	f.Add("a", []byte("x"))
	f.Add("some/where", []byte{})
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		var b bytes.Buffer
		w := NewWriter(&b)
		if err := w.Bytes(name, 0o644, text); err != nil {
			return
		}
		if err := w.Bytes("last-entry", 0o644, nil); err != nil {
			return
		}
		if b.Len()%4 != 0 {
			t.Errorf("%d bytes after two entries", b.Len())
		}
		magic := slices.Collect(func(yield func(int) bool) {
			for i := 0; i+6 <= b.Len(); i += 4 {
				if string(b.Bytes()[i:i+6]) == "070701" && !yield(i) {
					return
				}
			}
		})
		if len(magic) < 2 {
			t.Errorf("%d headers on boundaries of four bytes", len(magic))
		}
	})
}
