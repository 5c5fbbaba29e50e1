package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// script writes the journals of a trial as a correct queue would cause them.
type script struct {
	rng     *rand.Rand
	now     int64
	records []Record
}

func (s *script) add(kind Kind, task uint64, mode Mode, worker uint16, attempt, token uint32) {
	s.now += 1 + s.rng.Int64N(50)
	s.records = append(s.records, Record{Kind: kind, Mode: mode, Worker: worker, Task: task, Attempt: attempt, Token: token, TimeNs: s.now})
}

// life writes one task's records: some die with their worker and are tried again,
// some are cancelled, some are reported lost.
func (s *script) life(task uint64) {
	mode := Mode(s.rng.IntN(3))
	s.add(Submitting, task, mode, 0, 0, 0)
	if s.rng.IntN(20) == 0 {
		s.add(Refused, task, mode, 0, 0, 0)
		return
	}
	if s.rng.IntN(10) > 0 {
		s.add(Acknowledged, task, mode, 0, 0, 0)
	}
	if s.rng.IntN(10) == 0 {
		s.add(Cancelling, task, mode, 0, 0, 0)
		s.add(Cancelled, task, mode, 0, 0, 0)
		return
	}
	attempt := uint32(1)
	for ; ; attempt++ {
		worker := uint16(s.rng.IntN(4))
		s.add(Began, task, mode, worker, attempt, attempt)
		if s.rng.IntN(5) == 0 { // The worker dies.
			if s.rng.IntN(2) == 0 {
				s.add(Ended, task, mode, worker, attempt, attempt)
			}
			if mode == AtMostOnce {
				s.add(Lost, task, mode, worker, 0, 0)
				return
			}
			if s.rng.IntN(2) == 0 {
				s.add(Accepting, task, mode, worker, attempt, attempt) // And it had no effect.
			}
			continue
		}
		s.add(Ended, task, mode, worker, attempt, attempt)
		s.add(Accepting, task, mode, worker, attempt, attempt)
		if s.rng.IntN(4) == 0 {
			s.add(Cancelling, task, mode, 0, 0, 0)
			s.add(Accepted, task, mode, worker, attempt, attempt)
			s.add(CancelLate, task, mode, 0, 0, 0)
		} else if s.rng.IntN(10) > 0 {
			s.add(Accepted, task, mode, worker, attempt, attempt)
		}
		s.add(Seen, task, mode, 0, attempt, attempt)
		return
	}
}

func journals(seed uint64, tasks int) []Record {
	s := &script{rng: rand.New(rand.NewPCG(seed, 1))}
	s.add(Killed, 0, AtLeastOnce, 3, 0, 0)
	for task := range uint64(tasks) {
		s.life(task)
	}
	return s.records
}

func TestJudgeFindsNothingWrongWithACorrectQueue(t *testing.T) {
	for seed := range uint64(20) {
		v := Judge(journals(seed, 200))
		if good, why := v.Good(); !good {
			t.Fatalf("seed %d: %s\n%v", seed, why, v.Examples)
		}
		if v.Submitted != 200 || v.Completed == 0 || v.Cancelled == 0 || v.ReportedLost == 0 || v.Histories != 200 {
			t.Fatalf("seed %d: the script is too tame: %+v", seed, v)
		}
		if sum := v.Completed + v.Cancelled + v.ReportedLost; sum < v.Acknowledged {
			t.Fatalf("seed %d: %d of %d acknowledged tasks are accounted for", seed, sum, v.Acknowledged)
		}
	}
}

// Each fault is put into the journals of a correct queue, and must be found as what
// it is, and by porcupine too where an order of operations is at fault.
func TestJudgeFindsEachFault(t *testing.T) {
	const victim = 1_000_003
	base := func(mode Mode, more ...Record) []Record {
		all := []Record{{Kind: Submitting, TimeNs: 1}, {Kind: Acknowledged, TimeNs: 2}}
		all = append(all, more...)
		for i := range all {
			all[i].Task, all[i].Mode = victim, mode
		}
		return all
	}
	one := func(kind Kind, at int64, attempt uint32) Record {
		return Record{Kind: kind, TimeNs: at, Attempt: attempt, Token: attempt}
	}
	for _, tt := range []struct {
		name    string
		records []Record
		count   func(Verdict) int
		illegal bool
	}{
		{"lost", base(AtLeastOnce, one(Began, 3, 1)), func(v Verdict) int { return v.Lost }, false},
		{"accepted twice", base(OnceRecorded, one(Began, 3, 1), one(Accepting, 4, 1), one(Accepted, 5, 1), one(Began, 4, 2), one(Accepting, 6, 2), one(Accepted, 7, 2)),
			func(v Verdict) int { return v.AcceptedTwice }, true},
		{"begun after a result was seen", base(AtLeastOnce, one(Began, 3, 1), one(Accepting, 4, 1), one(Accepted, 5, 1), one(Seen, 6, 1), one(Began, 9, 2)),
			func(v Verdict) int { return v.Resurrected }, true},
		{"begun after it was cancelled", base(AtLeastOnce, one(Cancelling, 3, 0), one(Cancelled, 4, 0), one(Began, 5, 1)),
			func(v Verdict) int { return v.Resurrected }, true},
		{"started twice", base(AtMostOnce, one(Began, 3, 1), one(Began, 4, 2), one(Accepting, 5, 2), one(Accepted, 6, 2)),
			func(v Verdict) int { return v.StartedTwice }, true},
		{"reported lost without cause", base(AtLeastOnce, one(Began, 3, 1), one(Lost, 4, 0)), func(v Verdict) int { return v.Lost }, false},
		{"another result seen than was accepted", base(AtLeastOnce, one(Began, 3, 1), one(Accepting, 4, 1), one(Accepted, 5, 1), one(Seen, 6, 7)),
			func(v Verdict) int { return v.AcceptedTwice }, true},
		{"seen before anything began", base(AtLeastOnce, one(Seen, 3, 1), one(Began, 4, 1), one(Accepting, 5, 1), one(Accepted, 6, 1)),
			func(v Verdict) int { return v.Illegal }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Judge(append(journals(1, 50), tt.records...))
			if tt.count(v) != 1 {
				t.Errorf("not counted: %+v", v)
			}
			if good, _ := v.Good(); good {
				t.Error("the verdict is good")
			}
			if (v.Illegal == 1) != tt.illegal {
				t.Errorf("porcupine finds %d illegal histories", v.Illegal)
			}
			if len(v.Examples) == 0 {
				t.Error("no example is shown")
			}
		})
	}
}

// What a zombie starts is told, and held against nobody; what another process starts
// is.
func TestJudgeTellsZombies(t *testing.T) {
	records := []Record{
		{Kind: Submitting, TimeNs: 1}, {Kind: Acknowledged, TimeNs: 2}, {Kind: Stopped, Worker: 1, Doer: 77, TimeNs: 3},
		{Kind: Began, Attempt: 1, Doer: 78, TimeNs: 4}, {Kind: Accepting, Attempt: 1, Doer: 78, TimeNs: 5}, {Kind: Accepted, Attempt: 1, Doer: 78, TimeNs: 6},
		{Kind: Continued, Worker: 1, Doer: 77, TimeNs: 8}, {Kind: Began, Attempt: 1, Doer: 77, TimeNs: 9},
	}
	if v := Judge(records); v.ZombieStarts != 1 || v.Resurrected != 0 || v.Illegal != 0 {
		t.Errorf("a zombie's start: %+v", v)
	}
	records[len(records)-1].Doer = 79
	if v := Judge(records); v.ZombieStarts != 0 || v.Resurrected != 1 || v.Illegal != 1 {
		t.Errorf("another's start: %+v", v)
	}
}

// Where no worker failed, no attempt can have been lost with one.
func TestJudgeWantsACauseForALoss(t *testing.T) {
	records := []Record{{Kind: Submitting, Mode: AtMostOnce, TimeNs: 1}, {Kind: Acknowledged, Mode: AtMostOnce, TimeNs: 2}, {Kind: Lost, Mode: AtMostOnce, TimeNs: 3}}
	if v := Judge(records); v.Lost != 1 || v.ReportedLost != 0 {
		t.Errorf("a loss without a fault: %+v", v)
	}
	records = append(records, Record{Kind: Killed, TimeNs: 1})
	if v := Judge(records); v.Lost != 0 || v.ReportedLost != 1 {
		t.Errorf("a loss with a fault: %+v", v)
	}
}

// What may be worse than it looks must not be called a fault: outcomes that nobody
// was told.
func TestJudgeAllowsUnknownOutcomes(t *testing.T) {
	for name, records := range map[string][]Record{
		"a submission without an answer that runs": {{Kind: Submitting, TimeNs: 1}, {Kind: Began, TimeNs: 5, Attempt: 1}, {Kind: Accepting, TimeNs: 6, Attempt: 1}, {Kind: Accepted, TimeNs: 7, Attempt: 1}},
		"a submission without an answer":           {{Kind: Submitting, TimeNs: 1}},
		"a refused submission":                     {{Kind: Submitting, TimeNs: 1}, {Kind: Refused, TimeNs: 2}},
		"a cancellation without an answer":         {{Kind: Submitting, TimeNs: 1}, {Kind: Acknowledged, TimeNs: 2}, {Kind: Cancelling, TimeNs: 3}, {Kind: Began, TimeNs: 5, Attempt: 1}, {Kind: Accepting, TimeNs: 6, Attempt: 1}, {Kind: Accepted, TimeNs: 7, Attempt: 1}},
		"an accepted result whose worker died":     {{Kind: Submitting, TimeNs: 1}, {Kind: Acknowledged, TimeNs: 2}, {Kind: Began, TimeNs: 5, Attempt: 1}, {Kind: Accepting, TimeNs: 6, Attempt: 1}, {Kind: Seen, TimeNs: 9, Attempt: 1}},
	} {
		if good, why := Judge(records).Good(); !good {
			t.Errorf("%s: %s", name, why)
		}
	}
}

func TestTakeoverTimes(t *testing.T) {
	var records []Record
	for i := range int64(200) {
		worker := uint16(i % 4)
		records = append(records, Record{Kind: Killed, Worker: worker, TimeNs: i * 1000},
			Record{Kind: Stopped, Worker: worker, TimeNs: i*1000 + 1}, // The signal that began it counts.
			Record{Kind: Inherited, Worker: worker, TimeNs: i*1000 + i + 1})
	}
	v := Judge(records)
	if want := (Times{P50: 100, P99: 198, Max: 200, N: 200}); v.TakeoverNs != want || v.Takeovers != 200 || v.Kills != 200 || v.Stops != 200 {
		t.Errorf("got %+v of %d takeovers, want %+v", v.TakeoverNs, v.Takeovers, want)
	}
}

func TestJournalsSurviveTheirFormat(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := journals(3, 500)
	if err := w.Append(want...); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(Record{Kind: Fenced, Worker: 3}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, torn, err := ReadDir(dir)
	if err != nil || torn != 0 || len(got) != len(want)+1 {
		t.Fatalf("read %d of %d, %d torn, %v", len(got), len(want)+1, torn, err)
	}
	for i := range want {
		want[i].PID = got[i].PID
		if got[i] != want[i] {
			t.Fatalf("record %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if last := got[len(got)-1]; last.TimeNs == 0 || last.PID == 0 {
		t.Errorf("the last record has no time or process: %+v", last)
	}
}

func FuzzParse(f *testing.F) {
	var good []byte
	for _, r := range journals(1, 3) {
		good = r.AppendTo(good)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{0xe5})
	f.Fuzz(func(t *testing.T, data []byte) {
		records, torn, err := Parse(data)
		if err == nil && len(records) != len(data)/RecordBytes {
			t.Fatalf("%d records from %d bytes", len(records), len(data))
		}
		if torn != (err == nil && len(data)%RecordBytes != 0) {
			t.Fatalf("torn is %v for %d bytes, %v", torn, len(data), err)
		}
		var back []byte
		for _, r := range records {
			back = r.AppendTo(back)
		}
		if again, _, err := Parse(back); err != nil || !slices.Equal(again, records) {
			t.Fatalf("what was read does not read back: %v", err)
		}
		Judge(records)
	})
}

// A byte that changes must never go unnoticed: the verdict rests on these files.
func TestParseNoticesEveryChangedByte(t *testing.T) {
	good := Record{Kind: Began, Task: 7, Attempt: 2, Token: 3, Worker: 1, PID: 9, TimeNs: 11}.AppendTo(nil)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if _, _, err := Parse(bad); err == nil {
			t.Errorf("byte %d may change", i)
		}
	}
}

func ExampleVerdict_Good() {
	v := Judge([]Record{{Kind: Submitting, Task: 1, TimeNs: 1}, {Kind: Acknowledged, Task: 1, TimeNs: 2}})
	fmt.Println(v.Good())
	// Output: false 1 tasks lost
}
