package sim

import (
	"context"
	"os"
	"testing"
)

func TestExplore(t *testing.T) {
	out, err := Explore(context.Background(), ExploreOptions{Cores: 3, K: 2, Tasks: 2, Failures: 2, Zombies: 1, MaxStates: 300_000, Full: os.Getenv("FULL") != ""})
	t.Logf("%+v", out)
	if err != nil {
		t.Fatal(err)
	}
}
