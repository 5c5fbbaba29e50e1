package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/mirrorcost"
)

// meter shows how far a run is: a line that rewrites itself on a terminal, and
// a line per phase elsewhere.
type meter struct {
	w        io.Writer
	terminal bool
	started  time.Time
	stop     chan struct{}
	wait     sync.WaitGroup

	mu   sync.Mutex
	last mirrorcost.Progress
	at   time.Time
}

const meterTick = 500 * time.Millisecond

func newMeter(w io.Writer) *meter {
	m := &meter{w: w, started: time.Now(), stop: make(chan struct{})}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		m.terminal = err == nil
	}
	if m.terminal {
		m.wait.Go(m.redraw)
	}
	return m
}

// tell takes the news of a run.
func (m *meter) tell(p mirrorcost.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news := p.Phase != m.last.Phase
	m.last, m.at = p, time.Now()
	if news && !m.terminal {
		fmt.Fprintf(m.w, "%3.0f %%  %s, about %s left\n", 100*p.Done, p.Phase, p.Left.Round(time.Second))
	}
}

func (m *meter) redraw() {
	tick := time.NewTicker(meterTick)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			m.mu.Lock()
			if m.last.Phase != "" {
				left := max(m.last.Left-time.Since(m.at), 0)
				fmt.Fprintf(m.w, "\r\x1b[K%3.0f %%  %s, about %s left", 100*m.last.Done, m.last.Phase, left.Round(time.Second))
			}
			m.mu.Unlock()
		}
	}
}

// close leaves a clean line behind.
func (m *meter) close() {
	close(m.stop)
	m.wait.Wait()
	if m.terminal {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}
