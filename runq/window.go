package runq

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/coreplica/coreplica/runq/internal/proc"
)

// window is where other processes look at a named queue.
type window struct {
	q     *Queue
	l     *net.UnixListener
	ended sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
}

const (
	// lookers is how many are answered at a time. The others wait in line.
	lookers = 4
	// lookTime is how long one may take, so that nobody stands in the way.
	lookTime = time.Second
	// mostQuestion bounds a question, which is one short line.
	mostQuestion = 4 << 10
)

func openWindow(q *Queue, name *proc.Name) (*window, error) {
	l, err := name.Listen()
	if err != nil {
		return nil, err
	}
	w := &window{q: q, l: l, open: map[net.Conn]struct{}{}}
	for range lookers {
		w.ended.Go(w.serve)
	}
	return w, nil
}

func (w *window) serve() {
	for {
		conn, err := w.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: the queue's work goes on.
			w.q.opts.Logger.Error("let somebody look at the queue", "error", err)
			if w.rest() {
				return
			}
			continue
		}
		late := conn.SetDeadline(time.Now().Add(lookTime)) // Before close sets another.
		w.mu.Lock()
		closed := w.closed || late != nil
		if !closed {
			w.open[conn] = struct{}{}
		}
		w.mu.Unlock()
		if !closed {
			w.answer(conn)
		}
		w.mu.Lock()
		delete(w.open, conn)
		w.mu.Unlock()
		_ = conn.Close() // What there was to say was said, or could not be.
	}
}

// rest waits a while, and reports whether the queue closes.
func (w *window) rest() bool {
	timer := time.NewTimer(lookTime)
	defer timer.Stop()
	select {
	case <-w.q.closing:
		return true
	case <-timer.C:
		return false
	}
}

// answer answers one question. Whoever asks may go before the answer.
func (w *window) answer(conn net.Conn) {
	line, err := bufio.NewReader(io.LimitReader(conn, mostQuestion)).ReadBytes('\n')
	if err != nil {
		return
	}
	var ask question
	var reply any
	switch err := json.Unmarshal(line, &ask); {
	case err != nil:
		reply = refusal{"read question: " + err.Error()}
	case ask.Want != SnapshotSchema:
		reply = refusal{fmt.Sprintf("there is no %q here, only %s", ask.Want, SnapshotSchema)}
	default:
		reply = w.q.Snapshot()
	}
	_ = json.NewEncoder(conn).Encode(reply)
}

type refusal struct {
	Error string `json:"error"`
}

// close ends all looking. The memory may go when it returns.
func (w *window) close() error {
	w.mu.Lock()
	w.closed = true
	for conn := range w.open {
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
	w.mu.Unlock()
	err := w.l.Close()
	w.ended.Wait()
	if err != nil {
		return fmt.Errorf("close the queue's socket: %w", err)
	}
	return nil
}
