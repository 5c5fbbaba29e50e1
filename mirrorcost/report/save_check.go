package report

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CheckSave reports what would keep [Save] from using a folder. Call it before a
// run: afterwards a refusal would cost the run.
func CheckSave(dir string) error {
	if _, err := ours(dir, nil); err != nil {
		return fmt.Errorf("save run in %s: %w", dir, err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	info, err := os.Stat(parent)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = unix.Access(parent, unix.W_OK)
	}
	if err != nil {
		return fmt.Errorf("save run in %s: the folder around it must exist and be writable: %w", dir, err)
	}
	return nil
}
