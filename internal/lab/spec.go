package lab

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreplica/coreplica/internal/lab/guest"
	"github.com/coreplica/coreplica/internal/lab/initramfs"
	"github.com/coreplica/coreplica/internal/lab/kernel"
)

// Spec says what a guest is and what it runs.
type Spec struct {
	// Kernel to boot; see kernel.Fetch.
	Kernel   *kernel.Kernel
	Topology Topology
	// Hostname, "guest" if empty.
	Hostname string
	// Modules by name, each with its parameters after a space; what they
	// need is loaded first.
	Modules []string
	// Tools are programs of this machine, by name, that the guest has too.
	Tools []string
	// Files and folders of this machine by their path in the guest. A
	// program among them is packed with its libraries.
	Files map[string]string
	// Args is the program that is run, with its arguments; Env is added to
	// its environment and Dir is where it starts.
	Args []string
	Env  []string
	Dir  string
	// Sysctl values of the guest, by dotted name.
	Sysctl map[string]string
	// Disks are QEMU's -drive options, e.g. "file=nbd+unix:///?socket=x,format=raw".
	// They appear as /dev/vda and so on.
	Disks []string
	// Timeout ends a guest that hangs; zero means [DefaultTimeout].
	Timeout time.Duration
	// Accel is "kvm" or "tcg"; empty means what works here, see [Accelerator].
	Accel  string
	Logger *slog.Logger
}

// DefaultTimeout is how long a guest may take where no other time is given.
const DefaultTimeout = 5 * time.Minute

// virtio are the modules of the guest's disks and ports.
var virtio = map[string][]string{"disk": {"virtio_pci", "virtio_blk"}}

// nonce is the number that a guest's exit line carries.
func nonce() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw a number: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// modules returns the files to pack and what the guest does with them.
func (s *Spec) modules() (files []string, load []guest.Module, err error) {
	names := []string{}
	params := map[string]string{}
	for _, m := range s.allModules() {
		name, p, _ := strings.Cut(m, " ")
		names = append(names, name)
		order, err := s.Kernel.Modules(name)
		if err != nil {
			return nil, nil, err
		}
		if len(order) > 0 {
			params[order[len(order)-1]] = p
		}
	}
	files, err = s.Kernel.Modules(names...)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		load = append(load, guest.Module{File: f, Params: params[f]})
	}
	return files, load, nil
}

func (s *Spec) allModules() []string {
	if len(s.Disks) == 0 {
		return s.Modules
	}
	return append(append([]string{}, virtio["disk"]...), s.Modules...)
}

// writeRoot writes the guest's root file system.
func (s *Spec) writeRoot(path string, job guest.Job) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the guest's root: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); errors.Is(err, errNoSpace) {
			err = fmt.Errorf("%w; the guest's root needs about 100 MB in %s", err, filepath.Dir(path))
		}
	}()
	b, err := initramfs.NewBuilder(f)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the running program: %w", err)
	}
	if err := b.Program("init", self); err != nil {
		return err
	}
	for _, tool := range s.Tools {
		if err := b.Tool(tool); err != nil {
			return err
		}
	}
	for in, host := range s.Files {
		if err := addFile(b, in, host); err != nil {
			return err
		}
	}
	files, load, err := s.modules()
	if err != nil {
		return err
	}
	for _, m := range files {
		if err := b.File(m, filepath.Join(s.Kernel.Dir, m)); err != nil {
			return err
		}
	}
	job.Modules = load
	if path := b.LibraryPath(); path != "" {
		job.Env = append(job.Env, "LD_LIBRARY_PATH="+path)
	}
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	if err := b.Bytes(guest.JobFile, 0o600, text); err != nil {
		return err
	}
	return b.Close()
}

// addFile adds a folder, or a file with the libraries that it needs.
func addFile(b *initramfs.Builder, in, host string) error {
	info, err := os.Stat(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("pack %s: %w", host, err)
	case err != nil:
		return err
	case info.IsDir():
		return b.Tree(in, host)
	}
	return b.Program(in, host)
}
