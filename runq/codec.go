package runq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A task's payload carries, in front of the job's, which handler it is for, how
// it is retried and when it is due: a worker that takes a queue over knows
// nothing else of it.
//
//	flags:8 | handler:32 | attempts:16, backoff in µs:32 if flagRetry |
//	deadline in µs:64 if flagDeadline | payload

const (
	flagRetry    = 1 << 0
	flagDeadline = 1 << 1
	shortHeader  = 5
	retryBytes   = 6
	longHeader   = shortHeader + retryBytes + 8
)

// envelope is an opened payload.
type envelope struct {
	handler  uint32
	retry    Retry
	deadline uint64 // Microseconds since the run began, 0 for none.
	payload  []byte
}

var errEnvelope = errors.New("payload has no header")

func appendEnvelope(b []byte, j *Job, handler uint32, deadline uint64) []byte {
	flags := byte(0)
	if j.Retry.Attempts > 1 {
		flags |= flagRetry
	}
	if deadline > 0 {
		flags |= flagDeadline
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, handler)
	if flags&flagRetry != 0 {
		b = binary.LittleEndian.AppendUint16(b, uint16(min(j.Retry.Attempts, 1<<16-1)))
		b = binary.LittleEndian.AppendUint32(b, uint32(min(j.Retry.Backoff, maxBackoff).Microseconds()))
	}
	if flags&flagDeadline != 0 {
		b = binary.LittleEndian.AppendUint64(b, deadline)
	}
	return append(b, j.Payload...)
}

func openEnvelope(b []byte) (env envelope, err error) {
	if len(b) < shortHeader {
		return env, errEnvelope
	}
	flags := b[0]
	env.handler, env.payload = binary.LittleEndian.Uint32(b[1:]), b[shortHeader:]
	if flags&flagRetry != 0 {
		if len(env.payload) < retryBytes {
			return env, errEnvelope
		}
		env.retry.Attempts = int(binary.LittleEndian.Uint16(env.payload))
		env.retry.Backoff = time.Duration(binary.LittleEndian.Uint32(env.payload[2:])) * time.Microsecond
		env.payload = env.payload[retryBytes:]
	}
	if flags&flagDeadline != 0 {
		if len(env.payload) < 8 {
			return env, errEnvelope
		}
		env.deadline = binary.LittleEndian.Uint64(env.payload)
		env.payload = env.payload[8:]
	}
	return env, nil
}

// A result is empty for success without a payload, or begins with how the task
// ended.
type ending uint8

const (
	endOK ending = iota
	endError
	endPanic
	endNoHandler
	endDeadline
	endPayload
)

func appendResult(b []byte, how ending, text string) []byte {
	return append(append(b, byte(how)), text...)
}

// stackMark parts the text of a panic from its stack.
const stackMark = "\x00"

// openResult reads a result. The payload is part of b.
func openResult(id ID, b []byte) (payload []byte, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	rest := b[1:]
	switch ending(b[0]) {
	case endOK:
		return rest, nil
	case endError:
		return nil, &HandlerError{Text: string(rest)}
	case endPanic:
		text, stack, _ := strings.Cut(string(rest), stackMark)
		return nil, &HandlerError{Text: text, Stack: stack}
	case endNoHandler:
		return nil, fmt.Errorf("run task %v: %w: handler number %s: register it before Main", id, ErrNoHandler, rest)
	case endDeadline:
		return nil, fmt.Errorf("run task %v: not started in time: %w", id, context.DeadlineExceeded)
	case endPayload:
		return nil, &LostError{id, LostPayload}
	}
	return nil, &HandlerError{Text: fmt.Sprintf("result begins with %d", b[0])}
}
