package vswitch

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// primes are how many frames each station sends. A count that is a multiple of
// nothing else in the test cannot come out right by accident.
var primes = []int{1009, 1013, 1019, 1021, 1031}

// bad are the rules that a stress run goes through.
var bad = []string{
	"drop 20%; dup 5%; reorder 10% gap 2",
	"delay 3ms±3ms; reorder 20%; dup 10%",
	"partition a,b|*; drop 5%",
	"cut from c to d; drop 50% to e; dup 100% from e",
	"",
}

// stress sends frames from all stations at once, to each other and to all,
// while the rules change, and returns the recording.
func stress(t *testing.T, seed uint64, change bool) ([]*station, Stats, []byte) {
	t.Helper()
	var record bytes.Buffer
	s := newSwitch(t, Options{Seed: seed, Record: &record})
	var all []*station
	for i := range primes {
		all = append(all, plugIn(t, s, string(rune('a'+i)), i+1))
	}
	var senders sync.WaitGroup
	total := uint64(0)
	for i, st := range all {
		total += uint64(primes[i])
		senders.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := range primes[i] {
				to := broadcast
				if k := random.IntN(len(all) + 2); k < len(all) && k != i {
					to = all[k].mac
				}
				st.send(to, uint32(i)<<16|uint32(n))
			}
		})
	}
	finished := make(chan struct{})
	go func() { senders.Wait(); close(finished) }()
	for step := 0; change; step++ {
		s.SetRules(rules(t, bad[step%len(bad)]))
		select {
		case <-finished:
			change = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	<-finished
	stats := settle(t, s, total, all...)
	return all, stats, record.Bytes()
}

// replay reads and replays a recording, with another seed if one is given.
func replay(t *testing.T, recorded []byte, seed ...uint64) (Recording, []Forward) {
	t.Helper()
	rec, err := ReadRecording(bytes.NewReader(recorded))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seed {
		rec.Seed = s
	}
	forwards, err := rec.Replay()
	if err != nil {
		t.Fatal(err)
	}
	return rec, forwards
}

// Every frame is accounted for, and each station got just the copies that the
// recording says.
func TestStress(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			all, stats, recorded := stress(t, seed, true)
			rec, forwards := replay(t, recorded)
			byLink := map[Link]Counters{}
			want := map[string]map[uint32]int{}
			for _, st := range all {
				want[st.port.Name] = map[uint32]int{}
			}
			for _, f := range forwards {
				frame := rec.Events[f.Event].Data
				c := byLink[f.Link]
				c.decided(f.Decision, f.Decision.Copies, len(frame))
				c.Delivered += uint64(f.Decision.Copies)
				byLink[f.Link] = c
				if f.Decision.Copies > 0 {
					want[f.Link.To][tagOf(frame)] += f.Decision.Copies
				}
			}
			if diff := cmp.Diff(byLink, stats.Links); diff != "" {
				t.Errorf("counters (-replayed +live):\n%s", diff)
			}
			for _, st := range all {
				if diff := cmp.Diff(want[st.port.Name], st.received()); diff != "" {
					t.Errorf("%s received (-replayed +live):\n%s", st.port.Name, diff)
				}
			}
			checkFanOut(t, rec, stats)
		})
	}
}

// checkFanOut compares the frames of all links with what was sent: one link for
// a station, four for all.
func checkFanOut(t *testing.T, rec Recording, stats Stats) {
	t.Helper()
	offered, frames := uint64(0), 0
	for _, event := range rec.Events {
		if event.Kind != FrameArrived {
			continue
		}
		frames++
		if event.Data[0]&1 == 1 {
			offered += uint64(len(primes) - 1)
		} else {
			offered++
		}
	}
	sent := 0
	for _, n := range primes {
		sent += n
	}
	total := stats.Total()
	if frames != sent || total.Frames != offered {
		t.Errorf("%d of %d frames arrived, %d of %d were offered to links", frames, sent, total.Frames, offered)
	}
	if got := total.Delivered + total.Dropped + total.Cut + total.Overflow + total.Absent; got != total.Frames+total.Duplicated {
		t.Errorf("%d copies are accounted for, want %d: %+v", got, total.Frames+total.Duplicated, total)
	}
	for what, n := range map[string]uint64{"dropped": total.Dropped, "duplicated": total.Duplicated, "cut": total.Cut, "delayed": total.Delayed, "reordered": total.Reordered} {
		if n == 0 {
			t.Errorf("nothing was %s: the run shows nothing", what)
		}
	}
}

// The control of the stress: the same traffic without rules loses nothing.
func TestStressWithoutFaults(t *testing.T) {
	all, stats, recorded := stress(t, 1, false)
	total := stats.Total()
	if total.Delivered != total.Frames || total.Frames == 0 || total.Duplicated+total.Overflow+total.Absent != 0 {
		t.Errorf("%+v: want all delivered", total)
	}
	rec, _ := replay(t, recorded)
	received := map[string]map[uint32]int{}
	for _, st := range all {
		received[st.port.Name] = st.received()
	}
	for _, event := range rec.Events {
		if event.Kind != FrameArrived {
			continue
		}
		for _, st := range all {
			mine := st.port.Name != event.Port && (event.Data[0]&1 == 1 || slices.Equal(event.Data[:6], st.mac))
			if got := received[st.port.Name][tagOf(event.Data)]; (got == 1) != mine || got > 1 {
				t.Fatalf("%s got frame %#x %d times", st.port.Name, tagOf(event.Data), got)
			}
		}
	}
}

// Same seed, same bytes; another seed, other decisions.
func TestReplayIsDeterministic(t *testing.T) {
	_, _, recorded := stress(t, 7, true)
	text := func(seed ...uint64) string {
		var b strings.Builder
		_, forwards := replay(t, recorded, seed...)
		for _, f := range forwards {
			fmt.Fprintln(&b, f)
		}
		return b.String()
	}
	first := text()
	if first != text() || first != text(7) {
		t.Error("two replays differ")
	}
	if strings.Count(first, "drop") == 0 || first == text(8) {
		t.Error("another seed decides alike")
	}
}

// Order between links does not matter: the same frames of each station, woven
// in another way, meet the same fate.
func TestInterleavingDoesNotMatter(t *testing.T) {
	weave := func(random *rand.Rand) map[string]string {
		f := newFabric(3)
		stations := []string{"a", "b", "c"}
		for i, name := range stations {
			if err := f.add(name, []net.HardwareAddr{address(i)}); err != nil {
				t.Fatal(err)
			}
		}
		f.setRules(rules(t, "drop 30%; dup 10%; delay 2ms±1ms; reorder 10%"))
		fates := map[string]string{}
		var next [3]int
		for left := 900; left > 0; left-- {
			i := random.IntN(3)
			for next[i] == 300 {
				i = (i + 1) % 3
			}
			to := broadcast
			if next[i]%3 > 0 {
				to = address((i + next[i]%3) % 3)
			}
			out, _ := f.forward(stations[i], ethernet(to, address(i), uint32(next[i])))
			for _, forward := range out {
				fates[forward.Link.String()] += forward.Decision.String() + "\n"
			}
			next[i]++
		}
		return fates
	}
	first := weave(rand.New(rand.NewPCG(1, 1)))
	if len(first) != 6 {
		t.Fatalf("%d links were used", len(first))
	}
	for k := range uint64(20) {
		if diff := cmp.Diff(first, weave(rand.New(rand.NewPCG(2, k)))); diff != "" {
			t.Fatalf("weave %d (-first +this):\n%s", k, diff)
		}
	}
}

func TestDamagedRecordings(t *testing.T) {
	var b bytes.Buffer
	r := newRecorder(&b, 5)
	r.event(PortAdded, "a", address(1))
	r.event(PortAdded, "b", nil)
	r.event(RulesSet, "", []byte("drop 50%"))
	r.event(FrameArrived, "a", ethernet(broadcast, address(1), 1))
	r.event(PortRemoved, "b", nil)
	whole := b.Bytes()
	if rec, forwards := replay(t, whole); rec.Seed != 5 || len(rec.Events) != 5 || len(forwards) != 1 {
		t.Fatalf("seed %d, %d events, %d forwards", rec.Seed, len(rec.Events), len(forwards))
	}
	ends := 0
	for n := range whole {
		_, err := ReadRecording(bytes.NewReader(whole[:n]))
		if err == nil {
			ends++ // The cut is between two events.
		}
	}
	if ends != 5 {
		t.Errorf("%d of %d cuts went unnoticed, want the 5 between events", ends, len(whole))
	}
	for name, events := range map[string][]Event{
		"a frame from nowhere": {{FrameArrived, "x", make([]byte, 64)}},
		"a port twice":         {{PortAdded, "a", nil}, {PortAdded, "a", nil}},
		"half an address":      {{PortAdded, "a", []byte{1, 2}}},
		"bad rules":            {{RulesSet, "", []byte("burn")}},
		"no kind":              {{'?', "", nil}},
	} {
		if _, err := (Recording{1, events}).Replay(); err == nil {
			t.Errorf("%s was replayed", name)
		}
	}
}

// failing is a disk that is full after some bytes.
type failing struct{ room int }

func (f *failing) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestAFullDiskDoesNotStopTheNetwork(t *testing.T) {
	dir := t.TempDir()
	s, err := New(dir, Options{Record: &failing{200}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := plugIn(t, s, "a", 1), plugIn(t, s, "b", 2)
	for tag := range uint32(10) {
		a.send(b.mac, tag)
	}
	if total := settle(t, s, 10, a, b).Total(); total.Delivered != 10 {
		t.Errorf("%+v: want 10 delivered", total)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "record") {
		t.Errorf("close: %v, want the recording's error", err)
	}
}

func FuzzReadRecording(f *testing.F) {
	var b bytes.Buffer
	r := newRecorder(&b, 5)
	r.event(PortAdded, "a", address(1))
	r.event(PortAdded, "b", nil)
	r.event(RulesSet, "", []byte("drop 50%; partition a|b"))
	r.event(FrameArrived, "a", ethernet(broadcast, address(1), 1))
	f.Add(b.Bytes())
	f.Add([]byte(header + "12345678F\x01a\xff\xff\xff\xff\x0f"))
	f.Add([]byte(header + "12345678F\x01a\xff\xff\xff\xff\xfc")) // ends within a length
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := ReadRecording(bytes.NewReader(data))
		if err != nil {
			return
		}
		first, err := rec.Replay()
		second, again := rec.Replay()
		if fmt.Sprint(err) != fmt.Sprint(again) || !slices.Equal(first, second) {
			t.Fatal("two replays differ")
		}
	})
}
