package shm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mfdNoexecSeal is MFD_NOEXEC_SEAL, known since Linux 6.3.
const mfdNoexecSeal = 0x8

// create makes a file of memory that can neither shrink nor grow: a shorter file
// would end whoever touches its former end.
func create(name string, bytes int64) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|mfdNoexecSeal)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if err := unix.Ftruncate(fd, bytes); err != nil {
		return nil, errors.Join(fmt.Errorf("ftruncate: %w", err), file.Close())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("seal: %w", err), file.Close())
	}
	return file, nil
}

// reserve takes the file's pages now.
func reserve(file *os.File, bytes int64) error {
	err := unix.Fallocate(int(file.Fd()), 0, 0, bytes)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(file.Fd()), 0, 0, bytes)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("take %d bytes of memory: %w: the machine or its control group has not as much left, take fewer slots, a smaller arena or fewer workers", bytes, err)
	}
	if err != nil {
		return fmt.Errorf("take %d bytes of memory: %w", bytes, err)
	}
	return nil
}
