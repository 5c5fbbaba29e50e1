package proc

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
)

// logged runs a function with a log and returns its messages and the first line
// in full.
func logged(run func(*slog.Logger)) (messages []string, first string) {
	var out bytes.Buffer
	run(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.MessageKey {
			messages = append(messages, a.Value.String())
		}
		return a
	}})))
	first, _, _ = strings.Cut(out.String(), "\n")
	return messages, first
}

// All that a worker prints is in the log when it is done, also a last line
// without an end, with the worker's name beside it.
func TestOutputReachesTheLog(t *testing.T) {
	t.Setenv(roleEnv, rolePrint)
	messages, first := logged(func(log *slog.Logger) {
		w, err := Spawn(7, 3, SpawnOptions{Log: log})
		if err != nil {
			t.Fatal(err)
		}
		if exit := w.Exit(); exit != (Exit{}) {
			t.Errorf("exit %+v", exit)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	want := []string{strings.TrimSpace(printedOut), strings.TrimSpace(printedErr), printedLast}
	if !slices.Equal(messages, want) {
		t.Errorf("logged %q, want %q", messages, want)
	}
	if !strings.Contains(first, "worker=7 life=3") {
		t.Errorf("the log does not say who: %s", first)
	}
}

// Without a log the output goes to standard error, byte by byte, and never to
// standard output, and the opener's standard error stays open.
func TestOutputPassesThrough(t *testing.T) {
	t.Setenv(roleEnv, rolePrint)
	in, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.CreateTemp(t.TempDir(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = out, in
	w, err := Spawn(7, 3, SpawnOptions{})
	os.Stdout, os.Stderr = stdout, stderr
	if err != nil {
		t.Fatal(err)
	}
	w.Exit()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := in.WriteString("."); err != nil {
		t.Errorf("the worker's end closed our standard error: %v", err)
	}
	got, err := os.ReadFile(in.Name())
	if want := printedOut + printedErr + printedLast + "."; err != nil || string(got) != want {
		t.Errorf("%v, passed %q, want %q", err, got, want)
	}
	if got, err := os.ReadFile(out.Name()); err != nil || len(got) > 0 {
		t.Errorf("%v, standard output got %q", err, got)
	}
}

// Lines are logged whole up to the limit and in pieces beyond it, however they
// are written.
func TestLineLimits(t *testing.T) {
	full := strings.Repeat("f", lineBytesLimit)
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing":             {"", nil},
		"lines":               {"a\n\nb\n", []string{"a", "", "b"}},
		"no end":              {"a\nb", []string{"a", "b"}},
		"at the limit":        {full + "\nb\n", []string{full, "b"}},
		"over the limit":      {full + "x\nb\n", []string{full, "x", "b"}},
		"far over, no end":    {full + full + full + "x", []string{full, full, full, "x"}},
		"at the limit, ended": {full, []string{full}},
	} {
		for _, stepBytes := range []int{1 << 20, 32 << 10, 4099} {
			t.Run(fmt.Sprintf("%s, %d at a time", name, stepBytes), func(t *testing.T) {
				messages, _ := logged(func(log *slog.Logger) {
					l := &lineLogger{log: log}
					for text := []byte(c.text); len(text) > 0; {
						n, err := l.Write(text[:min(stepBytes, len(text))])
						if err != nil || n != min(stepBytes, len(text)) {
							t.Fatalf("%d, %v", n, err)
						}
						text = text[n:]
						if len(l.rest) > lineBytesLimit {
							t.Fatalf("it keeps %d bytes", len(l.rest))
						}
					}
					l.flush()
				})
				if !slices.Equal(messages, c.want) {
					t.Fatalf("%d lines, want %d", len(messages), len(c.want))
				}
			})
		}
	}
}
