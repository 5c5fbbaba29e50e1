package cleanup

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const testID = "coreplica-4242-0123456789abcdef"

// What was written is read back: the things added and not done, in order. The
// oracle keeps a plain list.
func TestJournalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := bytes.NewBuffer(nil)
		write := func(r record) {
			line, err := r.line()
			if err != nil {
				t.Fatal(err)
			}
			text.Write(line)
		}
		write(record{Op: opRun, ID: testID, Boot: "boot"})
		want := []Resource{}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			if len(want) > 0 && rapid.Bool().Draw(t, "done") {
				at := rapid.IntRange(0, len(want)-1).Draw(t, "which")
				write(record{Op: opDone, Resource: &want[at]})
				want = append(append([]Resource{}, want[:at]...), want[at+1:]...)
				continue
			}
			r := drawResource(t)
			write(record{Op: opAdd, Resource: &r, AtNs: 5, Zrams: []string{"zram0"}})
			if !contains(want, r) {
				want = append(want, r)
			}
		}
		// A torn last line was never acted on.
		if rapid.Bool().Draw(t, "torn") {
			text.WriteString(`{"op":"add","kind":"file","pa`)
		}
		j, err := parseJournal(text.Bytes(), testID)
		if err != nil {
			t.Fatal(err)
		}
		got := []Resource{}
		for _, r := range j.Open {
			got = append(got, *r.Resource)
		}
		if diff := cmp.Diff(want, got); diff != "" || j.Boot != "boot" {
			t.Fatalf("boot %q, open (-want +got):\n%s", j.Boot, diff)
		}
	})
}

func drawResource(t *rapid.T) Resource {
	if rapid.IntRange(0, 5).Draw(t, "process") == 0 {
		return Resource{Kind: KindProcess, PID: rapid.IntRange(2, 1<<22).Draw(t, "pid"), StartTicks: rapid.Uint64Min(1).Draw(t, "ticks")}
	}
	kind := rapid.SampledFrom([]Kind{KindDir, KindFile, KindPins, KindMount, KindLoop}).Draw(t, "kind")
	return Resource{Kind: kind, Path: filepath.Join("/run", testID, rapid.StringMatching(`[a-z "\\é]{1,8}`).Draw(t, "name"))}
}

func contains(list []Resource, r Resource) bool {
	for _, other := range list {
		if other == r {
			return true
		}
	}
	return false
}

// Whatever a journal holds, nothing that it leads to lies outside of the run.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"op":"run","id":"` + testID + `","boot":"b"}` + "\n" + `{"op":"add","kind":"loop","path":"/run/` + testID + `/x"}` + "\n"))
	f.Add([]byte(`{"op":"add","kind":"dir","path":"/run/` + testID + `/../../etc"}` + "\n"))
	f.Add([]byte(`{"op":"done"}` + "\n\n{}\nnull\n"))
	f.Add([]byte(`{"op":"add","kind":"process","pid":-1,"start_ticks":1}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j, _ := parseJournal(text, testID) // Errors are part of the game.
		for _, r := range j.Open {
			if err := r.check(testID); err != nil {
				t.Fatal(err)
			}
			switch r.Kind {
			case KindProcess:
				if r.PID <= 1 {
					t.Fatalf("would kill process %d", r.PID)
				}
			case KindZram:
			default:
				if !strings.Contains(r.Path, "/"+testID) || strings.Contains(r.Path, "/../") {
					t.Fatalf("would remove %s", r.Path)
				}
			}
		}
		if j.ID != "" && j.ID != testID {
			t.Fatalf("took the journal of %s", j.ID)
		}
	})
}

func TestOwned(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/" + testID:                true,
		"/run/" + testID + "/a":         true,
		"/data/" + testID + ".mirror/0": true,
		"/run/" + testID + "0/a":        false,
		"/run/x" + testID:               false,
		"/run/" + testID + "/../a":      false,
		"/run/" + testID + "/":          false,
		"run/" + testID:                 false,
		"/":                             false,
		"":                              false,
		"/" + testID + strings.Repeat("/a", 4096): false,
	} {
		if got := owned(path, testID); got != want {
			t.Errorf("owned(%.60q) = %v", path, got)
		}
	}
}

func TestUnescapeMountPoints(t *testing.T) {
	got := parseMountPoints("22 27 0:21 / /proc rw - proc proc rw\nbroken\n23 27 0:22 / /a\\040b\\134c rw - x y rw\n24 1 0:1 / /end\\04 rw - x y rw\n")
	if diff := cmp.Diff([]string{"/proc", `/a b\c`, `/end\04`}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseStartTicks(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"
	for stat, want := range map[string]uint64{"7 (sh)" + tail: 4711, "7 (a) b) (c)" + tail: 4711, "7 (sh) S 1 2": 0, "": 0, "7 sh" + tail: 0} {
		got, err := parseStartTicks(stat)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("parseStartTicks(%q) = %d, %v", stat, got, err)
		}
	}
}

// The mark of a zram device limits nothing, is whole pages, and differs.
func TestZramTag(t *testing.T) {
	seen := map[uint64]bool{}
	for _, label := range []string{"a-0", "a-1", "b-0", ""} {
		tag := zramTag(testID, label)
		if tag < 1<<61 || tag >= 1<<62 || tag%(64<<10) != 0 || seen[tag] {
			t.Errorf("tag %#x of %q", tag, label)
		}
		seen[tag] = true
	}
}
