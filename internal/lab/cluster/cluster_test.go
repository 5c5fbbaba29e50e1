package cluster

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/guest"
	"github.com/coreplica/coreplica/internal/lab/kernel"
	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) {
	guest.Main()
	testkit.Main(m, testkit.Children())
}

// serve runs a lab for a test and returns a client of it.
func serve(t *testing.T, nodes int) (*Client, context.Context) {
	t.Helper()
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "a guest takes seconds, and the race detector sees nothing of it"))
	}
	testkit.Need(t, testkit.QEMU, testkit.Busybox)
	k, err := kernel.Fetch(t.Context(), "6.1", kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	// A short path: sockets lie below.
	root, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	run, err := cleanup.Open(t.Context(), cleanup.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan Status, 1)
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	begin := time.Now()
	go func() {
		served <- Serve(ctx, run, Options{
			Nodes: nodes, Kernel: k, Seed: 1009, DiskBytes: 16 << 20,
			Tools: []string{"busybox"}, Applets: map[string][]string{"busybox": strings.Fields(string(applets))},
			Start: []string{"sh", "-c", `test "$COREPLICA_NODE" = "$(hostname)"`},
		}, func(s Status) { ready <- s })
	}()
	t.Cleanup(func() {
		cancel()
		err := errors.Join(<-served, run.Close())
		if err != nil {
			t.Errorf("take the lab down: %v", err)
		}
		if rest, _ := os.ReadDir(root); len(rest) > 0 {
			t.Errorf("left behind: %v", rest)
		}
	})
	select {
	case s := <-ready:
		t.Logf("%d nodes with Linux %s are up after %.1f s", len(s.Nodes), s.Kernel, time.Since(begin).Seconds())
	case err := <-served:
		served <- nil
		t.Fatalf("the lab did not come up: %v", err)
	}
	c, err := Find(cleanup.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return c, t.Context()
}

// on runs a command on a node and returns its exit code and what it printed.
func on(t *testing.T, c *Client, node string, argv ...string) (int, string) {
	t.Helper()
	a, err := c.Agent(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var out strings.Builder
	code, err := a.Exec(t.Context(), argv, nil, &out, &out)
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String()
}

var received = regexp.MustCompile(`(\d+) packets transmitted, (\d+) packets received`)

// ping returns how many of n echoes came back.
func ping(t *testing.T, c *Client, from, to string, n int) int {
	t.Helper()
	_, out := on(t, c, from, "ping", "-c", strconv.Itoa(n), "-i", "0.1", "-W", "3", to)
	m := received.FindStringSubmatch(out)
	if m == nil || m[1] != strconv.Itoa(n) {
		t.Fatalf("ping from %s to %s: %s", from, to, out)
	}
	back, err := strconv.Atoi(m[2])
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func fault(t *testing.T, c *Client, command string) {
	t.Helper()
	if err := c.Net(t.Context(), command); err != nil {
		t.Fatal(err)
	}
}

// Three nodes reach each other; with a fifth of the frames lost some echoes come
// back and some do not; across a partition none does, until it is healed. Without
// faults, which is the control, none is lost.
func TestThreeNodes(t *testing.T) {
	c, ctx := serve(t, 3)
	for i := range 3 {
		for j := range 3 {
			if got := ping(t, c, name(i), name(j), 2); got != 2 {
				t.Errorf("%s to %s: %d of 2 echoes", name(i), name(j), got)
			}
		}
	}
	fault(t, c, "drop 20%")
	const echoes = 31
	back := ping(t, c, "node1", "node2", echoes)
	t.Logf("with 20 %% loss each way %d of %d echoes came back", back, echoes)
	// Both ways survive with probability 0.64; five deviations are 13.
	if back < 7 || back == echoes {
		t.Errorf("%d of %d echoes came back", back, echoes)
	}
	fault(t, c, "clear")
	fault(t, c, "partition node1|node2,node3")
	if got := ping(t, c, "node1", "node2", 2); got != 0 {
		t.Errorf("%d echoes across the partition", got)
	}
	if got := ping(t, c, "node2", "node3", 2); got != 2 {
		t.Errorf("%d of 2 echoes within a part", got)
	}
	fault(t, c, "heal")
	if got := ping(t, c, "node1", "node2", 3); got != 3 {
		t.Errorf("%d of 3 echoes after the partition is healed", got)
	}
	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var dropped, cut uint64
	for _, l := range s.Links {
		dropped, cut = dropped+l.Dropped, cut+l.Cut
	}
	if dropped == 0 || cut == 0 || len(s.Rules) != 0 {
		t.Errorf("%d frames dropped, %d cut, rules %q", dropped, cut, s.Rules)
	}
	t.Run("power", func(t *testing.T) { power(t, c) })
	t.Run("refused", func(t *testing.T) { refused(t, c) })
}

// A node whose power is cut keeps what it synced and starts again; the others do
// not notice but for its silence.
func power(t *testing.T, c *Client) {
	write := `head -c 65536 /dev/zero | tr '\0' S | dd of=/dev/vda bs=64k iflag=fullblock conv=fsync 2>/dev/null`
	if code, out := on(t, c, "node3", "sh", "-c", write); code != 0 {
		t.Fatalf("write: %s", out)
	}
	said, err := c.Kill(t.Context(), "node3")
	if err != nil || !strings.Contains(said, "node3 is off") {
		t.Errorf("%q, %v", said, err)
	}
	if got := ping(t, c, "node1", "node3", 1); got != 0 {
		t.Error("a node without power answers")
	}
	if _, err := c.Agent(t.Context(), "node3"); err == nil || !strings.Contains(err.Error(), "lab start node3") {
		t.Errorf("a command on it: %v", err)
	}
	if _, err := c.Kill(t.Context(), "node3"); err == nil {
		t.Error("its power was cut twice")
	}
	if _, err := c.Start(t.Context(), "node3"); err != nil {
		t.Fatal(err)
	}
	if _, out := on(t, c, "node3", "sh", "-c", "head -c 65536 /dev/vda | tr -d S | wc -c"); strings.TrimSpace(out) != "0" {
		t.Errorf("%s of 65536 synced bytes are lost", out)
	}
	if got := ping(t, c, "node1", "node3", 2); got != 2 {
		t.Errorf("%d of 2 echoes from the node that came back", got)
	}
}

func refused(t *testing.T, c *Client) {
	for what, err := range map[string]error{
		"a node that is not there":  c.Net(t.Context(), "drop 1% from node9"),
		"a word that is no fault":   c.Net(t.Context(), "explode"),
		"a partition of nobody":     c.Net(t.Context(), "partition node1|nobody"),
		"too long a list of faults": c.Net(t.Context(), strings.Repeat("x", 1<<20)),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, err := c.Agent(t.Context(), "node9"); !errors.Is(err, ErrUsage) {
		t.Errorf("a command on no node: %v", err)
	}
	if _, err := c.Kill(t.Context(), "node9"); !errors.Is(err, ErrUsage) {
		t.Errorf("no node was killed: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{{Nodes: 0}, {Nodes: 17}, {Nodes: 1, DiskBytes: 5}, {Nodes: 1, DiskBytes: 1<<20 + 1}} {
		if _, err := Open(t.Context(), nil, o); !errors.Is(err, ErrOptions) {
			t.Errorf("%d nodes, %d bytes: %v", o.Nodes, o.DiskBytes, err)
		}
	}
}

func TestNoLab(t *testing.T) {
	if _, err := Find(cleanup.Options{Root: t.TempDir()}); !errors.Is(err, ErrNoLab) {
		t.Errorf("got %v", err)
	}
}
