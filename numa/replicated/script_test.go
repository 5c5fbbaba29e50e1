package replicated

import (
	"sync"
	"testing"
	"time"
)

// script stops threads at steps of the protocol. A stop catches the first thread
// that reaches its step on its node, once.
type script struct {
	mu    sync.Mutex
	stops []*stop
}

type stop struct {
	step    step
	node    int
	caught  bool
	reached chan struct{} // closed when a thread is caught
	resume  chan struct{} // closed to let it go
}

// install makes a structure follow the script. It must not be in use.
func (s *script) install(x *kvRep, off guard) { x.probe = &probe{at: s.at, off: off} }

// stop arms a stop. The thread that it catches goes on at the end of the test at
// the latest.
func (s *script) stop(t testing.TB, at step, node int) *stop {
	b := &stop{step: at, node: node, reached: make(chan struct{}), resume: make(chan struct{})}
	s.mu.Lock()
	s.stops = append(s.stops, b)
	s.mu.Unlock()
	t.Cleanup(b.release)
	return b
}

func (s *script) at(reached step, node int) {
	s.mu.Lock()
	var hit *stop
	for _, b := range s.stops {
		if !b.caught && b.step == reached && b.node == node {
			b.caught, hit = true, b
			break
		}
	}
	s.mu.Unlock()
	if hit != nil {
		close(hit.reached)
		<-hit.resume
	}
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// wait waits until a thread is caught.
func (b *stop) wait(t testing.TB) {
	t.Helper()
	select {
	case <-b.reached:
	case <-time.After(patience):
		t.Fatalf("no thread came to step %q on node %d", b.step, b.node)
	}
}

var releasing sync.Mutex

func (b *stop) release() {
	releasing.Lock()
	defer releasing.Unlock()
	select {
	case <-b.resume:
	default:
		close(b.resume)
	}
}

// soon runs do and fails the test if it does not return.
func soon(t testing.TB, what string, do func()) {
	t.Helper()
	done := background(do)
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: still blocked after %v", what, patience)
	}
}

// background runs do and returns a channel that is closed when it has returned.
func background(do func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	return done
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}
