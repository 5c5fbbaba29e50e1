package mirrorcost

import (
	"testing"

	"github.com/coreplica/coreplica/mirrorcost/report"
	"github.com/coreplica/coreplica/mirrorcost/stats"
)

// What measuring costs the load stays within its bounds, at saturation on the
// cheaper leg, where it weighs most. The rounds of a default run are too few for
// a narrow interval, so there are more of them here.
func TestProbeCost(t *testing.T) {
	needRun(t)
	p := DefaultPlan()
	p.Mirror = "ext4" // It only stands by.
	s, err := open(t.Context(), p, Options{}, newProgress(&p, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.saturate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const rounds = 40
	o, err := s.probePass(t.Context(), rounds, newProgress(&p, nil))
	if err != nil {
		t.Fatal(err)
	}
	ledger, all := stats.MeanCI(o.ledgerPercent), stats.MeanCI(o.allPercent)
	t.Logf("of throughput: ledger %s, all %s; ns per event: %v",
		report.FormatPercentInterval(interval(ledger)), report.FormatPercentInterval(interval(all)), o.nsPerEvent)
	if ledger.High > 10 || all.High > 16 {
		t.Errorf("the upper bounds are %.1f %% and %.1f %%, want 10 %% and 16 %%", ledger.High, all.High)
	}
}
