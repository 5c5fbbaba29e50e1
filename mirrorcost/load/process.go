package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
)

// StartOptions of [Start]. The zero value is useful.
type StartOptions struct {
	// Run records the process, so that it is found if this program is
	// killed; nil records nothing.
	Run *cleanup.Run
	// Logger gets what happens to the process; nil is silent.
	Logger *slog.Logger
}

// Process is a load that runs. Its methods may be called from several
// goroutines; they take turns.
type Process struct {
	cmd      *exec.Cmd
	run      *cleanup.Run
	recorded cleanup.Resource // zero unless in run
	logger   *slog.Logger
	threads  []int

	// turn holds one token: who has it may speak to the child.
	turn     chan struct{}
	requests *os.File
	replies  chan []byte
	stderr   *words

	// gone is closed when the child was waited for; then ended says how.
	gone  chan struct{}
	ended error

	closing  sync.Once
	closed   chan struct{}
	closeErr error
}

const (
	// politeTime is what a child has to end by itself. It does so at once,
	// unless a write hangs in the kernel.
	politeTime = 2 * time.Second
	// killTime is what a killed process may need to leave the kernel.
	killTime = 10 * time.Second
)

// Start starts the load and has it open the legs' files. The process writes
// nothing before [Process.Run]. The context bounds the start alone. The process
// dies with this one, whatever way it goes.
func Start(ctx context.Context, legs map[string]Spec, o StartOptions) (*Process, error) {
	if !hooked.Load() {
		return nil, fmt.Errorf("start load: %w", ErrNoHook)
	}
	if len(legs) == 0 {
		return nil, errors.New("start load: no legs: give at least one Spec")
	}
	specs := map[string]*Spec{}
	for legName, spec := range legs {
		if err := spec.check(); err != nil {
			return nil, fmt.Errorf("start load: leg %q: %w", legName, err)
		}
		specs[legName] = &spec
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	p, err := spawn(o)
	if err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	if o.Run != nil {
		if err := p.record(); err != nil {
			return nil, errors.Join(fmt.Errorf("start load: %w", err), p.Close())
		}
	}
	answer, err := p.call(ctx, &request{Open: specs})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start load: %w", err), p.Close())
	}
	p.threads = answer.Threads
	p.logger.Debug("the load runs", "pid", p.Pid(), "threads", len(p.threads))
	return p, nil
}

// spawn starts the child and the goroutines that attend to it.
func spawn(o StartOptions) (_ *Process, err error) {
	p := &Process{
		run:     o.Run,
		logger:  o.Logger,
		turn:    make(chan struct{}, 1),
		replies: make(chan []byte),
		stderr:  &words{},
		gone:    make(chan struct{}),
		closed:  make(chan struct{}),
	}
	if p.logger == nil {
		p.logger = slog.New(slog.DiscardHandler)
	}
	var theirs [2]*os.File
	defer func() {
		for _, f := range theirs {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
		}
	}()
	theirRequests, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	theirs[0] = theirRequests
	answers, theirReplies, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), ours.Close())
	}
	theirs[1] = theirReplies
	p.requests = ours
	// Not os.Args[0]: it may be gone, or another program by now.
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Args = []string{os.Args[0], "(load)"}
	p.cmd.Env = environment(os.Environ(), o.Run)
	p.cmd.Stderr = p.stderr
	p.cmd.ExtraFiles = theirs[:]
	p.cmd.WaitDelay = politeTime
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go p.keep(started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, ours.Close(), answers.Close())
	}
	go p.receive(answers)
	return p, nil
}

// environment is the child's: this program's, less what tunes Go's runtime.
func environment(of []string, run *cleanup.Run) []string {
	of = slices.DeleteFunc(slices.Clone(of), func(entry string) bool {
		key, _, _ := strings.Cut(entry, "=")
		return slices.Contains([]string{"GODEBUG", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK", childEnv, cleanup.EnvName}, key)
	})
	// The runtime would stop a thread by a signal when it has run for long,
	// which a writer does by design.
	of = append(of, "GODEBUG=asyncpreemptoff=1", childEnv+"=1")
	if run != nil {
		of = append(of, run.Env())
	}
	return of
}

// keep starts the child and waits for it. The kernel kills the child when the
// thread that forked it ends, not when the process does: so that thread is
// kept for as long as the child lives.
func (p *Process) keep(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	p.ended = p.cmd.Wait()
	close(p.gone)
}

// receive takes the child's answers in.
func (p *Process) receive(answers *os.File) {
	scanner := lines(answers)
	for scanner.Scan() {
		line := slices.Clone(scanner.Bytes())
		select {
		case p.replies <- line:
		case <-p.gone:
		}
	}
	if err := errors.Join(scanner.Err(), answers.Close()); err != nil {
		p.logger.Warn("read the load's answers", "error", err)
	}
	close(p.replies)
}

// record tells the run of the process.
func (p *Process) record() error {
	resource, err := cleanup.Process(p.Pid())
	if err != nil {
		return err
	}
	if err := p.run.Add(resource); err != nil {
		return err
	}
	p.recorded = resource
	return nil
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Threads are the thread numbers of the writers. Legs share them: a thread
// writes to the leg that a block names.
func (p *Process) Threads() []int { return slices.Clone(p.threads) }

// Run writes a block and returns when all threads are done. A write that fails
// ends it with a [WriteError]; the result then says what was acknowledged
// before, and the process can go on. If the context ends first, the process is
// killed: a write cannot be taken back, so there would be nothing true to say.
func (p *Process) Run(ctx context.Context, b Block) (Result, error) {
	if err := b.check(); err != nil {
		return Result{}, fmt.Errorf("run block: %w", err)
	}
	answer, err := p.call(ctx, &request{Run: &b})
	var result Result
	if answer != nil && answer.Done != nil {
		made, doneErr := answer.Done.result()
		result, err = made, errors.Join(err, doneErr)
	} else if err == nil {
		err = errMessage
	}
	if err != nil {
		return result, fmt.Errorf("run block: %w", err)
	}
	return result, nil
}

// Sync writes back the file systems that a leg's files are on (syncfs). If the
// context ends first, the process is killed.
func (p *Process) Sync(ctx context.Context, leg string) error {
	if _, err := p.call(ctx, &request{Sync: &leg}); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// call asks the child and waits for its answer. An answer may come together
// with an error: what the child did before it failed.
func (p *Process) call(ctx context.Context, r *request) (*reply, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, p.kill)
	answer, err := p.ask(r)
	if !stop() {
		select {
		case <-p.gone:
		case <-time.After(killTime):
			p.logger.Warn("the load was killed and does not die", "pid", p.Pid())
		}
		return nil, fmt.Errorf("the load was killed: %w", ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	return answer, answer.Failure.unpack()
}

// ask sends a request and takes the answer.
func (p *Process) ask(r *request) (*reply, error) {
	if err := send(p.requests, r); err != nil {
		if errors.Is(err, errMessage) {
			return nil, err
		}
		return nil, p.died(err)
	}
	line, ok := <-p.replies
	if !ok {
		return nil, p.died(io.ErrUnexpectedEOF)
	}
	return decodeReply(line)
}

// died says how the child ended. It has closed its pipes, so the end is near.
func (p *Process) died(why error) error {
	select {
	case <-p.closed:
		return ErrClosed
	default:
	}
	select {
	case <-p.gone:
	case <-time.After(killTime):
		return fmt.Errorf("%w: it closed its pipes and hangs: %w", ErrDied, why)
	}
	state := p.cmd.ProcessState.String()
	if said := p.stderr.String(); said != "" {
		return fmt.Errorf("%w: %s: %s", ErrDied, state, said)
	}
	return fmt.Errorf("%w: %s", ErrDied, state)
}

func (p *Process) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.logger.Warn("kill the load", "error", err)
	}
}

// Close ends the process: politely first, then by force, and waits for its end.
// It is idempotent. A block that runs ends with [ErrClosed].
func (p *Process) Close() error {
	p.closing.Do(func() {
		close(p.closed)
		p.closeErr = p.end()
	})
	return p.closeErr
}

func (p *Process) end() error {
	var errs []error
	errs = append(errs, p.requests.Close())
	select {
	case <-p.gone:
	case <-time.After(politeTime):
		p.kill()
		select {
		case <-p.gone:
		case <-time.After(killTime):
			// It stays recorded, for a later clean-up.
			return errors.Join(append(errs, fmt.Errorf("close load: process %d does not die: it may hang in the kernel, waiting for a device", p.Pid()))...)
		}
	}
	for range p.replies { // What it said last, until its pipe ends.
	}
	if p.recorded.Kind != "" {
		errs = append(errs, p.run.Done(p.recorded))
	}
	return errors.Join(errs...)
}

// words keeps what the child says on its standard error: the first line names a
// crash, the last ones say where it happened.
type words struct {
	mu         sync.Mutex
	head, tail []byte
	lost       bool
}

const (
	headBytes = 1 << 10
	tailBytes = 3 << 10
)

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(headBytes-len(w.head), len(b))
	w.head = append(w.head, b[:n]...)
	w.tail = append(w.tail, b[n:]...)
	if over := len(w.tail) - tailBytes; over > 0 {
		w.tail, w.lost = slices.Delete(w.tail, 0, over), true
	}
	return len(b), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	gap := ""
	if w.lost {
		gap = "\n…\n"
	}
	return strings.TrimSpace(string(w.head) + gap + string(w.tail))
}
