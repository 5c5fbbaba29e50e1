package vagrant

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// counts lets counts.awk judge a report.
func counts(t *testing.T, report string) (code int, said string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, nil, "awk", "-v", "writes=20011", "-f", "counts.awk", file)
}

// The example of package report has 20011 writes of each leg.
func TestCountsOfAReport(t *testing.T) {
	text, err := os.ReadFile("../mirrorcost/report/testdata/run/report.json")
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	code, said := counts(t, good)
	want := "baseline: 20011 of 20011 writes acknowledged, 1 copies, bios of the devices: 20011\n" +
		"mirror: 20011 of 20011 writes acknowledged, 2 copies, bios of the devices: 20011 20011\n"
	if code != 0 || said != want {
		t.Errorf("exit %d: %s", code, said)
	}
	for old, changed := range map[string]string{
		`"loop2": 20011`:        `"loop2": 19000`,
		`"loop0": 20011`:        `"loop0": 0`,
		`"acknowledged": 20011`: `"acknowledged": 20010`,
		`"copies": 2`:           `"copies": 1`,
		`"loop1": 20011,`:       ``,
		good:                    `{}`,
	} {
		if code, said := counts(t, strings.Replace(good, old, changed, 1)); code != 1 {
			t.Errorf("with %.30s instead of %.30s: exit %d: %s", changed, old, code, said)
		}
	}
}
