package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// areaBytes is what is looked at, and wiped, at both ends of a device: every
// common file system, table and array signs in there. A blank device is all
// zeroes in both.
const areaBytes = 1 << 20

// signatures are looked for where there is no blkid. What they do not know is
// still seen, as data.
var signatures = []struct {
	offset int
	magic  string
	name   string
}{
	{0x438, "\x53\xef", "an ext file system"},
	{0x10040, "_BHRfS_M", "a btrfs"},
	{0, "XFSB", "an xfs"},
	{0x218, "LVM2 001", "an LVM volume"},
	{0, "LUKS\xba\xbe", "an encrypted volume"},
	{4086, "SWAPSPACE2", "swap"},
	{4096, "\xfc\x4e\x2b\xa9", "a part of an md array"},
	{0, "\xfc\x4e\x2b\xa9", "a part of an md array"},
	{512, "EFI PART", "a partition table"},
	{510, "\x55\xaa", "a partition table or a FAT file system"},
}

// contents says what a device holds, or returns "" for a blank one.
func contents(device *os.File, size int64) (string, error) {
	if found := blkid(device.Name()); found != "" {
		return found, nil
	}
	area := make([]byte, min(areaBytes, size))
	for _, offset := range []int64{0, size - int64(len(area))} {
		if _, err := device.ReadAt(area, offset); err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read %s: %w", device.Name(), err)
		}
		if found := recognise(area, offset == 0); found != "" {
			return found, nil
		}
	}
	return "", nil
}

// recognise says what an area at the start or the end of a device holds, or
// returns "" if it is all zeroes.
func recognise(area []byte, start bool) string {
	if len(bytes.Trim(area, "\x00")) == 0 {
		return ""
	}
	for _, s := range signatures {
		if start && len(area) > s.offset && bytes.HasPrefix(area[s.offset:], []byte(s.magic)) {
			return s.name
		}
	}
	return "data of an unknown kind"
}

// blkidTime bounds a look at a device that may not answer.
const blkidTime = 20 * time.Second

// blkid asks the tool that knows most signatures, by a fresh look and not from
// its cache. It returns "" when there is no tool or it finds nothing; the look
// at the bytes follows in any case.
func blkid(path string) string {
	tool, err := lookPath("blkid")
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), blkidTime)
	defer cancel()
	output, err := exec.CommandContext(ctx, tool, "-p", "-o", "export", path).Output()
	var exit *exec.ExitError
	const ambivalent = 8
	if errors.As(err, &exit) && exit.ExitCode() == ambivalent {
		return "several signatures at once"
	}
	values := map[string]string{}
	for line := range strings.Lines(string(output)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	switch {
	case values["TYPE"] != "" && values["LABEL"] != "":
		return fmt.Sprintf("%s (label %s)", values["TYPE"], values["LABEL"])
	case values["TYPE"] != "":
		return values["TYPE"]
	case values["PTTYPE"] != "":
		return "a partition table (" + values["PTTYPE"] + ")"
	}
	return ""
}

// wipe zeroes the places where a file system signs, among them the copies of
// the btrfs superblock, so that the device counts as blank again.
func wipe(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("wipe device: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zeroes := make([]byte, areaBytes)
	for _, offset := range []int64{0, 64 << 20, 256 << 30, max(size-areaBytes, 0)} {
		if offset >= size {
			continue
		}
		if _, err := f.WriteAt(zeroes[:min(areaBytes, size-offset)], offset); err != nil {
			return fmt.Errorf("wipe device: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("wipe device: %w", err)
	}
	return nil
}
