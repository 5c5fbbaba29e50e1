package numa

import (
	"path"
	"strconv"
	"strings"
)

// noLimitBytes is the least number that means no limit in version 1 of cgroups,
// which writes the largest multiple of the page size (9223372036854771712).
const noLimitBytes = 1 << 62

// limits finds what this process may use: its affinity and memory nodes, which
// a cpuset is already part of, and the limits of its control group.
func (r *reader) limits() {
	l := &r.t.Limits
	l.CPUs, l.Nodes = r.t.Online, r.t.NodeIDs()
	r.allowed()
	hierarchies := r.hierarchies()
	if cpuset, found := hierarchies["cpuset"]; found {
		l.CgroupVersion, l.Cgroup = 1, cpuset.group
		l.CpusetCPUs = r.nearest(cpuset, "cpuset.effective_cpus", "cpuset.cpus")
		l.CpusetNodes = r.nearest(cpuset, "cpuset.effective_mems", "cpuset.mems")
	} else if unified, found := hierarchies[""]; found {
		l.CgroupVersion, l.Cgroup = 2, unified.group
		l.CpusetCPUs = r.nearest(unified, "cpuset.cpus.effective")
		l.CpusetNodes = r.nearest(unified, "cpuset.mems.effective")
	}
	if l.CpusetCPUs != nil {
		l.CPUs = l.CPUs.And(l.CpusetCPUs)
	}
	if l.CpusetNodes != nil {
		l.Nodes = l.Nodes.And(l.CpusetNodes)
	}
	if len(l.CPUs) == 0 {
		r.failf("proc/self/status", "this process may use none of the CPUs %s that are online", r.t.Online)
	}
	for name, h := range hierarchies {
		for _, dir := range h.dirs {
			r.least(name, dir)
		}
	}
}

// allowed reads the lists in /proc/self/status.
func (r *reader) allowed() {
	const name = "proc/self/status"
	l := &r.t.Limits
	text, _ := r.text(name)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		var target *List
		switch key {
		case "Cpus_allowed_list":
			target = &l.CPUs
		case "Mems_allowed_list":
			target = &l.Nodes
		default:
			continue
		}
		allowed, err := ParseList(value)
		if err != nil {
			r.fail(name, err)
			return
		}
		if key == "Cpus_allowed_list" && r.affinity != nil {
			allowed = r.affinity
		}
		*target = target.And(allowed)
	}
}

// hierarchy is a tree of control groups and the process's place in it.
type hierarchy struct {
	group string
	// dirs are the folders of the group and its ancestors, from the leaf,
	// as paths of the fs.FS.
	dirs []string
}

// hierarchies returns where this process stands in each hierarchy that limits
// CPUs or memory: by controller, and "" for version 2.
func (r *reader) hierarchies() map[string]hierarchy {
	groups := r.groups()
	found := map[string]hierarchy{}
	text, _ := r.text("proc/self/mountinfo")
	for line := range strings.Lines(text) {
		// ID parent device root point options optional… - type source super
		front, back, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(front), strings.Fields(back)
		if len(where) < 6 || len(what) < 3 {
			continue
		}
		root, point := unescape(where[3]), unescape(where[4])
		switch what[0] {
		case "cgroup2":
			if group, ok := groups[""]; ok {
				found[""] = placeIn(group, root, point)
			}
		case "cgroup":
			for controller := range strings.SplitSeq(what[2], ",") {
				group, ok := groups[controller]
				if ok && (controller == "cpuset" || controller == "cpu" || controller == "memory") {
					found[controller] = placeIn(group, root, point)
				}
			}
		}
	}
	return found
}

// groups reads /proc/self/cgroup: the process's group by controller.
func (r *reader) groups() map[string]string {
	groups := map[string]string{}
	text, _ := r.text("proc/self/cgroup")
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			r.failf("proc/self/cgroup", "%q is no line of the form ID:controllers:path", shorten(line))
			return nil
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			groups[controller] = parts[2]
		}
	}
	return groups
}

// placeIn finds a group's folders below a mount, which may show a part of the
// hierarchy only, as in a container.
func placeIn(group, root, point string) hierarchy {
	below, inside := strings.CutPrefix(group, strings.TrimSuffix(root, "/"))
	if !inside || strings.HasPrefix(group, "/..") {
		below = "/" // The group lies outside of what is mounted.
	}
	h := hierarchy{group: group}
	for leaf := path.Clean("/" + below); ; leaf = path.Dir(leaf) {
		h.dirs = append(h.dirs, inRoot(point+leaf))
		if leaf == "/" {
			return h
		}
	}
}

// unescape undoes the octal escapes of mountinfo.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

// nearest reads a list from the closest folder that has it: a group without the
// controller obeys its ancestor's. The names are tried in order.
func (r *reader) nearest(h hierarchy, names ...string) List {
	for _, dir := range h.dirs {
		for _, name := range names {
			if list, found := r.list(path.Join(dir, name), maxCPUs); found {
				return list
			}
		}
	}
	return nil
}

// least takes the limits of a folder into account.
func (r *reader) least(controller, dir string) {
	switch controller {
	case "":
		r.quota(path.Join(dir, "cpu.max"), strings.Fields(r.optional(path.Join(dir, "cpu.max"))))
		r.memoryMax(path.Join(dir, "memory.max"))
	case "cpu":
		name := path.Join(dir, "cpu.cfs_quota_us")
		r.quota(name, []string{r.optional(name), r.optional(path.Join(dir, "cpu.cfs_period_us"))})
	case "memory":
		r.memoryMax(path.Join(dir, "memory.limit_in_bytes"))
	}
}

func (r *reader) optional(name string) string {
	text, _ := r.text(name)
	return text
}

// quota takes microseconds of CPU time in a period of microseconds.
func (r *reader) quota(name string, fields []string) {
	if len(fields) < 2 || fields[0] == "" || fields[0] == "max" || fields[0] == "-1" {
		return
	}
	quota, err := strconv.ParseUint(fields[0], 10, 53)
	period, err2 := strconv.ParseUint(fields[1], 10, 53)
	if err != nil || err2 != nil || period == 0 {
		r.failf(name, "%q is no quota and period in microseconds", shorten(strings.Join(fields, " ")))
		return
	}
	l := &r.t.Limits
	if cpus := float64(quota) / float64(period); l.QuotaCPUs == 0 || cpus < l.QuotaCPUs {
		l.QuotaCPUs = cpus
	}
}

func (r *reader) memoryMax(name string) {
	text := r.optional(name)
	if text == "" || text == "max" {
		return
	}
	bytes, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		r.failf(name, "%q is no count of bytes", shorten(text))
		return
	}
	l := &r.t.Limits
	if bytes < noLimitBytes && (l.MemoryMaxBytes == 0 || bytes < l.MemoryMaxBytes) {
		l.MemoryMaxBytes = bytes
	}
}
