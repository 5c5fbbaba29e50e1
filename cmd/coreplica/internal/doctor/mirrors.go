package doctor

import (
	"fmt"
	"strings"
)

// mounts looks at the two file systems that BPF works with.
func (e *examination) mounts() {
	for _, f := range []struct{ kind, at, consequence string }{
		{"tracefs", "/sys/kernel/tracing", "classic tracepoints cannot be attached; tp_btf and raw_tracepoint do not need it"},
		{"bpf", "/sys/fs/bpf", "programs and maps cannot be pinned, so --pinned has nothing to read; a plain run does not need it"},
	} {
		points := e.mounted(f.kind)
		complaint := ""
		if len(points) == 0 {
			complaint = "not mounted"
		}
		name := f.kind
		if name == "bpf" {
			name = "bpffs"
		}
		e.lack(Check{
			Name: name, Consequence: f.consequence,
			Fix: fmt.Sprintf("mount -t %s nodev %s", f.kind, f.at),
		}, complaint, "mounted on "+strings.Join(points, ", "))
	}
}

// driver is a part of the kernel that mirrors are made of.
type driver struct {
	name string
	// signs are files of which one is there when the driver is. A
	// filesystem is looked up by name instead.
	signs       []string
	filesystem  string
	module      string
	needed      bool
	consequence string
	fix         string
}

var drivers = []driver{
	{
		name: "btrfs", filesystem: "btrfs", module: "btrfs", needed: true,
		consequence: "the mirrors btrfs-raid1 and btrfs-raid1c3 and their baseline btrfs-single cannot be measured",
		fix:         "boot a kernel with CONFIG_BTRFS_FS, as Debian, Fedora and SUSE have it",
	},
	{
		name: "ext4", filesystem: "ext4", module: "ext4",
		consequence: "the baseline ext4 cannot be measured",
		fix:         "boot a kernel with CONFIG_EXT4_FS",
	},
	{
		name: "loop devices", signs: []string{"dev/loop-control"}, module: "loop", needed: true,
		consequence: "the default substrate is not there; --substrate zram or --devices may do",
		fix:         "boot a kernel with CONFIG_BLK_DEV_LOOP; in a container, give it /dev/loop-control",
	},
	{
		name: "zram devices", signs: []string{"sys/class/zram-control/hot_add"}, module: "zram",
		consequence: "the substrate zram cannot be used",
		fix:         "boot a kernel with CONFIG_ZRAM",
	},
	{
		name: "md", signs: []string{"proc/mdstat", "sys/module/md_mod"}, module: "raid1",
		consequence: "Linux software RAID cannot be compared on this machine",
		fix:         "boot a kernel with CONFIG_MD_RAID1",
	},
	{
		name: "device mapper", signs: []string{"dev/mapper/control", "sys/module/dm_mod"}, module: "dm_mirror",
		consequence: "LVM mirrors cannot be compared on this machine",
		fix:         "boot a kernel with CONFIG_DM_MIRROR",
	},
	{
		name: "drbd", signs: []string{"proc/drbd", "sys/module/drbd"}, module: "drbd",
		consequence: "DRBD cannot be compared on this machine",
		fix:         "boot a kernel with CONFIG_BLK_DEV_DRBD",
	},
	{
		name: "nbd client", signs: []string{"sys/module/nbd"}, module: "nbd",
		consequence: "network block devices cannot be used as legs on this machine",
		fix:         "boot a kernel with CONFIG_BLK_DEV_NBD",
	},
}

// mirrors looks for what the kernel can mirror with. A module that lies ready
// counts as there: mount and modprobe load it.
func (e *examination) mirrors() {
	for _, d := range drivers {
		complaint, fine := "not in this kernel", "in this kernel"
		there := d.filesystem != "" && e.filesystem(d.filesystem)
		for _, sign := range d.signs {
			there = there || e.exists(sign)
		}
		switch {
		case there:
			complaint = ""
		case e.module(d.module):
			complaint, fine = "", "not loaded; `modprobe "+d.module+"` loads it"
		}
		e.lack(Check{Name: d.name, Needed: d.needed, Consequence: d.consequence, Fix: d.fix}, complaint, fine)
	}
	disabled := e.text("proc/sys/kernel/io_uring_disabled")
	complaint := ""
	if disabled == "2" || disabled == "1" && e.UID != 0 {
		complaint = "io_uring_disabled=" + disabled
	}
	e.lack(Check{
		Name:        "io_uring",
		Consequence: "the mirror uring, where the program writes its own copies in batches, cannot be measured",
		Fix:         "sysctl kernel.io_uring_disabled=0",
	}, complaint, "not disabled")
}

// tools looks for other programs.
func (e *examination) tools() {
	for _, tool := range []struct {
		name, pkg, consequence string
		needed                 bool
	}{
		{"mkfs.btrfs", "btrfs-progs", "btrfs mirrors cannot be made", true},
		{"mkfs.ext4", "e2fsprogs", "the baseline ext4 cannot be made", false},
		{"bpftool", "bpftool", "the shipped BPF objects cannot be loaded by hand; coreplica itself does not call it", false},
		{"perf", "linux-perf", "figures cannot be compared with perf's; coreplica itself does not call it", false},
	} {
		complaint := ""
		found, err := e.LookPath(tool.name)
		if err != nil {
			complaint = "not found"
		}
		e.lack(Check{
			Name: tool.name, Needed: tool.needed, Consequence: tool.consequence,
			Fix: "apt-get install " + tool.pkg + " (other distributions name the package alike)",
		}, complaint, found)
	}
}
