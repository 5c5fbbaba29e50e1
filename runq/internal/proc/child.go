package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	workerEnv = "COREPLICA_RUNQ_WORKER"
	bootFD    = 3
	kindHello = "hello"
	// helloPatience bounds how long a worker waits for its opener, which sends
	// the greeting before it starts the worker.
	helloPatience = 10 * time.Second
)

// ErrNotSpawned says that somebody set the worker's mark by hand.
var ErrNotSpawned = errors.New("start worker: " + workerEnv + " is set, and no opener stands behind it: unset it")

// Started is the worker's side of a spawned process.
type Started struct {
	Boot *Boot
	// Opener is the opener's pidfd: see Watch.
	Opener *os.File
	Index  int
	Life   uint64

	knell *knell
}

// TellEnd has the kernel tell the opener at once when the calling goroutine's thread
// ends, which is this goroutine's from now on. Without it the opener hears of the
// worker's death when all its memory is taken apart.
func (s *Started) TellEnd() error {
	if err := s.knell.hang(); err != nil {
		return fmt.Errorf("have the kernel tell the worker's end: %w", err)
	}
	return nil
}

// Child reports whether this process was spawned as a worker. It must come first
// in main. The mark is removed, so the worker's own children do not carry it.
func Child() (*Started, bool, error) {
	token := os.Getenv(workerEnv)
	if token == "" {
		return nil, false, nil
	}
	if err := os.Unsetenv(workerEnv); err != nil {
		return nil, true, fmt.Errorf("start worker: %w", err)
	}
	// The socket pair was made by the parent, and only the kernel says so.
	cred, err := unix.GetsockoptUcred(bootFD, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || int(cred.Pid) != os.Getppid() {
		return nil, true, ErrNotSpawned
	}
	unix.CloseOnExec(bootFD)
	file, err := newFile(bootFD, "boot")
	if err != nil {
		return nil, true, err
	}
	boot, err := newBoot(file)
	if err != nil {
		return nil, true, err
	}
	_ = boot.conn.SetReadDeadline(time.Now().Add(helloPatience)) // A socket that refuses fails below.
	hello, err := boot.Receive()
	if err != nil || hello.Kind != kindHello || string(hello.Data) != token || len(hello.Files) != 2 {
		closeAll(hello.Files)
		return nil, true, errors.Join(ErrNotSpawned, err, boot.Close())
	}
	if err := boot.conn.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, net.ErrClosed) {
		return nil, true, err
	}
	page, err := mapKnell(hello.Files[1])
	if err = errors.Join(err, hello.Files[1].Close()); err != nil {
		return nil, true, err
	}
	return &Started{boot, hello.Files[0], hello.Peer, hello.Life, page}, true, nil
}
