package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab"
	"github.com/coreplica/coreplica/internal/lab/agent"
	"github.com/coreplica/coreplica/internal/lab/blockserver"
	"github.com/coreplica/coreplica/internal/lab/vswitch"
)

// Cluster is a running lab. Its methods may be called from several goroutines.
type Cluster struct {
	o       Options
	run     *cleanup.Run
	network *vswitch.Switch
	images  string // folder of the disks
	begin   time.Time

	mu     sync.Mutex // held while a node changes its state
	nodes  []*node
	closed bool
}

// node is one machine. Its guest is nil while it is off.
type node struct {
	index int
	name  string
	disk  *blockserver.Server
	port  vswitch.Port
	guest *lab.Guest
	state string
	boot  time.Duration
}

// The states of a node.
const (
	Booting = "booting"
	Up      = "up"
	Off     = "off"
	Crashed = "crashed"
)

var (
	// ErrNoNode is wrapped by the error for a name that no node has.
	ErrNoNode = errors.New("there is no such node")
	// ErrState is wrapped where a node is on that should be off, or off that
	// should be on.
	ErrState = errors.New("the node is in the wrong state")
)

// Open makes the disks and the network and boots all nodes. It returns when each
// runs commands. When the context ends, all of it ends.
func Open(ctx context.Context, run *cleanup.Run, o Options) (_ *Cluster, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &Cluster{o: o, run: run, begin: time.Now(), images: filepath.Join(os.TempDir(), run.ID())}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := run.Add(cleanup.Resource{Kind: cleanup.KindDir, Path: c.images}); err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.images, 0o700); err != nil {
		return nil, fmt.Errorf("make the disks: %w", err)
	}
	sockets := filepath.Join(run.Dir(), "net")
	if err := os.Mkdir(sockets, 0o700); err != nil {
		return nil, fmt.Errorf("make the network: %w", err)
	}
	if c.network, err = vswitch.New(sockets, vswitch.Options{Seed: o.Seed, Logger: o.Logger}); err != nil {
		return nil, err
	}
	for i := range o.Nodes {
		if err := c.add(i); err != nil {
			return nil, err
		}
	}
	return c, c.bootAll(ctx)
}

// add makes a node's disk and its place in the network.
func (c *Cluster) add(i int) (err error) {
	n := &node{index: i, name: name(i), state: Off}
	dir := c.dir(n)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", n.name, err)
	}
	n.disk, err = blockserver.New(filepath.Join(c.images, n.name+".img"), filepath.Join(dir, "disk"), blockserver.Options{
		SizeBytes: c.o.DiskBytes, Seed: c.o.Seed + uint64(i)<<32, KeepAll: c.o.KeepAll, Logger: c.o.Logger,
	})
	if err != nil {
		return fmt.Errorf("make the disk of %s: %w", n.name, err)
	}
	c.nodes = append(c.nodes, n)
	n.port, err = c.network.AddPort(n.name, card(i))
	return err
}

func (c *Cluster) dir(n *node) string { return filepath.Join(c.run.Dir(), n.name) }

// bootAll boots the nodes side by side, as many at a time as there are CPUs to
// translate them: more would only wait for each other.
func (c *Cluster) bootAll(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(c.nodes))
	for i, n := range c.nodes {
		wg.Go(func() { errs[i] = c.boot(ctx, n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// bootPatience is how long a node may take until it runs commands.
const bootPatience = 3 * time.Minute

// boot starts a node and waits until its agent answers.
func (c *Cluster) boot(ctx context.Context, n *node) error {
	begin := time.Now()
	dir := c.dir(n)
	if err := os.RemoveAll(filepath.Join(dir, "root.cpio")); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	guest, err := lab.Start(ctx, c.run, dir, lab.Spec{
		Kernel: c.o.Kernel, Topology: c.o.Topology, Hostname: n.name, Hosts: c.o.hosts(),
		Modules: c.o.Modules, Tools: c.o.Tools, Files: c.o.Files, Sysctl: c.o.Sysctl, Applets: c.o.Applets,
		Disks:   []string{"file=" + n.disk.URI() + ",format=raw,cache=none,discard=unmap"},
		Cards:   []lab.Card{{Netdev: n.port.Netdev("card0"), MAC: card(n.index).String(), Address: address(n.index) + "/24"}},
		Agent:   true,
		Timeout: lab.NoTimeout, Logger: c.o.Logger,
	}, log)
	if err != nil {
		return errors.Join(fmt.Errorf("boot %s: %w", n.name, err), log.Close())
	}
	c.set(n, guest, Booting)
	go c.watch(n, guest, log)
	answered, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	if err := c.started(answered, n, guest); err != nil {
		console := guest.Console()
		guest.Kill()
		return fmt.Errorf("boot %s: %w; the last lines of its console:\n%s", n.name, err, console)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.guest == guest {
		n.state, n.boot = Up, time.Since(begin)
	}
	c.o.Logger.Info("node is up", "node", n.name, "seconds", fmt.Sprintf("%.1f", time.Since(begin).Seconds()))
	return nil
}

func (c *Cluster) set(n *node, g *lab.Guest, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.guest, n.state = g, state
}

// watch notes the end of a guest.
func (c *Cluster) watch(n *node, g *lab.Guest, log io.Closer) {
	_, err := g.Wait()
	_ = log.Close() // Written through already.
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.guest != g {
		return // Killed, and perhaps started again.
	}
	n.guest, n.state = nil, Off
	if err != nil && !c.closed {
		n.state = Crashed
		c.o.Logger.Warn("node ended", "node", n.name, "error", err)
	}
}

// started waits for the agent and lets it run the command that makes the machine
// a node.
func (c *Cluster) started(ctx context.Context, n *node, g *lab.Guest) error {
	client, err := dial(ctx, g)
	if err != nil {
		return err
	}
	defer client.Close() // One of many streams.
	command := []string{"true"}
	if len(c.o.Start) > 0 {
		command = append([]string{"env", "COREPLICA_NODE=" + n.name, "COREPLICA_HOSTS=" + strings.Join(c.o.hosts(), ",")}, c.o.Start...)
	} else if len(c.o.Tools) == 0 {
		command = []string{"/init", "--help"} // Any program that is there.
	}
	var out strings.Builder
	code, err := client.Exec(ctx, command, nil, &out, &out)
	if err != nil {
		return err
	}
	if code != 0 && len(c.o.Start) > 0 {
		return fmt.Errorf("%s: exit code %d: %s", strings.Join(c.o.Start, " "), code, strings.TrimSpace(out.String()))
	}
	return nil
}

// dial reaches the agent, unless the guest ends first.
func dial(ctx context.Context, g *lab.Guest) (*agent.Client, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-g.Ended():
			cancel()
		case <-ctx.Done():
		}
	}()
	stream, err := g.Agent().Open()
	if err != nil {
		return nil, err
	}
	return agent.Dial(ctx, stream)
}

// Stream opens a stream to a node's agent, for agent.Dial.
func (c *Cluster) Stream(node string) (net.Conn, error) {
	c.mu.Lock()
	n, err := c.find(node)
	if err == nil && n.state != Up {
		err = fmt.Errorf("%s is %s: %w; start it with `coreplica lab start %s`", node, n.state, ErrState, node)
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	host := n.guest.Agent()
	c.mu.Unlock()
	return host.Open()
}

// find looks a node up; the caller holds the lock.
func (c *Cluster) find(name string) (*node, error) {
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		return nil, fmt.Errorf("%q: %w: they are node1 to node%d", name, ErrNoNode, len(c.nodes))
	}
	return c.nodes[i], nil
}

// Kill cuts a node's power: the guest ends at once, and its disk loses what was
// not flushed, by the seed. It returns what became of the disk's sectors.
func (c *Cluster) Kill(name string) (string, error) {
	c.mu.Lock()
	n, err := c.find(name)
	if err == nil && n.guest == nil {
		err = fmt.Errorf("%s is %s: %w", name, n.state, ErrState)
	}
	if err != nil {
		c.mu.Unlock()
		return "", err
	}
	guest := n.guest
	n.guest, n.state = nil, Off
	c.mu.Unlock()
	guest.Kill()
	_, _ = guest.Wait() // It has no exit code, and that is the point.
	cut, err := n.disk.PowerCut()
	if err != nil {
		return "", fmt.Errorf("cut the power of %s: %w", name, err)
	}
	return fmt.Sprintf("%s is off; of %d sectors that were not flushed %d survived and %d are lost", name, cut.Volatile, cut.Newest+cut.Older, cut.Lost), nil
}

// Boot starts a node that is off, with the disk that it has.
func (c *Cluster) Boot(ctx context.Context, name string) error {
	c.mu.Lock()
	n, err := c.find(name)
	if err == nil && (n.guest != nil || n.state == Booting) {
		err = fmt.Errorf("%s is %s: %w", name, n.state, ErrState)
	}
	if err == nil {
		n.state = Booting
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.boot(ctx, n); err != nil {
		c.set(n, nil, Off)
		return err
	}
	return nil
}

// Network is the switch, for its rules and counters.
func (c *Cluster) Network() *vswitch.Switch { return c.network }

// Close ends the nodes, the disks and the network. It is idempotent.
func (c *Cluster) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	var guests []*lab.Guest
	for _, n := range c.nodes {
		if n.guest != nil {
			guests = append(guests, n.guest)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, g := range guests {
		g.Kill()
	}
	for _, g := range guests {
		_, _ = g.Wait() // Killed, so without an exit code.
	}
	for _, n := range c.nodes {
		errs = append(errs, n.disk.Close())
	}
	if c.network != nil {
		errs = append(errs, c.network.Close())
	}
	errs = append(errs, c.run.Remove(context.Background(), cleanup.Resource{Kind: cleanup.KindDir, Path: c.images}))
	return errors.Join(errs...)
}
