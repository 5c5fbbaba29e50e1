package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab"
	"github.com/coreplica/coreplica/internal/lab/cluster"
	"github.com/coreplica/coreplica/internal/lab/kernel"
	"github.com/coreplica/coreplica/vagrant"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// labPlan is what `lab up` hands to the process that runs the lab.
type labPlan struct {
	Nodes    int               `json:"nodes"`
	Kernel   string            `json:"kernel"`
	Renew    bool              `json:"renew"`
	Topology string            `json:"topology"`
	Seed     uint64            `json:"seed"`
	DiskMiB  int64             `json:"disk_mib"`
	KeepAll  bool              `json:"keep_all"`
	Modules  []string          `json:"modules"`
	Tools    []string          `json:"tools"`
	Files    map[string]string `json:"files"`
}

// nodeTools are on each node if they are on this machine.
var nodeTools = []string{"busybox", "mkfs.btrfs", "mkfs.ext4", "mdadm", "losetup"}

func newLabUpCmd() *cobra.Command {
	var p labPlan
	var foreground bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab of several nodes",
		Long: `Boot nodes under QEMU, join them by a switch and give each a disk, /dev/vda. The
command returns when every node runs commands; the lab stays until
"coreplica lab down".

A node runs from memory: Debian's kernel, this program as
/usr/local/bin/coreplica, busybox and a few tools of this machine. Nodes know each other
by name. The seed decides which frames the faults of "coreplica lab net" hit and
which writes a cut of power takes.`,
		Example: `  coreplica lab up -n 3
  coreplica lab up -n 2 --topology 2x2 --kernel 6.1 --seed 7
  coreplica lab up -n 3 --tool strace --file ./mydaemon=/bin/mydaemon`,
	}
	flags := cmd.Flags()
	flags.IntVarP(&p.Nodes, "nodes", "n", 3, "how many nodes")
	flags.StringVar(&p.Kernel, "kernel", "6.1", "6.1, 6.12, 7 (with sched_ext), or a folder with vmlinuz and lib/modules")
	flags.BoolVar(&p.Renew, "renew", false, "look for a newer package of the kernel")
	flags.StringVar(&p.Topology, "topology", "1x2", "of each node: NODESxCPUS as in 2x2, or a JSON file with nodes and distances")
	flags.Uint64Var(&p.Seed, "seed", 1, "decides what the network's faults hit and what power cuts take")
	flags.Int64Var(&p.DiskMiB, "disk-mib", cluster.DiskBytes>>20, "size of each node's disk")
	flags.BoolVar(&p.KeepAll, "keep-all", false, "let disks lose nothing when the power is cut")
	flags.StringArrayVar(&p.Modules, "module", []string{"loop", "btrfs", "ext4", "raid1"}, "kernel module to load, with parameters; may be repeated")
	flags.StringSliceVar(&p.Tools, "tool", nil, "programs of this machine that the nodes get too")
	flags.StringToStringVar(&p.Files, "file", nil, "files of this machine, as FILE=PATH on the nodes")
	flags.BoolVar(&foreground, "foreground", false, "stay until interrupted, then take the lab down")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := cluster.Find(cleanup.Options{}); err == nil {
			return errors.New("a lab is up already; take it down with `coreplica lab down`")
		}
		if _, err := p.options(cmd.Context(), slog.New(slog.DiscardHandler)); err != nil {
			return labError(err)
		}
		return labError(p.up(cmd, foreground))
	}
	return cmd
}

// options turns a plan into a lab's options. It fetches the kernel.
func (p *labPlan) options(ctx context.Context, logger *slog.Logger) (o cluster.Options, err error) {
	o = cluster.Options{Nodes: p.Nodes, Seed: p.Seed, DiskBytes: p.DiskMiB << 20, KeepAll: p.KeepAll, Modules: p.Modules, Tools: p.Tools, Logger: logger}
	if o.Topology, err = lab.ParseTopology(p.Topology); err != nil {
		return o, err
	}
	if o.Nodes < 1 || o.Nodes > cluster.MaxNodes {
		return o, fmt.Errorf("%w: %d nodes, want 1 to %d", cluster.ErrOptions, o.Nodes, cluster.MaxNodes)
	}
	o.Files = map[string]string{}
	for host, guest := range p.Files {
		if !filepath.IsAbs(guest) {
			return o, usageError(fmt.Errorf("--file %s=%s: want an absolute path on the nodes", host, guest))
		}
		o.Files[guest] = host
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	o.Files["/usr/local/bin/coreplica"] = self
	for _, tool := range nodeTools {
		if path := findTool(tool); path != "" {
			o.Tools = append(o.Tools, tool)
		}
	}
	if path := findTool("busybox"); path != "" {
		out, err := exec.CommandContext(ctx, path, "--list").Output()
		if err != nil {
			return o, fmt.Errorf("busybox --list: %w", err)
		}
		o.Applets = map[string][]string{"busybox": strings.Fields(string(out))}
	}
	o.Kernel, err = kernel.Fetch(ctx, p.Kernel, kernel.Options{Renew: p.Renew, Logger: logger})
	return o, err
}

func findTool(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// serveNote is a line that the lab's process writes to the one that started it.
type serveNote struct {
	Say    string          `json:"say,omitempty"`
	Failed string          `json:"failed,omitempty"`
	Usage  bool            `json:"usage,omitempty"`
	Ready  *cluster.Status `json:"ready,omitempty"`
}

// up starts the lab's process and waits until it is ready. That process does not
// end with the terminal; an interrupt before it is ready ends it.
func (p *labPlan) up(cmd *cobra.Command, foreground bool) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	notes, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer notes.Close() // The process goes on without a listener.
	serve := exec.Command(self, "lab", "serve")
	serve.Stdin = strings.NewReader(string(text))
	serve.ExtraFiles = []*os.File{theirs}
	serve.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	serve.Dir = "/"
	err = serve.Start()
	if err = errors.Join(err, theirs.Close()); err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	stop := context.AfterFunc(cmd.Context(), func() { _ = serve.Process.Signal(syscall.SIGTERM) })
	defer stop()
	ready, err := readNotes(notes, cmd.ErrOrStderr())
	if err != nil {
		<-ended
		return errors.Join(err, cmd.Context().Err())
	}
	if ready == nil {
		return fmt.Errorf("the lab's process ended: %w", errors.Join(<-ended, cmd.Context().Err()))
	}
	if err := printLab(cmd.OutOrStdout(), *ready); err != nil {
		return err
	}
	if !foreground {
		stop()
		return nil
	}
	return <-ended
}

// readNotes shows what the lab's process says until it is ready or has failed.
func readNotes(r io.Reader, progress io.Writer) (*cluster.Status, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var n serveNote
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return nil, fmt.Errorf("hear from the lab: %w", err)
		}
		switch {
		case n.Failed != "" && n.Usage:
			return nil, usageError(errors.New(n.Failed))
		case n.Failed != "":
			return nil, errors.New(n.Failed)
		case n.Ready != nil:
			return n.Ready, nil
		default:
			fmt.Fprintln(progress, n.Say)
		}
	}
	return nil, lines.Err()
}

// newLabServeCmd is the lab's process. It is started by `lab up`.
func newLabServeCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run a lab; started by lab up",
		Long: `Run a lab whose plan comes as JSON on standard input, and tell on descriptor 3 when
it is up. "coreplica lab up" starts this; it is no use by itself.`,
		Example: `  coreplica lab up -n 3`,
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const notesFD = 3
			notes := os.NewFile(notesFD, "notes")
			var ready atomic.Bool
			tell := func(n serveNote) {
				ready.CompareAndSwap(false, n.Ready != nil)
				line, err := json.Marshal(n)
				if err == nil && notes != nil {
					_, _ = notes.Write(append(line, '\n')) // The watch below sees who has gone.
				}
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() {
				// A lab that nobody waits for any more, since `lab up` was
				// killed, must not come up behind everybody's back.
				if waitHangUp(notesFD) == nil && !ready.Load() {
					cancel()
				}
			}()
			err := serveLab(ctx, cmd.InOrStdin(), tell)
			if err != nil {
				var usage *exitError
				tell(serveNote{Failed: oneLine(err), Usage: errors.As(labError(err), &usage) && usage.code == exitUsage})
			}
			return err
		},
	}
}

// waitHangUp waits until nobody can read from the other end of a pipe.
func waitHangUp(fd int32) error {
	for {
		polled := []unix.PollFd{{Fd: fd}}
		_, err := unix.Poll(polled, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case polled[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
			return nil
		default:
			return fmt.Errorf("poll: %#x", polled[0].Revents)
		}
	}
}

func serveLab(ctx context.Context, in io.Reader, tell func(serveNote)) (err error) {
	var p labPlan
	if err := json.NewDecoder(in).Decode(&p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	logger := slog.New(noteHandler{tell: tell, Handler: slog.DiscardHandler})
	run, err := cleanup.Open(ctx, cleanup.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	o, err := p.options(ctx, logger)
	if err != nil {
		return err
	}
	if o.Applets != nil {
		provision := filepath.Join(run.Dir(), "provision")
		if err := copyTree(provision, vagrant.Provision()); err != nil {
			return err
		}
		o.Files["/coreplica/provision"] = provision
		// The steps that a node in memory has: no packages, no systemd, and
		// its modules are loaded by its first process.
		o.Start = []string{"sh", "/coreplica/provision/provision.sh", "sysctl", "binary", "hosts"}
	}
	return cluster.Serve(ctx, run, o, func(s cluster.Status) { tell(serveNote{Ready: &s}) })
}

// copyTree writes embedded files to a folder.
func copyTree(to string, from fs.FS) error {
	return fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, path), 0o755)
		}
		text, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), text, 0o755)
	})
}

// noteHandler tells log records as notes.
type noteHandler struct {
	slog.Handler
	tell func(serveNote)
}

// Enabled hides what only a debugger wants.
func (noteHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle makes one line of a record.
func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%s", a.Key, oneLine(errors.New(a.Value.String())))
		return true
	})
	h.tell(serveNote{Say: b.String()})
	return nil
}
