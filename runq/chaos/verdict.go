package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Schema is the version of [Verdict] in JSON.
const Schema = "coreplica.runq.chaos/1"

// Times are order statistics of durations.
type Times struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
	N   int   `json:"samples"`
}

// Verdict is what the journals say.
type Verdict struct {
	Schema       string `json:"schema"`
	Submitted    int    `json:"submitted"`
	Acknowledged int    `json:"acknowledged"`
	// Completed tasks have exactly one accepted result.
	Completed int `json:"completed"`
	Cancelled int `json:"cancelled"`
	// Lost tasks were acknowledged and have no end; or they were reported as
	// lost, and nothing allows that.
	Lost int `json:"lost"`
	// Resurrected tasks began after their end was known.
	Resurrected int `json:"resurrected"`
	// AcceptedTwice tasks have two different accepted results.
	AcceptedTwice int `json:"accepted_twice"`
	// StartedTwice tasks were to be started once at most, and began twice.
	StartedTwice int `json:"started_twice"`
	// ReportedLost tasks were to be started once at most, were claimed when
	// their core failed, and were reported.
	ReportedLost int `json:"reported_lost"`
	// FencedWrites are publishes of former owners that failed.
	FencedWrites int `json:"fenced_writes"`
	Kills        int `json:"kills"`
	Stops        int `json:"stops"`
	// ZombieStarts are handlers that a worker started when it went on after it
	// was stopped and taken for dead, while the trial kept it from being killed.
	// A killed worker starts none; one that cannot be killed only those that it
	// had let pass before it stopped, for handlers begin while the lease holds.
	ZombieStarts int `json:"zombie_starts"`
	// FailedTakers killed themselves between two steps of a takeover.
	FailedTakers int   `json:"failed_takers"`
	Takeovers    int   `json:"takeovers"`
	TakeoverNs   Times `json:"takeover_ns"`
	// Histories are the tasks whose history porcupine looked at, Illegal those
	// that no order of operations explains, and Undecided those that it gave
	// up on, which counts as a failure.
	Histories int `json:"histories"`
	Illegal   int `json:"illegal_histories"`
	Undecided int `json:"undecided_histories"`
	// TornJournals are those whose process died while it wrote.
	TornJournals int `json:"torn_journals"`
	// Examples name some of the tasks that went wrong, with their records.
	Examples []string `json:"examples,omitempty"`
}

// Good reports whether every promise was kept, and what was not.
func (v Verdict) Good() (good bool, why string) {
	var bad []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{v.Lost, "lost"}, {v.Resurrected, "resurrected"}, {v.AcceptedTwice, "accepted twice"}, {v.StartedTwice, "started twice"},
		{v.Illegal, "with a history that nothing explains"}, {v.Undecided, "undecided"},
	} {
		if c.n > 0 {
			bad = append(bad, fmt.Sprintf("%d tasks %s", c.n, c.what))
		}
	}
	return len(bad) == 0, strings.Join(bad, ", ")
}

// maxExamples bounds how many tasks are shown, since one cause may hit thousands.
const maxExamples = 5

// Judge says what became of each task of a trial whose queue was drained.
func Judge(records []Record) Verdict {
	v := Verdict{Schema: Schema}
	tasks := map[uint64][]Record{}
	killed := map[uint16][]int64{} // When workers were killed or stopped, not yet matched.
	zombies := map[uint32]int64{}  // Since when a process is stopped for dead.
	woken := map[uint32]int64{}    // Since when it goes on.
	var takeovers []int64
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.TimeNs, b.TimeNs) })
	for _, r := range records {
		switch r.Kind {
		case Fenced:
			v.FencedWrites++
		case Failed:
			v.FailedTakers++
		case Killed:
			v.Kills++
			killed[r.Worker] = append(killed[r.Worker], r.TimeNs)
		case Stopped:
			v.Stops++
			zombies[r.Doer] = r.TimeNs
		case Continued:
			woken[r.Doer] = r.TimeNs
		case Inherited:
			v.Takeovers++
			// Of several signals to one worker, the first one began it.
			if at := killed[r.Worker]; len(at) > 0 {
				takeovers = append(takeovers, r.TimeNs-at[0])
				killed[r.Worker] = nil
			}
		default:
			tasks[r.Task] = append(tasks[r.Task], r)
		}
	}
	v.TakeoverNs = timesOf(takeovers)
	for _, id := range sortedKeys(tasks) {
		tasks[id] = v.withoutZombies(tasks[id], zombies, woken)
		if bad := v.add(tasks[id]); bad != "" {
			v.example(id, bad, tasks[id])
		}
	}
	v.checkHistories(tasks)
	return v
}

// withoutZombies leaves out the starts of workers that were stopped for dead, but
// for those whose results were accepted. What it had begun before the signal came
// is no start of a zombie.
func (v *Verdict) withoutZombies(records []Record, zombies, woken map[uint32]int64) []Record {
	return slices.DeleteFunc(records, func(r Record) bool {
		since, zombie := zombies[r.Doer]
		if r.Kind != Began || !zombie || r.TimeNs <= since {
			return false
		}
		if slices.ContainsFunc(records, func(o Record) bool {
			return (o.Kind == Accepted || o.Kind == Seen) && o.Attempt == r.Attempt && o.Token == r.Token && o.Doer == r.Doer
		}) {
			return false
		}
		if since, goesOn := woken[r.Doer]; goesOn && r.TimeNs > since {
			v.ZombieStarts++
		}
		return true
	})
}

// add takes one task's records into account, and says what is wrong.
func (v *Verdict) add(records []Record) (bad string) {
	var acked, cancelled, lost bool
	begins, over := 0, int64(0)
	results := map[[3]uint32]bool{}
	mode := records[0].Mode
	resurrected := false
	for _, r := range records {
		switch r.Kind {
		case Submitting:
			v.Submitted++
		case Acknowledged:
			acked = true
		case Began:
			begins++
			resurrected = resurrected || over != 0 && r.TimeNs > over
		case Accepted, Seen:
			results[[3]uint32{r.Attempt, r.Token, r.Doer}] = true
			over = cmp.Or(over, r.TimeNs)
		case Cancelled:
			cancelled = true
			over = cmp.Or(over, r.TimeNs)
		case Lost:
			lost = true
			over = cmp.Or(over, r.TimeNs)
		}
	}
	if acked {
		v.Acknowledged++
	}
	switch {
	case len(results) == 1:
		v.Completed++
	case len(results) > 1:
		v.AcceptedTwice++
		bad = "accepted twice"
	case cancelled:
		v.Cancelled++
	case lost && mode == AtMostOnce && v.Kills+v.Stops+v.FailedTakers > 0:
		// Its claim was replicated; whether its handler had begun, the journal
		// of a dead process need not say.
		v.ReportedLost++
	case lost:
		v.Lost++
		bad = "reported lost without cause"
	case acked:
		v.Lost++
		bad = "lost"
	}
	if resurrected {
		v.Resurrected++
		bad = "resurrected"
	}
	if mode == AtMostOnce && begins > 1 {
		v.StartedTwice++
		bad = "started twice"
	}
	return bad
}

func (v *Verdict) example(id uint64, bad string, records []Record) {
	if len(v.Examples) >= maxExamples {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "task %d %s:", id, bad)
	for _, r := range records {
		fmt.Fprintf(&b, " %v@%d", r.Kind, (r.TimeNs-records[0].TimeNs)/1000)
		if r.Kind == Began || r.Kind == Accepted || r.Kind == Seen {
			fmt.Fprintf(&b, "(process %d attempt %d token %d)", r.Doer, r.Attempt, r.Token)
		}
	}
	v.Examples = append(v.Examples, b.String())
}

func sortedKeys(m map[uint64][]Record) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// timesOf returns order statistics, with the sample at or above the share.
func timesOf(ns []int64) Times {
	if len(ns) == 0 {
		return Times{}
	}
	slices.Sort(ns)
	at := func(percent int) int64 { return ns[(len(ns)*percent+99)/100-1] }
	return Times{P50: at(50), P99: at(99), Max: ns[len(ns)-1], N: len(ns)}
}
