package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/coreplica/coreplica/internal/attachcheck"
	"github.com/coreplica/coreplica/numa/identity"
)

// Local returns this machine.
func Local() Machine {
	return Machine{
		Root:       os.DirFS("/"),
		UID:        os.Geteuid(),
		Attach:     attach,
		Cycles:     attachcheck.HardwareCycles,
		LookPath:   lookPath,
		CPUs:       runtime.NumCPU(),
		Arch:       runtime.GOARCH,
		Identities: identity.Libraries(),
	}
}

func attach(name string) error {
	kind, err := attachcheck.ByName(name)
	if err != nil {
		return err
	}
	return kind.Try()
}

// lookPath also looks where root's programs are: PATH of a user on Debian does
// not hold them, and sudo does.
func lookPath(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err == nil {
		return found, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return found, nil
		}
	}
	return "", err
}
