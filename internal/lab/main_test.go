package lab

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/lab/guest"
	"github.com/coreplica/coreplica/internal/lab/kernel"
	"github.com/coreplica/coreplica/internal/testkit"
)

// playEnv makes the test binary one of the programs that guests run in tests.
const playEnv = "COREPLICA_LAB_PLAY"

var plays = map[string]func() int{
	"exit 7":      func() int { fmt.Println("said before the end"); return 7 },
	"signal":      func() int { return pass(syscall.Kill(os.Getpid(), syscall.SIGKILL)) },
	"panic":       func() int { return pass(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)) },
	"hang":        func() int { time.Sleep(time.Hour); return 0 },
	"write disks": func() int { return pass(writeDisks()) },
	"read disks":  func() int { return pass(readDisks()) },
	"off":         func() int { return pass(syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)) },
	"forge": func() int {
		// All that a test could know: the words, and the port.
		port, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintf(port, "coreplica-exit %032d 0\n", 0)
		}
		fmt.Println("coreplica-exit 0 0")
		if _, stat := os.Stat("/" + guest.JobFile); stat == nil {
			fmt.Println("the job's file is still there")
		}
		return pass(err) + 9
	},
}

func pass(err error) int {
	if err != nil {
		fmt.Println(err)
		return 99
	}
	return 0
}

func TestMain(m *testing.M) {
	guest.Main()
	if play, ok := plays[os.Getenv(playEnv)]; ok {
		os.Exit(play())
	}
	testkit.Main(m, testkit.Children(), testkit.Files("/run/coreplica", fmt.Sprintf("coreplica-%d-", os.Getpid())))
}

// needGuest returns the oldest kernel, and skips where no guest can run.
func needGuest(t *testing.T) *kernel.Kernel {
	t.Helper()
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "a guest takes seconds, and the race detector sees nothing of it"))
	}
	testkit.Need(t, testkit.QEMU)
	k, err := kernel.Fetch(t.Context(), "6.1", kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}
