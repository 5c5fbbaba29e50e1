package guest

import (
	"strings"
	"testing"
)

const number = "0123456789abcdef"

func TestParseExit(t *testing.T) {
	for text, want := range map[string]int{
		"": -1, exitLine(number, 0): 0, exitLine(number, 255): 255, "noise\r\n" + exitLine(number, 7) + "more": 7,
		exitLine("another", 0): -1, exitLine(number, 256): -1, "coreplica-exit " + number + " -1\n": -1, "coreplica-exit " + number + "\n": -1,
		"x" + exitLine(number, 0): -1, exitLine("another", 0) + exitLine(number, 3): 3,
	} {
		code, ok := ParseExit(text, number)
		if ok != (want >= 0) || ok && code != want {
			t.Errorf("%q: %d, %t", text, code, ok)
		}
	}
	if _, ok := ParseExit("coreplica-exit  0\n", ""); ok {
		t.Error("no number at all was believed")
	}
}

// No text is believed that does not hold the number.
func FuzzParseExit(f *testing.F) {
	f.Add(exitLine(number, 3))
	f.Add("coreplica-exit 0 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		if code, ok := ParseExit(text, number); ok && (!strings.Contains(text, number) || code < 0 || code > 255) {
			t.Errorf("%q: %d", text, code)
		}
	})
}

// Main is for guests: anywhere else it does nothing.
func TestMainReturns(t *testing.T) { Main() }
