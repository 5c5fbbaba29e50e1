package vswitch

import (
	"bytes"
	"maps"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
	"github.com/coreplica/coreplica/internal/testkit"
)

// dirName is in the path of all sockets of these tests.
const dirName = "coreplica-vswitch-test"

func TestMain(m *testing.M) { testkit.Main(m, testkit.Files(os.TempDir(), dirName)) }

// newSwitch returns a switch whose end is checked: no goroutine, no socket and
// no error may be left.
func newSwitch(t *testing.T, o Options) *Switch {
	t.Helper()
	openSwitches.Add(1)
	dir, err := os.MkdirTemp("", dirName) // t.TempDir is too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := os.Remove(dir); err != nil { // It fails unless the folder is empty.
			t.Error(err)
			_ = os.RemoveAll(dir)
		}
		if openSwitches.Add(-1) == 0 && workers() != 0 {
			t.Errorf("%d goroutines are left", workers())
		}
	})
	return s
}

// openSwitches counts the switches of the running test.
var openSwitches atomic.Int32

// workers counts the goroutines of all switches.
func workers() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("(*Switch).receive(")) + bytes.Count(stacks, []byte("(*Switch).transmit("))
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// station stands in for a guest: it does with its sockets what QEMU does.
type station struct {
	t    *testing.T
	port Port
	mac  net.HardwareAddr
	conn *net.UnixConn
	done sync.WaitGroup

	mu  sync.Mutex
	got map[uint32]int // copies by tag
	seq []uint32       // tags in the order of arrival
}

// plugIn adds a port with a declared address and a station that reads.
func plugIn(t *testing.T, s *Switch, name string, n int) *station {
	t.Helper()
	p, err := s.AddPort(name, address(n))
	if err != nil {
		t.Fatal(err)
	}
	st := bind(t, p, n)
	st.listen()
	return st
}

func bind(t *testing.T, p Port, n int) *station {
	t.Helper()
	// A connected socket, so that a write waits while the switch is busy.
	conn, err := net.DialUnix("unixgram", &net.UnixAddr{Name: p.LocalPath, Net: "unixgram"}, &net.UnixAddr{Name: p.RemotePath, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	st := &station{t: t, port: p, mac: address(n), conn: conn, got: map[uint32]int{}}
	t.Cleanup(st.unplug)
	return st
}

func (st *station) listen() {
	st.done.Go(func() {
		buffer := make([]byte, MaxFrame)
		for {
			n, err := st.conn.Read(buffer)
			if err != nil {
				return
			}
			if n >= 18 {
				st.mu.Lock()
				st.got[tagOf(buffer)]++
				st.seq = append(st.seq, tagOf(buffer))
				st.mu.Unlock()
			}
		}
	})
}

func (st *station) unplug() {
	_ = st.conn.Close() // Closing twice is no fault here.
	st.done.Wait()
}

func (st *station) send(to net.HardwareAddr, tag uint32) {
	st.t.Helper()
	st.sendRaw(ethernet(to, st.mac, tag))
}

func (st *station) sendRaw(frame []byte) {
	st.t.Helper()
	if _, err := st.conn.Write(frame); err != nil {
		st.t.Errorf("send from %s: %v", st.port.Name, err)
	}
}

// received returns the copies by tag.
func (st *station) received() map[uint32]int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return maps.Clone(st.got)
}

// settle waits until the switch has received so many frames, nothing waits in
// it and the stations have read what it delivered.
func settle(t *testing.T, s *Switch, frames uint64, stations ...*station) Stats {
	t.Helper()
	var stats Stats
	eventually(t, "the network is quiet", func() bool {
		stats = s.Stats()
		in, read := uint64(0), uint64(0)
		for _, p := range stats.Ports {
			in += p.Received
		}
		for _, st := range stations {
			for _, copies := range st.received() {
				read += uint64(copies)
			}
		}
		total := stats.Total()
		return in == frames && total.Queued() == 0 && read == total.Delivered
	})
	return stats
}

func rules(t *testing.T, text string) faults.Rules {
	t.Helper()
	r, err := faults.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
