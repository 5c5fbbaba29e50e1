package load

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// childEnv marks the process that [Hook] turns into a load.
const childEnv = "COREPLICA_LOAD_CHILD"

// hooked is true once the program has called [Hook].
var hooked atomic.Bool

// The exit codes of the child. What went wrong is on its standard error, which
// the parent keeps.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Hook turns the process into the load if [Start] made it, and does not return
// then. Call it first thing in main, and in the TestMain of tests: what runs
// before it runs in the load too.
func Hook() {
	hooked.Store(true)
	if os.Getenv(childEnv) == "" {
		return
	}
	for _, fd := range []int{requestFD, replyFD} {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
			fmt.Fprintf(os.Stderr, "%s is set, but descriptor %d is no pipe: unset it, it is for the program's own use\n", childEnv, fd)
			os.Exit(exitUsage)
		}
		unix.CloseOnExec(fd)
	}
	if err := serve(os.NewFile(requestFD, "requests"), os.NewFile(replyFD, "replies")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
	os.Exit(0)
}

// memoryLimit is where the collector wakes up after all. The load itself does
// not come near it: it is there so that a mistake costs a pause and not the
// machine.
const memoryLimit = 256 << 20

// serve is the child: it answers requests until the pipe ends.
func serve(requests io.Reader, replies io.Writer) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	name("coreplica-load")
	// A write past `ulimit -f` shall fail with EFBIG, like any other failure,
	// and not end the process.
	signal.Ignore(unix.SIGXFSZ)
	incoming := make(chan []byte)
	go listen(requests, incoming)
	c := &child{legs: map[string]*leg{}}
	for line := range incoming {
		answer := c.answer(line)
		if err := send(replies, answer); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return nil
}

// listen reads requests. A pipe that ends in the middle of a block means that
// the parent is gone or wants no more of it: the process ends there and then,
// whatever its threads are doing.
func listen(requests io.Reader, incoming chan<- []byte) {
	scanner := lines(requests)
	for scanner.Scan() {
		incoming <- append([]byte(nil), scanner.Bytes()...)
	}
	if err := scanner.Err(); err != nil {
		fmt.Fprintf(os.Stderr, "read requests: %v\n", err)
		os.Exit(exitFailed)
	}
	os.Exit(0)
}

// child is the load's process: its threads, and the legs that they write to.
type child struct {
	threads []*thread
	legs    map[string]*leg
	sum     *recorder
	pairs   []uint64
}

func (c *child) answer(line []byte) *reply {
	r, err := decodeRequest(line)
	if err != nil {
		return &reply{Failure: pack(err)}
	}
	switch {
	case r.Open != nil:
		tids, err := c.open(r.Open)
		return &reply{Threads: tids, Failure: pack(err)}
	case r.Run != nil:
		d, err := c.run(r.Run)
		return &reply{Done: d, Failure: pack(err)}
	default:
		return &reply{Failure: pack(c.sync(*r.Sync))}
	}
}

// open opens all files, sets up all rings and starts the threads: after it,
// nothing more is allocated.
func (c *child) open(specs map[string]*Spec) ([]int, error) {
	if len(c.threads) > 0 {
		return nil, errors.New("the legs are open already")
	}
	count := 0
	for legName, spec := range specs {
		l, err := openLeg(spec)
		if err != nil {
			return nil, fmt.Errorf("leg %q: %w", legName, err)
		}
		c.legs[legName] = l
		count = max(count, len(l.lanes))
	}
	// A thread holds its P for as long as a block runs, also in a system
	// call: see lane.write. One P more is for the goroutines that talk to
	// the parent, and that sleep meanwhile.
	runtime.GOMAXPROCS(count + 1)
	c.sum = newRecorder()
	c.pairs = make([]uint64, 0, 2*bucketCount)
	var tids []int
	for i := range count {
		t, err := startThread(i)
		if err != nil {
			return nil, fmt.Errorf("start thread %d: %w", i, err)
		}
		c.threads = append(c.threads, t)
		tids = append(tids, t.tid)
	}
	return tids, nil
}

var errNoLeg = errors.New("there is no such leg: name one that was given to Start")

// run lets the threads write one block. The result is true also where it comes
// with an error.
func (c *child) run(b *Block) (*done, error) {
	l := c.legs[b.Leg]
	if l == nil {
		return nil, fmt.Errorf("run on %q: %w", b.Leg, errNoLeg)
	}
	var stop atomic.Bool
	threads := c.threads[:len(l.lanes)]
	for i, t := range threads {
		t.order = newOrder(b, l, i, &stop)
	}
	for _, t := range threads {
		t.begin <- struct{}{}
	}
	d := &done{}
	var errs []error
	var spins []int64
	first, last := int64(math.MaxInt64), int64(0)
	for _, t := range threads {
		<-t.end
		if t.acknowledged > 0 {
			first, last = min(first, t.first), max(last, t.last)
		}
		d.Acknowledged += t.acknowledged
		d.Late += t.late
		d.ThreadCPUNs += uint64(t.cpuNs)
		spins = append(spins, t.spinTimes...)
		t.latencies.drainInto(c.sum)
		errs = append(errs, t.err)
	}
	d.Bytes = d.Acknowledged * uint64(l.spec.SizeBytes)
	d.ElapsedNs = max(last-first, 0)
	if len(spins) > 0 {
		slices.Sort(spins)
		d.SpinNs = spins[len(spins)/2]
		var total int64
		for _, ns := range spins {
			total += ns
		}
		d.SpinMeanNs = total / int64(len(spins))
	}
	c.pairs = c.sum.drainPairs(c.pairs[:0])
	d.Latencies = c.pairs
	return d, errors.Join(errs...)
}

// sync writes back the file systems that a leg's files are on.
func (c *child) sync(legName string) error {
	l := c.legs[legName]
	if l == nil {
		return fmt.Errorf("sync %q: %w", legName, errNoLeg)
	}
	seen := map[uint64]bool{}
	for _, lane := range l.lanes {
		for _, f := range lane.files {
			if seen[f.device] {
				continue
			}
			seen[f.device] = true
			if err := unix.Syncfs(f.fd); err != nil {
				return fmt.Errorf("sync the file system of %s: %w", f.path, err)
			}
		}
	}
	return nil
}
