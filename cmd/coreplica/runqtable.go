package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coreplica/coreplica/internal/cpulist"
	"github.com/coreplica/coreplica/runq"
)

// shownHappenings is how many a table ends with: the steps of a takeover.
const shownHappenings = 10

// topTable writes a snapshot for people. Before is the one before of the same
// queue, for rates, or nil.
func topTable(before, now *runq.Snapshot) (string, error) {
	if before != nil && (before.Run != now.Run || !now.Time.After(before.Time)) {
		before = nil // Another queue has the name now: its counters begin at 0.
	}
	var b strings.Builder
	s := &now.Stats
	fmt.Fprintf(&b, "queue %s  %s  pid %d  k=%d  open for %v\n", now.Name, now.State, now.PID, now.K, now.Time.Sub(now.Opened).Round(time.Second))
	fmt.Fprintf(&b, "tasks    submitted %d  accepted %d  completed %d  failed %d  cancelled %d  lost %d  pending %d  rate %s/s\n",
		s.Submitted, s.Accepted, s.Completed, s.Failed, s.Cancelled, s.Lost, s.Pending, perSecond(before, now, ended))
	fmt.Fprintf(&b, "workers  crashes %d  restarts %d  takeovers %d  fenced %d  unkillable %d  stuck %d  records lost %d\n\n",
		s.Crashes, s.Restarts, s.Takeovers, s.Fenced, s.Unkillable, s.Stuck, s.RecordsLost)
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "WORKER\tCPU\tNODE\tPID\tLIFE\tUP\tTASKS/S\tPENDING\tQUEUES")
	for i, w := range s.Workers {
		fmt.Fprintf(tab, "%d\t%d\t%s\t%s\t%d\t%s\t%s\t%d\t%s\n", i, w.CPU, known(w.Node >= 0, w.Node), known(w.PID > 0, w.PID), w.Incarnation, upOrDown(w.Up),
			perSecond(before, now, completedBy(i)), w.Pending, queueList(w.Queues))
	}
	if err := tab.Flush(); err != nil {
		return "", fmt.Errorf("write table: %w", err)
	}
	b.WriteString("\n")
	for i := len(now.Happenings) - 1; i >= max(len(now.Happenings)-shownHappenings, 0); i-- {
		b.WriteString(happeningLine(&now.Happenings[i]))
	}
	return b.String(), nil
}

// ended is how many tasks have ended, however.
func ended(s *runq.Stats) uint64 { return s.Completed + s.Failed + s.Cancelled + s.Lost }

func completedBy(worker int) func(*runq.Stats) uint64 {
	return func(s *runq.Stats) uint64 {
		if worker >= len(s.Workers) {
			return 0
		}
		return s.Workers[worker].Completed
	}
}

// perSecond is how much a counter has grown in a second.
func perSecond(before, now *runq.Snapshot, of func(*runq.Stats) uint64) string {
	if before == nil {
		return "-"
	}
	grown := of(&now.Stats) - of(&before.Stats)
	return strconv.FormatFloat(float64(grown)/now.Time.Sub(before.Time).Seconds(), 'f', 0, 64)
}

// known shows a number that is known, and a dash for one that is not.
func known(is bool, n int) string {
	if is {
		return strconv.Itoa(n)
	}
	return "-"
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func queueList(queues []int) string {
	if len(queues) == 0 {
		return "-"
	}
	return cpulist.Format(queues)
}

// happeningLine shows what happened. Newest lines come first, so that they stay
// where the eye is.
func happeningLine(h *runq.PastHappening) string {
	line := fmt.Sprintf("%s  %-14s  worker %d life %d  queue %d", h.Time.Local().Format("15:04:05.000"), h.Kind, h.Worker, h.Incarnation, h.Queue)
	if h.Epoch > 0 {
		line += fmt.Sprintf(" epoch %d", h.Epoch)
	}
	if h.Task != "" {
		line += "  task " + h.Task
	}
	if h.Error != "" {
		line += "  " + h.Error
	}
	return strings.ReplaceAll(line, "\n", "; ") + "\n"
}
