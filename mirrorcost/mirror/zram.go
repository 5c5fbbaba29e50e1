package mirror

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coreplica/coreplica/internal/cleanup"
)

const zramAdd = "/sys/class/zram-control/hot_add"

// zrams makes zram devices of our own. Their memory is taken as they are
// written to, so the target file's first writing is what fills them.
func (b *builder) zrams(ctx context.Context) error {
	for i := range b.devices {
		label := b.Name + "-" + strconv.Itoa(i)
		err := b.make(ctx, cleanup.Resource{Kind: cleanup.KindZram, Path: label}, func() error {
			device, err := b.zram(ctx, label)
			if err == nil {
				b.up.Devices = append(b.up.Devices, device)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) zram(ctx context.Context, label string) (Device, error) {
	text, err := os.ReadFile(zramAdd) // Reading makes a device and returns its number.
	if err != nil {
		return Device{}, fmt.Errorf("%w: make zram device: %w: run modprobe zram", ErrUnavailable, err)
	}
	name := "zram" + strings.TrimSpace(string(text))
	for _, setting := range []struct{ attribute, value string }{
		// The mark by which a later clean knows the device comes first.
		{"mem_limit", strconv.FormatUint(b.run.ZramLimit(label), 10)},
		{"disksize", strconv.FormatInt(b.DeviceBytes, 10)},
	} {
		path := filepath.Join("/sys/block", name, setting.attribute)
		if err := os.WriteFile(path, []byte(setting.value), 0); err != nil {
			return Device{}, fmt.Errorf("set up zram device: %w", err)
		}
		if err := b.hooked("zram " + label + " has its " + setting.attribute)(); err != nil {
			return Device{}, err
		}
	}
	return waitForDevice(ctx, "/dev/"+name)
}
