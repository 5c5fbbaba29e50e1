package bench

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// claims are what the documentation says about speed on one socket, against an
// RWMutex around the same map.
var claims = []struct {
	name, implementation string
	c                    Case
	// atMost bounds the ratio of times.
	atMost float64
}{
	{"generic reads of two threads are 1.5 times as fast", "replicated2", Case{Keys: 1000, Workers: 2}, 1 / 1.5},
	{"generic reads of one replica too", "replicated1", Case{Keys: 1000, Workers: 2}, 1 / 1.5},
	{"at 1 percent of writes they are no slower", "replicated2", Case{Keys: 1000, WritePercent: 1, Workers: 2}, 1},
	{"writes on one node cost up to 1.5 times as much", "replicated1", Case{Keys: 1000, WritePercent: 100, Workers: 1}, 1.5},
	{"by two threads too", "replicated1", Case{Keys: 1000, WritePercent: 100, Workers: 2}, 1.5},
	{"two replicas cost up to 3 times as much at 10 percent of writes", "replicated2", Case{Keys: 1000, WritePercent: 10, Workers: 2}, 3},
	{"and with one thread", "replicated2", Case{Keys: 1000, WritePercent: 10, Workers: 1}, 3},
}

// The trial of the claims wants a machine of its own, so `make trial` alone runs
// it. A claim fails if the whole interval is beyond it.
func TestTrialOfTheClaimsOnSpeed(t *testing.T) {
	testkit.Need(t, testkit.Trial, testkit.TwoCPUs)
	structure := Structures()[0]
	for _, claim := range claims {
		t.Run(claim.name, func(t *testing.T) {
			contenders := slices.DeleteFunc(Implementations(), func(im Implementation) bool {
				return im.Name != "rwmutex" && im.Name != claim.implementation
			})
			testkit.Quiet(t, 3, func() string {
				results, err := Compare(structure, contenders, claim.c, Plan{Base: "rwmutex", Blocks: 20})
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range results {
					t.Logf("%-12s %7.1f ns/op, ratio %.2f [%.2f, %.2f]", r.Implementation, r.NsPerOp, r.Ratio, r.Low, r.High)
				}
				r := results[1]
				if r.Low > claim.atMost {
					return fmt.Sprintf("%s takes %.2f [%.2f, %.2f] times as long, more than %.2f", r.Implementation, r.Ratio, r.Low, r.High, claim.atMost)
				}
				return ""
			})
		})
	}
}
