package sim

import (
	"testing"
)

func TestSeeds(t *testing.T) {
	for seed := range uint64(2000) {
		if _, err := Run(Options{Seed: seed, Faults: AllFaults}); err != nil {
			t.Fatal(err)
		}
	}
}
