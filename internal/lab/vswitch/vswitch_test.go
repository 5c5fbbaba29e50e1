package vswitch

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// The control for all that follows: without rules everything comes, once and in
// order.
func TestNothingIsLostWithoutFaults(t *testing.T) {
	s := newSwitch(t, Options{Seed: 1})
	a, b, c := plugIn(t, s, "a", 1), plugIn(t, s, "b", 2), plugIn(t, s, "c", 3)
	const n = 1009
	for tag := range uint32(n) {
		a.send(b.mac, tag)
	}
	for tag := range uint32(n) {
		b.send(broadcast, n+tag)
	}
	stats := settle(t, s, 2*n, a, b, c)
	want := Counters{Frames: n, Bytes: n * 64, Delivered: n}
	for l, c := range stats.Links {
		expect := want
		if l != (Link{"a", "b"}) && l.From != "b" {
			expect = Counters{}
		}
		if c != expect {
			t.Errorf("link %s: %+v, want %+v", l, c, expect)
		}
	}
	for _, st := range []*station{a, b, c} {
		first := map[string]uint32{"a": n, "b": 0, "c": n}[st.port.Name]
		if len(st.seq) != n {
			t.Fatalf("%s got %d frames, want %d", st.port.Name, len(st.seq), n)
		}
		for i, tag := range st.seq {
			if tag != first+uint32(i) {
				t.Fatalf("%s got frame %d in place %d", st.port.Name, tag, i)
			}
		}
	}
}

func TestPartitionAndHeal(t *testing.T) {
	s := newSwitch(t, Options{})
	var all []*station
	for i, name := range []string{"a", "b", "c", "d"} {
		all = append(all, plugIn(t, s, name, i+1))
	}
	sent := uint64(0)
	// round sends one broadcast from each and says who heard whom.
	round := func(tag uint32) string {
		for i, st := range all {
			st.send(broadcast, tag+uint32(i))
			sent++
		}
		settle(t, s, sent, all...)
		var rows []string
		for i := range all {
			row := ""
			for _, to := range all {
				row += string(rune('0' + to.received()[tag+uint32(i)]))
			}
			rows = append(rows, row)
		}
		return strings.Join(rows, " ")
	}
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, "0111 1011 1101 1110"},
		{func() error { return s.Partition([]string{"a", "b"}, []string{"c", "d"}) }, "0100 1000 0001 0010"},
		{func() error { return s.Partition([]string{"a"}, []string{"*"}) }, "0000 0000 0001 0010"},
		{s.Heal, "0111 1011 1101 1110"},
		{func() error { return s.Apply(faults.Command{Verb: faults.Cut, From: "a", To: "b"}) }, "0011 1011 1101 1110"},
		{s.Heal, "0111 1011 1101 1110"},
	}
	for i, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := round(uint32(100 * (i + 1))); got != step.want {
			t.Errorf("step %d, rules %q: heard %s, want %s", i, s.Rules(), got, step.want)
		}
	}
	if total := s.Stats().Total(); total.Cut != 8+10+1 || total.Delivered+total.Cut != sent*3 {
		t.Errorf("%+v: want 19 cut and the rest delivered", total)
	}
	if err := s.Partition([]string{"a"}); err == nil {
		t.Error("a partition of one group was accepted")
	}
}

func TestDelayDelays(t *testing.T) {
	s := newSwitch(t, Options{})
	a, b := plugIn(t, s, "a", 1), plugIn(t, s, "b", 2)
	s.SetRules(rules(t, "delay 30ms from a"))
	start := time.Now()
	a.send(b.mac, 1)
	stats := settle(t, s, 1, a, b)
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("it took %s, less than the delay", took)
	}
	if got := stats.Links[Link{"a", "b"}]; got.Delayed != 1 || got.Delivered != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAGuestThatIsNotThereIsCounted(t *testing.T) {
	s := newSwitch(t, Options{})
	a := plugIn(t, s, "a", 1)
	p, err := s.AddPort("late", address(2))
	if err != nil {
		t.Fatal(err)
	}
	a.send(address(2), 1)
	if got := settle(t, s, 1, a).Links[Link{"a", "late"}]; got.Absent != 1 || got.Delivered != 0 {
		t.Errorf("before it starts: %+v", got)
	}
	late := bind(t, p, 2)
	late.listen()
	a.send(address(2), 2)
	if got := settle(t, s, 2, a, late).Links[Link{"a", "late"}]; got.Absent != 1 || got.Delivered != 1 {
		t.Errorf("after it started: %+v", got)
	}
	late.unplug() // Killed: the file stays and nobody is bound to it.
	a.send(address(2), 3)
	if got := settle(t, s, 3, a, late).Links[Link{"a", "late"}]; got.Absent != 2 || got.Delivered != 1 {
		t.Errorf("after it ended: %+v", got)
	}
}

func TestQueuesOverflow(t *testing.T) {
	s := newSwitch(t, Options{QueueFrames: 10})
	a, b := plugIn(t, s, "a", 1), plugIn(t, s, "b", 2)
	s.SetRules(rules(t, "delay 500ms; dup 100%"))
	for tag := range uint32(7) {
		a.send(b.mac, tag)
	}
	got := settle(t, s, 7, a, b).Links[Link{"a", "b"}]
	// Seven frames twice, unless a slow machine let some go in between.
	if got.Duplicated != 7 || got.Overflow == 0 || got.Overflow > 4 || got.Delivered+got.Overflow != 14 {
		t.Errorf("%+v: want 14 copies, of which 4 or, on a slow machine, fewer found no room", got)
	}
}

// A guest that is stopped fills its socket, then the queue; it costs the others
// nothing, and the switch still closes.
func TestAGuestThatDoesNotReadHoldsUpNobody(t *testing.T) {
	s := newSwitch(t, Options{QueueFrames: 20})
	a, c := plugIn(t, s, "a", 1), plugIn(t, s, "c", 3)
	p, err := s.AddPort("stopped", address(2))
	if err != nil {
		t.Fatal(err)
	}
	// Not connected, like QEMU's: the kernel then bounds its receive queue.
	stopped, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: p.LocalPath, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer stopped.Close()
	const n = 211
	for tag := range uint32(n) {
		a.send(broadcast, tag)
		if tag%10 == 9 || tag == n-1 { // c has a queue of 20 as well.
			eventually(t, "the others get all", func() bool { return len(c.received()) == int(tag)+1 })
		}
	}
	stats := s.Stats().Links[Link{"a", "stopped"}]
	if waiting := stats.Queued(); stats.Overflow == 0 || waiting == 0 || waiting > 21 || stats.Delivered+stats.Overflow+waiting != n {
		t.Errorf("%+v with %d waiting", stats, waiting)
	}
}

func TestMalformedFramesAreCounted(t *testing.T) {
	s := newSwitch(t, Options{})
	a, b := plugIn(t, s, "a", 1), plugIn(t, s, "b", 2)
	if err := a.conn.SetWriteBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	long := make([]byte, MaxFrame+1)
	copy(long, ethernet(b.mac, a.mac, 5))
	for _, n := range []int{0, minFrame - 1, MaxFrame + 1} {
		a.sendRaw(long[:n])
	}
	a.sendRaw(long[:MaxFrame])
	a.send(a.mac, 6)
	stats := settle(t, s, 5, a, b)
	if got, want := stats.Ports["a"], (PortCounters{Received: 5, Malformed: 3, Local: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if diff := cmp.Diff(map[uint32]int{5: 1}, b.received()); diff != "" {
		t.Errorf("b received (-want +got):\n%s", diff)
	}
}

func TestSocketErrorsSayTheFix(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("d", 90))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := New(deep, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.AddPort("a")
	var long *PathTooLongError
	if !errors.As(err, &long) || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("a long path: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.AddPort("a"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := New(filepath.Join(deep, "none"), Options{}); err == nil || !strings.Contains(err.Error(), "make one") {
		t.Errorf("no folder: %v", err)
	}
	if _, err := New(deep, Options{QueueFrames: -1}); err == nil {
		t.Error("a negative queue was accepted")
	}
}

func TestASecondSwitchLeavesTheFirstAlone(t *testing.T) {
	s := newSwitch(t, Options{})
	plugIn(t, s, "a", 1)
	second, err := New(s.dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.AddPort("a"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port that another switch has: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	// What a killed switch leaves is no obstacle.
	stale, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(s.dir, "b.switch"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := stale.Close(); err != nil { // The file stays.
		t.Fatal(err)
	}
	if _, err := s.AddPort("b"); err != nil {
		t.Errorf("a stale socket: %v", err)
	}
}

func TestRemovePort(t *testing.T) {
	s := newSwitch(t, Options{})
	a, b := plugIn(t, s, "a", 1), plugIn(t, s, "b", 2)
	if err := s.RemovePort("nobody"); !errors.Is(err, ErrNoPort) {
		t.Errorf("remove a port that is not there: %v", err)
	}
	s.SetRules(rules(t, "delay 1m"))
	a.send(b.mac, 1)
	eventually(t, "the frame waits", func() bool { return s.Stats().Total().Queued() == 1 })
	b.unplug()
	if err := s.RemovePort("b"); err != nil {
		t.Fatal(err)
	}
	if stats := s.Stats(); len(stats.Links) != 0 || len(stats.Ports) != 1 {
		t.Errorf("%+v: want one port and no link", stats)
	}
	s.SetRules(faults.Rules{})
	again := plugIn(t, s, "b", 2)
	a.send(again.mac, 2)
	eventually(t, "the new guest hears", func() bool { return again.received()[2] == 1 })
	if again.received()[1] != 0 {
		t.Error("a frame for the old guest came to the new one")
	}
}

// Everything at once, while frames fly: the race detector and the leak checks
// judge.
func TestCloseUnderFire(t *testing.T) {
	for range 5 {
		s := newSwitch(t, Options{})
		a := plugIn(t, s, "a", 1)
		plugIn(t, s, "b", 2)
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for tag := uint32(0); ; tag++ {
				select {
				case <-stop:
					return
				default:
					_, _ = a.conn.Write(ethernet(broadcast, a.mac, tag)) // It fails once the switch is gone.
				}
			}
		}()
		// The control of the leak check: it sees two for each port.
		eventually(t, "goroutines are seen", func() bool { return workers() == 4 })
		eventually(t, "frames fly", func() bool { return s.Stats().Total().Delivered > 50 })
		s.SetRules(rules(t, "delay 5ms±5ms; dup 50%; reorder 50%"))
		closed := make(chan error)
		for range 3 {
			go func() { closed <- s.Close() }()
		}
		for range 3 {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		close(stop)
		<-ended
		if err := s.Close(); err != nil {
			t.Errorf("close again: %v", err)
		}
		if s.Rules(); len(s.Stats().Ports) != 0 {
			t.Error("a closed switch has ports")
		}
	}
}
