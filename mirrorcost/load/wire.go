package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The two pipes of the child. Standard input and output stay the program's own.
const (
	requestFD = 3
	replyFD   = 4
)

// maxLine bounds a message: a thousand threads with some files each, or a
// histogram with all buckets in use, take less.
const maxLine = 16 << 20

// request is a line from the parent. Exactly one field is set.
type request struct {
	// Open comes first, and once: the legs.
	Open map[string]*Spec `json:"open,omitempty"`
	Run  *Block           `json:"run,omitempty"`
	// Sync is the name of a leg.
	Sync *string `json:"sync,omitempty"`
}

// reply is a line from the child, one for each request in turn.
type reply struct {
	// Threads answers Open.
	Threads []int `json:"threads,omitempty"`
	// Done answers Run, also when the block failed.
	Done *done `json:"done,omitempty"`
	// Failure is what went wrong, or nil.
	Failure *failure `json:"failure,omitempty"`
}

// done is a [Result] before its histogram is made.
type done struct {
	Acknowledged uint64   `json:"acknowledged"`
	Bytes        uint64   `json:"bytes"`
	ElapsedNs    int64    `json:"elapsed_ns"`
	ThreadCPUNs  uint64   `json:"thread_cpu_ns"`
	SpinNs       int64    `json:"spin_ns"`
	SpinMeanNs   int64    `json:"spin_mean_ns"`
	Late         uint64   `json:"late"`
	Latencies    []uint64 `json:"latencies"`
}

func (d *done) result() (Result, error) {
	encoded, total, err := encodeLatencies(d.Latencies)
	if err != nil {
		return Result{}, err
	}
	if total != d.Acknowledged {
		return Result{}, fmt.Errorf("%w: %d latencies of %d writes", errPairs, total, d.Acknowledged)
	}
	return Result{
		Acknowledged: d.Acknowledged,
		Bytes:        d.Bytes,
		Elapsed:      time.Duration(d.ElapsedNs),
		ThreadCPUNs:  d.ThreadCPUNs,
		Spin:         time.Duration(d.SpinNs),
		SpinMean:     time.Duration(d.SpinMeanNs),
		Late:         d.Late,
		Latencies:    encoded,
	}, nil
}

// errMessage is returned for a line that the other side cannot have sent.
var errMessage = errors.New("a message makes no sense")

// decodeRequest reads one line and checks that the child can do what it asks.
func decodeRequest(line []byte) (*request, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	asked := 0
	for _, is := range []bool{r.Open != nil, r.Run != nil, r.Sync != nil} {
		if is {
			asked++
		}
	}
	if asked != 1 {
		return nil, fmt.Errorf("read request: %w: it asks for %d things", errMessage, asked)
	}
	for name, spec := range r.Open {
		if spec == nil {
			return nil, fmt.Errorf("read request: %w: leg %q is empty", errMessage, name)
		}
		if err := spec.check(); err != nil {
			return nil, fmt.Errorf("leg %q: %w", name, err)
		}
	}
	if r.Run != nil {
		if err := r.Run.check(); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// decodeReply reads one line and checks that it can be an answer.
func decodeReply(line []byte) (*reply, error) {
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("read reply: %w", err)
	}
	if r.Done != nil && (r.Done.ElapsedNs < 0 || len(r.Done.Latencies) > 2*bucketCount) {
		return nil, fmt.Errorf("read reply: %w", errMessage)
	}
	return &r, nil
}

// lines yields the messages of a pipe until it ends.
func lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return s
}

// send writes one message as one line.
func send(w io.Writer, message any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(line)+1 > maxLine {
		return fmt.Errorf("%w: it has %d bytes, more than %d", errMessage, len(line), maxLine)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
