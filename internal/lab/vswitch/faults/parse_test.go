package faults

import (
	"errors"
	"strings"
	"testing"
)

func TestParseWritesBack(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", ""},
		{" ;\n; ", ""},
		{"drop 20%", "drop 20%"},
		{"  drop   20%  from a\tto b ", "drop 20% from a to b"},
		{"drop 0.0001% to b from *", "drop 0.0001% to b"},
		{"drop 007.50%", "drop 7.5%"},
		{"dup 100%", "dup 100%"},
		{"delay 10ms±3ms", "delay 10ms±3ms"},
		{"delay 10ms+-3ms; reorder 5%", "delay 10ms±3ms; reorder 5% gap 1"},
		{"delay 1m", "delay 1m0s"},
		{"delay 0s", "delay 0s"},
		{"reorder 5% to c gap 9", "reorder 5% gap 9 to c"},
		{"cut", "cut"},
		{"cut from a-1 to B_2.x", "cut from a-1 to B_2.x"},
		{"partition a,b | c", "partition a,b|c"},
		{"partition a|*", "partition a|*"},
		{"partition a|b; heal", ""},
		{"drop 1%; partition a|b; clear; dup 2%", "dup 2%"},
		{"drop 1% from a; drop 2%", "drop 2%"},
		{"drop 2%; drop 1% from a", "drop 2%; drop 1% from a"},
	}
	for _, tt := range tests {
		r, err := Parse(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
		} else if got := r.String(); got != tt.want {
			t.Errorf("%q reads as %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestBadRulesSayWhatIsRight(t *testing.T) {
	tests := []struct{ text, says string }{
		{"lose 20%", "say drop, dup"},
		{"drop", "drop 20%"},
		{"drop 20", "e.g. 20%"},
		{"drop 101%", "from 0% to 100%"},
		{"drop -1%", "from 0% to 100%"},
		{"drop +1%", "from 0% to 100%"},
		{"drop 1e1%", "e.g. 20%"},
		{"drop 1.%", "e.g. 20%"},
		{"drop .5%", "e.g. 20%"},
		{"drop 0.00001%", "four decimals"},
		{"drop NaN%", "e.g. 20%"},
		{"drop 20% from", "from NODE"},
		{"drop 20% from a from b", "once each"},
		{"drop 20% gap 3", "out of place"},
		{"drop 20% to a/b", "no name of a node"},
		{"drop 20% to -a", "no name of a node"},
		{"drop 20% to " + strings.Repeat("x", 33), "at most 32"},
		{"delay 10", "10ms±3ms"},
		{"delay -10ms", "must not exceed"},
		{"delay 10ms±20ms", "jitter must not exceed"},
		{"delay 10ms±-3ms", "jitter must not exceed"},
		{"delay 59s±2s", "not 1m0s"},
		{"delay 999h", "not 1m0s"},
		{"delay 9999999h", "10ms±3ms"},
		{"reorder 5% gap 0", "from 1 to 1000"},
		{"reorder 5% gap 1001", "from 1 to 1000"},
		{"partition", "two groups"},
		{"partition a,b", "two groups"},
		{"partition a||b", "no name of a node"},
		{"partition a,*|b", "group by itself"},
		{"partition *|*", "only one"},
		{"heal a", "takes no arguments"},
		{"drop 1%; drup 2%", `"drup"`},
		{strings.Repeat("\xb7", 5000), "no fault"}, // must not come back whole
		{"drop 1% " + strings.Repeat("\xb7", 5000), "stands alone"},
		{"drop 1% from a " + strings.Repeat("\xb7", 5000) + " b", "out of place"},
		{"reorder 1% gap " + strings.Repeat("\xb7", 5000), "from 1 to 1000"},
		{"heal " + strings.Repeat("\xb7", 5000), "no arguments"},
		{strings.Repeat("x", MaxText+1), "more than"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.text)
		if err == nil {
			t.Errorf("%.60q was accepted", tt.text)
			continue
		}
		checkError(t, err)
		if !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%.60q: %q says nothing of %q", tt.text, err, tt.says)
		}
	}
}

// checkError checks that an error is typed, short and one line.
func checkError(t *testing.T, err error) {
	t.Helper()
	var syntax *SyntaxError
	if text := err.Error(); !errors.As(err, &syntax) || strings.ContainsAny(text, "\n\r\x00") || len(text) > 600 {
		t.Errorf("the error is %T of %d bytes: %.100q", err, len(text), text)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"drop 20% from a; dup 1% to b; delay 10ms±3ms; reorder 5% gap 2; partition a,b|c; cut from *", "heal\nclear", "drop 0.0001%", "partition a|*",
		"delay 10ms+/-3ms", "drop 20% from", "\x00;\xff",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := Parse(text)
		if err != nil {
			checkError(t, err)
			return
		}
		again, err := Parse(rules.String())
		if err != nil || again.String() != rules.String() {
			t.Fatalf("%q reads as %q, and that as %q, %v", text, rules, again, err)
		}
		for _, from := range []string{"a", "b", "c", "z"} {
			for _, to := range []string{"a", "b", "c", "z"} {
				faults := rules.For(from, to)
				if faults != again.For(from, to) {
					t.Fatalf("%q means something else when written back", text)
				}
				if faults.Drop > Always || faults.Jitter > faults.Delay || faults.Delay+faults.Jitter > MaxDelay || faults.Reorder > 0 && faults.Gap < 1 {
					t.Fatalf("%q gives %+v", text, faults)
				}
			}
		}
	})
}
