package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/coreplica/coreplica/internal/lab/kernel"
	"golang.org/x/sys/unix"
)

// AccelEnv names the environment variable that decides between "kvm" and "tcg"
// instead of a trial.
const AccelEnv = "COREPLICA_LAB_ACCEL"

// kvmTrial is how long KVM has to boot a kernel. Where it works that takes less
// than a second; where the machine is itself virtual, it may hang.
const kvmTrial = 10 * time.Second

// Accelerator returns how guests run here: "kvm" where that boots the kernel
// within ten seconds, else "tcg". The answer is remembered in the user's cache
// folder for this machine's kernel and that one.
func Accelerator(ctx context.Context, k *kernel.Kernel) (string, error) {
	switch forced := os.Getenv(AccelEnv); forced {
	case "kvm", "tcg":
		return forced, nil
	case "":
	default:
		return "", fmt.Errorf("%s is %q: want kvm or tcg", AccelEnv, forced)
	}
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		return "tcg", nil
	}
	cache, key := accelCache(), hostRelease()+" "+k.Release
	if known := readAccels(cache)[key]; known == "kvm" || known == "tcg" {
		return known, nil
	}
	answer := "kvm"
	// The program is the guest's own first process, which ends at once when
	// it is not the first.
	_, err := Run(ctx, Spec{Kernel: k, Accel: "kvm", Timeout: kvmTrial, Args: []string{"/init", "--help"}}, io.Discard)
	var failed *Failure
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.As(err, &failed):
		answer = "tcg"
	case err != nil:
		return "", err
	}
	writeAccel(cache, key, answer)
	return answer, nil
}

func accelCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "" // Then nothing is remembered.
	}
	return filepath.Join(dir, "coreplica", "accel.json")
}

func hostRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func readAccels(path string) map[string]string {
	known := map[string]string{}
	if text, err := os.ReadFile(path); err != nil || json.Unmarshal(text, &known) != nil {
		return map[string]string{}
	}
	return known
}

// writeAccel remembers an answer. If it cannot, the next run tries again.
func writeAccel(path, key, answer string) {
	if path == "" || os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	known := readAccels(path)
	known[key] = answer
	text, err := json.Marshal(known)
	if err != nil {
		return
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	if os.WriteFile(temporary, text, 0o644) == nil {
		_ = os.Rename(temporary, path)
	}
}
