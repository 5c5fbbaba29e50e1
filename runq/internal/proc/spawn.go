package proc

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/numa"
)

// SpawnOptions say how a worker is started.
type SpawnOptions struct {
	// Log gets each line that the worker prints. Without one they go to standard
	// error: standard output is the opener's.
	Log *slog.Logger
	// Env is added to the environment.
	Env []string
	// CPUs are those that the worker will bind itself to, none for all. Its end is
	// listened for on others: while the kernel takes a process apart, nobody else
	// may run there.
	CPUs numa.List
}

// outputPatience bounds the wait for output that a worker's own children hold open.
const outputPatience = time.Second

// lineBytesLimit cuts lines that are long or never end.
const lineBytesLimit = 64 << 10

// Exit says how a worker ended.
type Exit struct {
	Code   int // -1 where a signal ended it.
	Signal syscall.Signal
	// Ours is true where the signal was our Kill, or one that ExpectKill announced.
	Ours bool
}

// Worker is the opener's side of a worker.
type Worker struct {
	Index int
	Life  uint64
	Boot  *Boot

	pidfd  *os.File
	cmd    *exec.Cmd
	knell  *knell
	killed atomic.Bool
	done   chan struct{}
	exit   Exit
	over   chan struct{}
	mu     sync.Mutex // Of heirs.
	heirs  []func(Exit)
	once   sync.Once
}

// Spawn runs the program once more as a worker. The worker sets its affinity
// itself.
func Spawn(index int, life uint64, o SpawnOptions) (*Worker, error) {
	w, err := spawn(index, life, o)
	if err != nil {
		return nil, fmt.Errorf("spawn worker %d: %w", index, err)
	}
	return w, nil
}

func spawn(index int, life uint64, o SpawnOptions) (*Worker, error) {
	ours, theirs, err := pair(unix.SOCK_SEQPACKET, "boot")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	boot, err := newBoot(ours)
	if err != nil {
		return nil, err
	}
	self, err := Self()
	if err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	defer self.Close()
	page, err := newKnell()
	if err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	defer page.Close()
	token := rand.Text()
	if err := boot.Send(Message{Kind: kindHello, Peer: index, Life: life, Data: []byte(token), Files: []*os.File{self, page}}); err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	fd := -1
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{os.Args[0]}
	cmd.Env = append(append(os.Environ(), o.Env...), workerEnv+"="+token)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &fd, Pdeathsig: syscall.SIGCONT}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	var lines *lineLogger
	if o.Log != nil {
		lines = &lineLogger{log: o.Log.With("worker", index, "life", life)}
		cmd.Stdout, cmd.Stderr = lines, lines
		cmd.WaitDelay = outputPatience
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	w := &Worker{Index: index, Life: life, Boot: boot, cmd: cmd, done: make(chan struct{}), over: make(chan struct{})}
	w.knell, err = mapKnell(page)
	var died <-chan struct{}
	if err == nil {
		died, err = w.watch(fd)
	}
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill(), cmd.Wait(), boot.Close())
		if w.knell != nil {
			err = errors.Join(err, w.knell.unmap())
		}
		return nil, err
	}
	go aside(o.CPUs, func() { w.listen(died) })
	go w.reap(died, lines)
	return w, nil
}

func (w *Worker) watch(fd int) (<-chan struct{}, error) {
	if fd < 0 {
		return nil, errors.New("the kernel gave no pidfd: it needs Linux 5.4")
	}
	var err error
	if w.pidfd, err = newFile(fd, "pidfd"); err != nil {
		return nil, err
	}
	died, _, err := Watch(w.pidfd)
	if err != nil {
		return nil, errors.Join(err, w.pidfd.Close())
	}
	return died, nil
}

// aside runs a function on a thread of its own, away from some CPUs where there are
// others.
func aside(cpus numa.List, f func()) {
	runtime.LockOSThread() // For good: the thread ends with the goroutine.
	if unix.Gettid() == os.Getpid() {
		// Its affinity passes for the process's. While it is kept, another
		// goroutine is on another thread.
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		go func() {
			defer close(done)
			aside(cpus, f)
		}()
		<-done
		return
	}
	if all, err := numa.Affinity(0); err == nil {
		if others := all.Minus(cpus); len(others) > 0 {
			_ = numa.Rebind(others) // Else news may be late.
		}
	}
	f()
}

// How often a process that ends is looked at, until it is over. Most are at the
// first or second look; one whose loop alone has ended may live on.
const (
	firstNap = 100 * time.Microsecond
	lastNap  = 5 * time.Millisecond
)

// listen notices that the worker is over. It has the page to itself once the
// process is dead, since reap rings then.
func (w *Worker) listen(died <-chan struct{}) {
	w.knell.await()
	nap := firstNap
	// The number is ours until the process is reaped, which follows its death.
	for !isClosed(died) && !over(w.cmd.Process.Pid) {
		// Timers of the runtime may be a millisecond late.
		ts := unix.NsecToTimespec(nap.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil)
		nap = min(nap+nap/16, lastNap)
	}
	w.mu.Lock()
	close(w.over)
	heirs := w.heirs
	w.heirs = nil
	w.mu.Unlock()
	for _, tell := range heirs {
		tell(w.last())
	}
	<-w.done
	_ = w.knell.unmap() // A page more or less.
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// reap waits for the death by pidfd first: the descriptor that package os waits
// on is the same open file and does not block.
func (w *Worker) reap(died <-chan struct{}, lines *lineLogger) {
	<-died
	w.knell.ring()
	<-w.over         // Whoever looks at the process's number is done with it.
	_ = w.cmd.Wait() // The state says more than the error.
	if lines != nil {
		lines.flush()
	}
	w.exit = Exit{Code: w.cmd.ProcessState.ExitCode()}
	if status, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		w.exit.Signal = status.Signal()
	}
	close(w.done)
}

// Pidfd returns the worker's pidfd, which is the worker's to close.
func (w *Worker) Pidfd() *os.File { return w.pidfd }

// PID returns the process's number, for people to read: signals go by pidfd.
func (w *Worker) PID() int { return w.cmd.Process.Pid }

// Done is closed when the worker is dead and waited for.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Over has a function called when no thread of the worker will perform one more
// instruction, with how it ended. A worker that was killed is over before it is dead,
// by the time that the kernel takes for its memory. One that ends in another way is over
// when Done is about to be closed. The call comes from the thread that notices, which
// is the quickest, or from Over itself if the worker is over already.
func (w *Worker) Over(tell func(Exit)) {
	w.mu.Lock()
	before := !isClosed(w.over)
	if before {
		w.heirs = append(w.heirs, tell)
	}
	w.mu.Unlock()
	if !before {
		tell(w.last())
	}
}

// last says how a worker that is over ended.
func (w *Worker) last() Exit {
	if Exited(w.pidfd) {
		return w.Exit()
	}
	return Exit{Code: -1, Signal: syscall.SIGKILL, Ours: w.killed.Load()}
}

// Exit says how the worker ended. It waits for Done. Whether the kill was ours is
// looked up at each call, so an announcement that arrives late still counts.
func (w *Worker) Exit() Exit {
	<-w.done
	exit := w.exit
	exit.Ours = exit.Signal == syscall.SIGKILL && w.killed.Load()
	return exit
}

// ExpectKill says that another process of the group kills the worker, which
// is then no crash: Exit calls a SIGKILL ours. The announcement and the death
// come by different ways, so it may follow the death. Any other end stays what
// it is.
func (w *Worker) ExpectKill() { w.killed.Store(true) }

// moveAfter is how long a worker that was killed may take to be over before it is
// moved to another CPU. Most need no help to die, and one that is moved dies on a
// CPU that others want.
const moveAfter = 2 * time.Millisecond

// Kill kills the worker. If it is not over soon, because real-time threads keep its
// CPU, it is moved to one where it gets to die. Kill does not wait.
func (w *Worker) Kill() error {
	w.killed.Store(true)
	err := Kill(w.pidfd)
	if errors.Is(err, ErrExited) {
		return nil
	}
	if err == nil {
		time.AfterFunc(moveAfter, func() {
			select {
			case <-w.over:
			default:
				_ = moveHere(w.pidfd) // It is killed all the same.
			}
		})
	}
	return err
}

// Close kills the worker, waits for it and closes what belongs to it.
func (w *Worker) Close() error {
	var err error
	w.once.Do(func() {
		if err = w.Kill(); err == nil {
			<-w.done
		}
		err = errors.Join(err, w.Boot.Close(), w.pidfd.Close())
	})
	return err
}

// lineLogger logs what is written to it line by line.
type lineLogger struct {
	log  *slog.Logger
	rest []byte
}

// Write is called by one goroutine: package exec sees that both outputs are one.
// Longer lines than the limit are logged in pieces, so that neither a line nor the
// memory for it grows without bound.
func (l *lineLogger) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	todo := l.rest
	for {
		line, after, ended := bytes.Cut(todo, []byte("\n"))
		switch {
		case len(line) > lineBytesLimit:
			line, after = todo[:lineBytesLimit], todo[lineBytesLimit:]
		case !ended:
			l.rest = append(l.rest[:0], todo...)
			return len(p), nil
		}
		l.log.Info(string(line))
		todo = after
	}
}

// flush logs a last line that did not end.
func (l *lineLogger) flush() {
	if len(l.rest) > 0 {
		l.log.Info(string(l.rest))
		l.rest = nil
	}
}
