package numa

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the topology for people.
func (t *Topology) WriteTable(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(out, "packages %d, cores %d, CPUs %d online (%s)", len(t.Packages()), len(t.Cores()), len(t.Online), t.Online)
	if len(t.Offline) > 0 {
		fmt.Fprintf(out, ", offline %s", t.Offline)
	}
	if len(t.Isolated) > 0 {
		fmt.Fprintf(out, ", isolated %s", t.Isolated)
	}
	fmt.Fprint(out, "\n\nnode\tCPUs\tusable\tmemory\tfree\thuge pages\tdistances\n")
	for _, n := range t.Nodes {
		fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", n.ID, dash(n.CPUs.String()), dash(t.UsableCPUs(n.ID).String()),
			t.memoryText(n), size(n.Memory.FreeBytes), dash(hugeText(n.HugePages)), strings.Trim(fmt.Sprint(n.Distances), "[]"))
	}
	t.writeCores(out)
	t.writeCaches(out)
	t.writeLimits(out)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// writeCores writes a row for each part of a package that is in one node.
func (t *Topology) writeCores(out io.Writer) {
	type place struct{ node, pkg, die int }
	var order []place
	cores := map[place][]string{}
	for _, core := range t.Cores() {
		c, _ := t.CPU(core[0])
		at := place{c.Node, c.Package, c.Die}
		if cores[at] == nil {
			order = append(order, at)
		}
		cores[at] = append(cores[at], core.String())
	}
	fmt.Fprint(out, "\nnode\tpackage\tdie\tcores\tCPUs of each\n")
	for _, at := range order {
		fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%s\n", number(at.node), number(at.pkg), number(at.die), len(cores[at]), strings.Join(cores[at], " "))
	}
}

// writeCaches writes a row for each kind and size of cache.
func (t *Topology) writeCaches(out io.Writer) {
	if len(t.Caches) == 0 {
		fmt.Fprint(out, "\ncaches: the kernel shows none\n")
		return
	}
	var order []string
	shared := map[string][]string{}
	for _, c := range t.Caches {
		row := fmt.Sprintf("%s\t%s\t%d B", c.Name(), size(c.SizeBytes), c.LineBytes)
		if shared[row] == nil {
			order = append(order, row)
		}
		shared[row] = append(shared[row], c.CPUs.String())
	}
	fmt.Fprint(out, "\ncache\tsize\tline\tinstances\tCPUs of each\n")
	for _, row := range order {
		fmt.Fprintf(out, "%s\t%d\t%s\n", row, len(shared[row]), strings.Join(shared[row], " "))
	}
}

func (t *Topology) writeLimits(out io.Writer) {
	l := t.Limits
	fmt.Fprintf(out, "\nthis process may use CPUs %s and the memory of nodes %s", dash(l.CPUs.String()), dash(t.MemoryNodes().String()))
	if l.CgroupVersion > 0 {
		fmt.Fprintf(out, " (cgroup %d, %s)", l.CgroupVersion, l.Cgroup)
	}
	if l.QuotaCPUs > 0 {
		fmt.Fprintf(out, ", %g CPUs of time", l.QuotaCPUs)
	}
	if l.MemoryMaxBytes > 0 {
		fmt.Fprintf(out, ", %s of memory", size(l.MemoryMaxBytes))
	}
	fmt.Fprintln(out)
}

// Name is the cache's short name, such as "L1d" or "L3".
func (c Cache) Name() string {
	suffix := map[string]string{"Data": "d", "Instruction": "i"}[c.Kind]
	return fmt.Sprintf("L%d%s", c.Level, suffix)
}

// WriteDOT writes the topology as a graph in the language of Graphviz: packages
// around nodes around last-level caches around cores, edges with distances. CPUs
// that this process may not use are grey.
func (t *Topology) WriteDOT(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprint(out, "graph numa {\n  compound=true; node [shape=box, fontname=\"monospace\"]; fontname=\"monospace\";\n")
	for _, n := range t.Nodes {
		fmt.Fprintf(out, "  subgraph cluster_node%d {\n    label=\"node %d, %s\";\n", n.ID, n.ID, t.memoryText(n))
		fmt.Fprintf(out, "    memory%d [label=\"memory\", shape=cylinder];\n", n.ID)
		t.dotGroups(out, n)
		fmt.Fprint(out, "  }\n")
	}
	for i, a := range t.Nodes {
		for j, b := range t.Nodes[i+1:] {
			label := fmt.Sprint(a.Distances[i+1+j])
			if back := b.Distances[i]; back != a.Distances[i+1+j] {
				label += fmt.Sprintf(" / %d", back)
			}
			fmt.Fprintf(out, "  memory%d -- memory%d [label=\"%s\", ltail=cluster_node%d, lhead=cluster_node%d];\n", a.ID, b.ID, label, a.ID, b.ID)
		}
	}
	fmt.Fprint(out, "}\n")
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write graph: %w", err)
	}
	return nil
}

// dotGroups writes a node's cores by package and last-level cache.
func (t *Topology) dotGroups(out io.Writer, n Node) {
	group, open := "", false
	for _, core := range t.Cores() {
		c, _ := t.CPU(core[0])
		if c.Node != n.ID {
			continue
		}
		last, name := t.lastCache(core[0])
		title := fmt.Sprintf("package %s%s", number(c.Package), name)
		if key := fmt.Sprintf("%s %d", title, last); key != group {
			if open {
				fmt.Fprint(out, "    }\n")
			}
			fmt.Fprintf(out, "    subgraph cluster_node%d_cpu%d {\n      label=\"%s\";\n", n.ID, core[0], title)
			group, open = key, true
		}
		style := ""
		if len(core.And(t.Limits.CPUs)) == 0 {
			style = ", style=filled, fillcolor=lightgrey"
		}
		fmt.Fprintf(out, "      cpu%d [label=\"CPU %s\"%s];\n", core[0], core, style)
	}
	if open {
		fmt.Fprint(out, "    }\n")
	}
}

// lastCache returns the first CPU that shares the largest cache with a CPU.
func (t *Topology) lastCache(cpu int) (first int, name string) {
	first = Unknown
	for _, c := range t.Caches { // By level, so the last one counts.
		if c.CPUs.Has(cpu) && c.Level > 1 {
			first, name = c.CPUs[0], fmt.Sprintf(", %s %s", c.Name(), size(c.SizeBytes))
		}
	}
	return first, name
}

// WriteTable writes where a process is, for people.
func (p *Process) WriteTable(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(out, "process %d (%s)\n\nnode\tmemory\tshare\tthreads last seen\tbound there\n", p.PID, printable(p.Command))
	for _, n := range p.Nodes {
		fmt.Fprintf(out, "%d\t%s\t%.1f %%\t%d\t%d\n", n.Node, size(n.Bytes), n.Percent, n.Threads, n.Bound)
	}
	fmt.Fprint(out, "\nkind\tmemory\tby node\n")
	for _, k := range p.Kinds {
		var parts []string
		for _, n := range p.Nodes {
			if bytes := k.Nodes[n.Node]; bytes > 0 {
				parts = append(parts, fmt.Sprintf("%d: %s", n.Node, size(bytes)))
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", printable(k.Kind), size(k.Bytes), strings.Join(parts, ", "))
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// printable keeps names that another program chose from steering a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

func (t *Topology) memoryText(n Node) string {
	if n.Memory.TotalBytes == 0 {
		return "none"
	}
	text := size(n.Memory.TotalBytes)
	if !t.Limits.Nodes.Has(n.ID) {
		text += " (not for this process)"
	}
	return text
}

func hugeText(pools []HugePages) string {
	var parts []string
	for _, p := range pools {
		if p.Total > 0 {
			parts = append(parts, fmt.Sprintf("%d × %s, %d free", p.Total, size(p.PageBytes), p.Free))
		}
	}
	return strings.Join(parts, "; ")
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func number(n int) string {
	if n == Unknown {
		return "?"
	}
	return fmt.Sprint(n)
}

// size writes bytes with a binary unit.
func size(bytes uint64) string {
	value, unit := float64(bytes), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 || value == float64(int(value)) {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
