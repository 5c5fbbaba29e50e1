package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// counted is a contender that does so much work for a task and counts tasks.
func counted(name string, k, work int, ran *int, closed *int) Contender {
	return Contender{Name: name, Mode: "cycle", K: k, Workers: 1, New: func() (Instance, error) {
		return Instance{
			Run: func(n int) error {
				*ran += n
				sum := byte(0)
				for i := range n * work {
					sum = sum*31 + byte(i)
				}
				sink.Add(uint32(sum))
				return nil
			},
			Close: func() error { *closed++; return nil },
		}, nil
	}}
}

// Whoever waits for a comparison hears of each round, the warming one first.
func TestCompareTellsItsRounds(t *testing.T) {
	var ran, closed int
	var rounds []int
	for n := 1; n <= 2; n++ {
		all := []Contender{counted(Channel, 1, 1, &ran, &closed), counted("queue", 1, 1, &ran, &closed)}[:n]
		if _, err := Compare(all, Plan{Rounds: 2, Length: time.Microsecond, Progress: func(round int) { rounds = append(rounds, round) }}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []int{0, 1, 2, 0, 1, 2}; !slices.Equal(rounds, want) {
		t.Errorf("rounds %v, want %v", rounds, want)
	}
}

// Blocks in which others work are longer, unless a length is given.
func TestBlocksAreAsLongAsTheirModeWants(t *testing.T) {
	for _, c := range []struct {
		mode        string
		given, want time.Duration
	}{{"cycle", 0, ShortBlock}, {"detached", 0, LongBlock}, {"processes", 0, LongBlock}, {"cycle", time.Second, time.Second}, {"detached", 1, 1}} {
		if got := (&Plan{Length: c.given}).length(&Contender{Mode: c.mode}); got != c.want {
			t.Errorf("%s, given %v: %v, want %v", c.mode, c.given, got, c.want)
		}
	}
}

// A comparison must see three times the work, and relate it to the right bases.
func TestCompareSeesADifference(t *testing.T) {
	testkit.Quiet(t, 5, func() string {
		var ran, closed int
		rows, err := Compare([]Contender{counted(Channel, 1, 100, &ran, &closed), counted("queue", 1, 200, &ran, &closed), counted("queue", 2, 600, &ran, &closed)},
			Plan{Rounds: 20, Length: 2 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if ran == 0 || closed != 3 {
			t.Fatalf("%d tasks ran and %d contenders were closed", ran, closed)
		}
		if rows[0].ToChannel.Median != 1 || rows[1].ToK1.Median != 1 {
			t.Fatalf("what is related to itself gives %+v and %+v", rows[0].ToChannel, rows[1].ToK1)
		}
		if r := rows[1].ToChannel; r.Median < 1.5 || r.Median > 2.5 || r.Low > 2.5 || r.High < 1.5 {
			return fmt.Sprintf("twice the channel's work takes %+v", r)
		}
		if r := rows[2].ToK1; r.Median < 2.3 || r.Median > 3.7 || r.Low > 3.7 || r.High < 2.3 {
			return fmt.Sprintf("three times the work of one copy takes %+v", r)
		}
		return ""
	})
}

func TestContendersTakeAllTasksThrough(t *testing.T) {
	for _, c := range append(Contenders(), NewChannelWorkers(1)) {
		inst, err := c.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := inst.Run(3 * Batch); err != nil {
			t.Error(err)
		}
		if inst.Close != nil {
			if err := inst.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestWrite(t *testing.T) {
	var ran, closed int
	rows, err := Compare([]Contender{counted(Channel, 1, 1, &ran, &closed), counted("queue", 2, 1, &ran, &closed)}, Plan{Rounds: 2, Length: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ format, want string }{
		{"table", "to channel"}, {"json", `"ratio_to_channel"`}, {"bench", "BenchmarkTask/impl=queue/mode=cycle/k=2/workers=1 1 "},
	} {
		var out bytes.Buffer
		if err := Write(&out, rows, tt.format); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s lacks %q:\n%s", tt.format, tt.want, out.String())
		}
		if tt.format != "json" {
			continue
		}
		var r jsonRow
		if err := json.NewDecoder(&out).Decode(&r); err != nil || r.Schema != Schema || r.NsPerTask <= 0 || r.RatioToChannel != 1 {
			t.Errorf("read back %+v, %v", r, err)
		}
	}
	if err := Write(&bytes.Buffer{}, rows, "xml"); !errors.Is(err, ErrFormat) {
		t.Errorf("an unknown format gives %v", err)
	}
}

// What goes wrong must be told, with the contender's name, and everything closed.
func TestCompareTellsWhatFailed(t *testing.T) {
	var ran, closed int
	broken := errors.New("broken")
	bad := Contender{Name: "bad", New: func() (Instance, error) { return Instance{}, broken }}
	if _, err := Compare([]Contender{counted("a", 1, 1, &ran, &closed), bad}, Plan{}); !errors.Is(err, broken) || closed != 1 {
		t.Errorf("%v, %d closed", err, closed)
	}
	bad.New = func() (Instance, error) { return Instance{Run: func(int) error { return broken }}, nil }
	if _, err := Compare([]Contender{bad}, Plan{Rounds: 1, Length: time.Millisecond}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
