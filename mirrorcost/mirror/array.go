package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/coreplica/coreplica/internal/cleanup"
)

// Array numbers that are tried, from the top as mdadm does; fixed arrays count
// from 0.
const firstArray, lastArray = 127, 64

// mdstat is there when the kernel's md driver is.
const mdstat = "/proc/mdstat"

func arrayRequirements() error {
	if _, err := lookPath("mdadm"); err != nil {
		return err
	}
	if _, err := os.Stat(mdstat); err != nil && !moduleReady("md-mod") {
		return fmt.Errorf("%w: this kernel has no md: boot one with CONFIG_BLK_DEV_MD and CONFIG_MD_RAID1, as Debian, Fedora and SUSE have it, or `coreplica lab test` in a guest", ErrUnavailable)
	}
	return nil
}

// assemble makes an md array of all devices. They are blank, so nothing needs to
// be copied first (--assume-clean), and a resynchronisation would be measured.
// Without a write-intent bitmap each write costs what its copies cost; with one,
// the first write to a region costs two more writes, as often as md clears it.
func (b *builder) assemble(ctx context.Context) (Device, error) {
	path, err := freeArray()
	if err != nil {
		return Device{}, err
	}
	args := []string{"mdadm", "--create", path, "--quiet", "--run", "--level=" + b.kind.Array, "--assume-clean",
		"--metadata=1.2", "--bitmap=none", "--homehost=any", "--name=" + label, "--uuid=" + b.run.ArrayUUID(b.Name),
		"--raid-devices=" + strconv.Itoa(len(b.up.Devices))}
	for _, d := range b.up.Devices {
		args = append(args, d.Path)
	}
	var array Device
	err = b.make(ctx, cleanup.Resource{Kind: cleanup.KindArray, Path: b.Name}, func() (err error) {
		if err := b.command(ctx, args); err != nil {
			return err
		}
		array, err = waitForDevice(ctx, path)
		return err
	})
	if err != nil {
		return Device{}, err
	}
	b.up.Array = array
	for i, d := range b.up.Devices {
		if b.up.Devices[i].DataStart, err = dataStart(array.Name, d.Name); err != nil {
			return Device{}, err
		}
	}
	return array, nil
}

// dataStart is where an array's data begins on a member, in sectors. The
// superblock lies in front of it.
func dataStart(array, member string) (uint32, error) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/%s/md/dev-%s/offset", array, member))
	if err != nil {
		return 0, fmt.Errorf("find the data of %s on %s: %w", array, member, err)
	}
	sectors, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("find the data of %s on %s: %w", array, member, err)
	}
	return uint32(sectors), nil
}

// freeArray returns a number that no array has.
func freeArray() (string, error) {
	for n := firstArray; n >= lastArray; n-- {
		_, err := os.Stat(fmt.Sprintf("/sys/block/md%d", n))
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Sprintf("/dev/md%d", n), nil
		}
	}
	return "", fmt.Errorf("%w: md%d to md%d are all taken; stop one with mdadm --stop", ErrUnavailable, lastArray, firstArray)
}
