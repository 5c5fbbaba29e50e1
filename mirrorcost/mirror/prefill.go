package mirror

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// prefill writes each target in full and syncs the file systems, so that a
// measurement only ever overwrites.
func (b *builder) prefill(ctx context.Context) error {
	for t, copies := range b.up.Targets {
		for _, path := range copies {
			err := b.step(ctx, "target "+path, func() error { return b.writeTarget(ctx, path, uint64(t)+1) })
			if err != nil {
				return err
			}
		}
	}
	for _, point := range b.mountPoints() {
		if err := syncfs(point); err != nil {
			return err
		}
	}
	return b.measureHeadroom()
}

// writeTarget fills a file with noise, since zram keeps pages of one repeated
// word without taking memory. Each chunk is written out by itself: a copy-on-write
// file system frees an extent when its last block is overwritten, so extents
// should be small beside the file.
func (b *builder) writeTarget(ctx context.Context, path string, seed uint64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make target: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fd := int(f.Fd())
	data := make([]byte, chunkBytes)
	err = fill(ctx, f, b.FileBytes, func(offset int64) []byte {
		if offset > 0 {
			const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
			_ = unix.SyncFileRange(fd, offset-chunkBytes, chunkBytes, all) // It only shapes extents; the sync below decides.
		}
		seed = noise(data, seed)
		return data
	})
	if err != nil {
		return fmt.Errorf("write target: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync target: %w", err)
	}
	if b.Mode == "direct" {
		// Direct writes would have to throw out cached pages first, but
		// only until each block was written once.
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			return fmt.Errorf("drop cache of target: %w", err)
		}
	}
	return nil
}

// noise fills a buffer from a xorshift generator (Marsaglia, 2003) and returns
// its state. The seed must not be 0.
func noise(data []byte, x uint64) uint64 {
	for i := 0; i+8 <= len(data); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(data[i:], x)
	}
	return x
}

func syncfs(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if err := errors.Join(unix.Syncfs(fd), unix.Close(fd)); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// measureHeadroom asks the file system how much can be written between two
// syncs. Each block of the targets may be kept by a half overwritten extent, so
// that much is taken off.
func (b *builder) measureHeadroom() error {
	if b.kind.Filesystem != "btrfs" {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(b.mountPoints()[0], &st); err != nil {
		return fmt.Errorf("measure free space: %w", err)
	}
	free := int64(st.Bavail)*st.Bsize - int64(b.Files)*b.FileBytes
	b.up.HeadroomBytes = max(free, chunkBytes)
	return nil
}
