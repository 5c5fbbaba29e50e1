package cleanup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Where an md superblock of version 1.2 stands on a member, and what is in it
// (Documentation/admin-guide/md.rst; struct mdp_superblock_1).
const (
	mdSuperOffset = 4096
	mdMagic       = 0xa92b4efc
	mdUUIDOffset  = 16
)

// stopArray is STOP_ARRAY: _IO(MD_MAJOR, 0x32).
const stopArray = 0x0932

// arrayUUID is the identity of a run's md array. It stands in the superblock of
// every member, so that it is there before the array is.
func arrayUUID(id, label string) [16]byte {
	sum := sha256.Sum256([]byte("md array " + id + "/" + label))
	return [16]byte(sum[:16])
}

// ArrayUUID is what must be given to mdadm's --uuid for a recorded array with
// that label.
func (r *Run) ArrayUUID(label string) string {
	u := arrayUUID(r.id, label)
	return fmt.Sprintf("%x:%x:%x:%x", u[0:4], u[4:8], u[8:12], u[12:16])
}

// findArrays returns the md devices of which a member carries the identity.
func findArrays(uuid [16]byte) ([]string, error) {
	slaves, err := filepath.Glob("/sys/block/md*/slaves/*")
	if err != nil {
		return nil, fmt.Errorf("list md arrays: %w", err)
	}
	var names []string
	for _, slave := range slaves {
		found, err := readArrayUUID(filepath.Join("/dev", filepath.Base(slave)))
		if err != nil || found != uuid {
			continue // Not a member of ours, or gone while we looked.
		}
		if name := filepath.Base(filepath.Dir(filepath.Dir(slave))); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func readArrayUUID(device string) (uuid [16]byte, err error) {
	f, err := os.Open(device)
	if err != nil {
		return uuid, err
	}
	defer f.Close() // Nothing is written.
	return parseArrayUUID(f)
}

func parseArrayUUID(member interface {
	ReadAt([]byte, int64) (int, error)
}) (uuid [16]byte, err error) {
	var super [64]byte
	if _, err := member.ReadAt(super[:], mdSuperOffset); err != nil {
		return uuid, err
	}
	if !bytes.Equal(super[:4], binary.LittleEndian.AppendUint32(nil, mdMagic)) {
		return uuid, errors.New("there is no md superblock of version 1.2")
	}
	copy(uuid[:], super[mdUUIDOffset:])
	return uuid, nil
}

// removeArray stops an array. The kernel refuses that while it is in use.
func removeArray(ctx context.Context, name string) error {
	err := untilFree(ctx, func() error {
		fd, err := unix.Open("/dev/"+name, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.IoctlSetInt(fd, stopArray, 0), unix.Close(fd))
	})
	if err != nil && !gone(err) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stop /dev/%s: %w", name, err)
	}
	return nil
}
