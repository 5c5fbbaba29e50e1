//go:build race

package replicated

// raceEnabled is set where the race detector watches.
const raceEnabled = true
