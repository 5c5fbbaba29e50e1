package runq

import (
	"context"
	"sync"
	"time"
)

// attemptContext is a handler's context. A package context of its own for each
// attempt would be most of what the queue allocates; this one makes its channel
// only when somebody asks, and is used again only if nobody did.
type attemptContext struct {
	mu       sync.Mutex
	done     chan struct{}
	err      error
	deadline time.Time
	timer    *time.Timer
}

// closedChannel is the Done of a context that had ended before it was asked.
var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Deadline implements [context.Context].
func (c *attemptContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements [context.Context].
func (c *attemptContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			c.done = closedChannel
		}
	}
	return c.done
}

// Err implements [context.Context].
func (c *attemptContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value implements [context.Context].
func (c *attemptContext) Value(any) any { return nil }

// begin starts an attempt's time.
func (c *attemptContext) begin(deadline time.Time) {
	c.deadline = deadline
	if !deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(deadline), func() { c.end(context.DeadlineExceeded) })
	}
}

// end ends the context, the first time.
func (c *attemptContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
}

// finish ends the context when its handler has returned, and reports whether it
// can serve another attempt: nobody can be waiting for its end.
func (c *attemptContext) finish() (reusable bool) {
	if c.timer != nil {
		c.timer.Stop()
		c.end(context.Canceled)
		return false
	}
	c.mu.Lock()
	reusable = c.done == nil
	if reusable {
		c.err = nil
	}
	c.mu.Unlock()
	if !reusable {
		c.end(context.Canceled)
	}
	return reusable
}
