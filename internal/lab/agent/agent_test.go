package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m, testkit.Children()) }

// connect serves on one end of a pipe and returns a client of the other.
func connect(t *testing.T) (*Host, *Client, <-chan error) {
	t.Helper()
	inside, outside := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(inside) }()
	host, err := NewHost(outside)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	stream, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return host, c, served
}

func TestExec(t *testing.T) {
	_, c, _ := connect(t)
	for _, tt := range []struct {
		argv     []string
		in       string
		code     int
		out, err string
	}{
		{[]string{"sh", "-c", "cat; echo complaint >&2; exit 3"}, "through\n", 3, "through\n", "complaint\n"},
		{[]string{"printf", "%s|", "a b", "", "c\"d"}, "", 0, "a b||c\"d|", ""},
		{[]string{"sh", "-c", "kill -9 $$"}, "", 137, "", ""},
		{[]string{"/nonesuch"}, "", 127, "", "fork/exec /nonesuch: no such file or directory\n"},
		{[]string{"/etc"}, "", 126, "", "fork/exec /etc: permission denied\n"},
	} {
		var out, errOut bytes.Buffer
		code, err := c.Exec(t.Context(), tt.argv, strings.NewReader(tt.in), &out, &errOut)
		if err != nil || code != tt.code || out.String() != tt.out || errOut.String() != tt.err {
			t.Errorf("%q: code %d, %v, output %q, errors %q", tt.argv, code, err, &out, &errOut)
		}
	}
}

// A command that reads nothing ends although its input does not.
func TestInputThatNeverEnds(t *testing.T) {
	_, c, _ := connect(t)
	in, w := io.Pipe()
	defer w.Close()
	if code, err := c.Exec(t.Context(), []string{"true"}, in, nil, nil); code != 0 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
}

func TestCancelKills(t *testing.T) {
	_, c, _ := connect(t)
	mark := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, []string{"sh", "-c", "echo $$ > " + mark + "; exec sleep 600"}, nil, nil, nil)
		done <- err
	}()
	var pid []byte
	for deadline := time.Now().Add(10 * time.Second); len(pid) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		pid, _ = os.ReadFile(mark)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	process := "/proc/" + strings.TrimSpace(string(pid))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(process); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s still lives", process)
		}
	}
}

func TestPush(t *testing.T) {
	_, c, _ := connect(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "new/to")
	text := bytes.Repeat([]byte("0123456789"), 100_003)
	if err := os.WriteFile(from, text, 0o751); err != nil {
		t.Fatal(err)
	}
	if err := c.Push(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	info, statErr := os.Stat(to)
	if err := errors.Join(err, statErr); err != nil || !bytes.Equal(got, text) || info.Mode() != 0o751 {
		t.Errorf("%d of %d bytes, mode %v, %v", len(got), len(text), info.Mode(), err)
	}
	if err := c.Push(t.Context(), from, "relative"); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("a relative path: %v", err)
	}
	if err := c.Push(t.Context(), dir, to); err == nil {
		t.Error("a folder was pushed")
	}
	if rest, _ := filepath.Glob(filepath.Join(dir, "new", ".coreplica-*")); len(rest) > 0 {
		t.Errorf("left behind: %q", rest)
	}
}

func TestShutDown(t *testing.T) {
	host, c, served := connect(t)
	if err := c.ShutDown(t.Context()); err != nil {
		t.Errorf("shut down: %v", err)
	}
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it serves on")
	}
	if _, err := c.Exec(t.Context(), []string{"true"}, nil, nil, nil); err == nil {
		t.Error("a guest that is down runs commands")
	}
	_ = host.Close()
}
