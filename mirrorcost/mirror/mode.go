package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Direct writes of probeBytes are tried, and the pages that they dirty counted.
// Metadata and other programs dirty some too, so the least of several tries
// counts, and half is a safe line between next to none and all.
const (
	probeBytes = 4 << 20
	probeTries = 5
	pageBytes  = 4096
)

// findMode finds the mode that the kernel really uses.
func (b *builder) findMode(ctx context.Context) error {
	b.up.EffectiveMode = b.Mode
	if b.Mode != "direct" {
		return nil
	}
	share := 0.0
	err := b.step(ctx, "try direct I/O", func() (err error) {
		share, err = b.cachedShare(ctx, b.up.Targets[0][0])
		return err
	})
	if err != nil {
		return err
	}
	b.log.Debug("tried direct I/O", "leg", b.Name, "share_cached", share)
	if share >= 0.5 {
		b.up.EffectiveMode = "buffered"
		b.up.Warnings = append(b.up.Warnings, b.fallback())
	}
	return nil
}

// fallback says why direct writes are buffered, as far as that is known. The
// kernel's version cannot tell, since both rules were carried back to stable
// kernels; so it is tried.
func (b *builder) fallback() string {
	text := fmt.Sprintf("direct writes to %s go through the page cache on this kernel, so its effective mode is buffered", b.kind.Name)
	var reasons []string
	if b.Csum != "" {
		reasons = append(reasons, "btrfs does so where data has checksums (since Linux 6.14; --csum off avoids that)")
	}
	if b.kind.Filesystem == "btrfs" && b.copies > 1 {
		reasons = append(reasons, "btrfs does so where data has several copies (since Linux 7.0 and in later 6.12 to 6.19), lest a program change the buffer between two copies")
	}
	return strings.Join(append([]string{text}, reasons...), "; ")
}

// cachedShare writes directly and returns which share of it dirtied pages of the
// cache. The cache itself cannot be asked afterwards: the kernel drops the pages
// when it falls back.
func (b *builder) cachedShare(ctx context.Context, path string) (share float64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("%w: %s takes no direct I/O here: use --mode buffered or dsync", ErrUnavailable, b.kind.Name)
	}
	if err != nil {
		return 0, fmt.Errorf("open target: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size := int(min(probeBytes, b.FileBytes))
	// Mapped memory begins at a page, which direct I/O wants.
	data, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, fmt.Errorf("map a buffer: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	noise(data, 1)
	share = 1
	for range probeTries {
		before, err := dirtiedPages()
		if err != nil {
			return 0, err
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			return 0, fmt.Errorf("write target: %w", err)
		}
		after, err := dirtiedPages()
		if err != nil {
			return 0, err
		}
		share = min(share, float64(after-before)*pageBytes/float64(size))
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	return share, syncfs(path)
}

// dirtiedPages is the number of pages of the cache that were ever dirtied.
func dirtiedPages() (uint64, error) {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, fmt.Errorf("count dirtied pages: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "nr_dirtied "); found {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("count dirtied pages: /proc/vmstat has no nr_dirtied")
}

func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}
