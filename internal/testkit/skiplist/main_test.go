package main

import (
	"strings"
	"testing"
	"testing/iotest"
)

const passing = `== unit tests
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise of a test that passes\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`

// Each run ends with a summary that its events deserve.
var summaries = []struct {
	name, in string
	failed   bool
	has      []string
	hasNot   []string
}{
	{
		name: "a run that passes shows go test's lines and no noise", in: passing,
		has:    []string{"== unit tests\n", "ok  \tp\t0.1s\n", "\n1 passed, 0 failed, 0 skipped\n"},
		hasNot: []string{"noise", "PASS\n", "Skipped"},
	},
	{
		name: "a failed test shows its output",
		in: passing + `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: no good\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}
`,
		failed: true, has: []string{"b_test.go:7: no good", "failed: p\n", "\n1 passed, 1 failed, 0 skipped\n"},
	},
	{
		name: "a skip is listed by its feature",
		in: passing + `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:1: SKIP coreplica feature=md reason=\"no \\\"mdstat\\\"\"\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
`,
		has: []string{"Skipped, by missing feature:\n", `md         no "mdstat"`, "p.TestC\n", "\n1 passed, 0 failed, 1 skipped\n"},
	},
	{
		name: "a skip without a reason fails",
		in: passing + `{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:1: not today\n"}
{"Action":"skip","Package":"p","Test":"TestD"}
`,
		failed: true, has: []string{"without a typed reason", "p.TestD: d_test.go:1: not today"},
	},
	{
		name: "a package that does not build fails",
		in: passing + `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: undefined: x\n"}
{"ImportPath":"q","Action":"build-fail"}
`,
		failed: true, has: []string{"undefined: x", "failed: q\n"},
	},
	{
		name: "a phase that fails, fails", in: passing + `{"Action":"phase-fail","Package":"vet"}` + "\n",
		failed: true, has: []string{"failed: vet\n"},
	},
	{
		name: "a test that was cut off fails",
		in: passing + `{"Action":"output","Package":"p","Test":"TestE","Output":"panic: out of time\n"}
`,
		failed: true, has: []string{"no end seen of p.TestE", "out of time"},
	},
	{
		name: "a leak after the tests fails",
		in: passing + `{"Action":"output","Package":"p","Output":"LEAK mounts: 5 /mnt\n"}
{"Action":"fail","Package":"p"}
`,
		failed: true, has: []string{"LEAK mounts", "failed: p\n"},
	},
	{name: "nothing at all fails", in: "", failed: true, has: []string{"proves nothing"}},
	{name: "a last line without its end is read", in: strings.TrimSuffix(passing, "\n"), has: []string{"1 passed"}},
}

func TestSummaries(t *testing.T) {
	for _, tt := range summaries {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			failed, err := summarise(strings.NewReader(tt.in), &out)
			if err != nil || failed != tt.failed {
				t.Errorf("failed %v, %v; want %v", failed, err, tt.failed)
			}
			for _, want := range tt.has {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output lacks %q:\n%s", want, out.String())
				}
			}
			for _, not := range tt.hasNot {
				if strings.Contains(out.String(), not) {
					t.Errorf("the output has %q:\n%s", not, out.String())
				}
			}
		})
	}
}

func TestAPipeThatBreaksFails(t *testing.T) {
	var out strings.Builder
	failed, err := summarise(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(passing))), &out)
	if !failed || err == nil {
		t.Errorf("failed %v, %v", failed, err)
	}
}

func FuzzSummarise(f *testing.F) {
	f.Add(passing)
	f.Fuzz(func(t *testing.T, in string) {
		var out strings.Builder
		_, _ = summarise(strings.NewReader(in), &out) // A test may print anything.
	})
}
