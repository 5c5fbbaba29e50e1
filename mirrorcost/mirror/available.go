package mirror

import "os"

// Availability says whether a part of the kernel that mirrors are made of is
// here.
type Availability struct {
	Name      string
	Available bool
	// Missing and Fix are empty where it is available.
	Missing string
	Fix     string
}

// Available looks for what mirrors and substrates are made of: btrfs, ext4,
// loop and zram, which [Bring] uses, and md, dm and drbd, which it may meet as
// given devices.
func Available() []Availability {
	var all []Availability
	for _, filesystem := range []string{"btrfs", "ext4"} {
		a := Availability{Name: filesystem, Available: true}
		tool := "mkfs." + filesystem
		if filesystemMissing(filesystem) != "" {
			a = Availability{Name: filesystem, Missing: "not in this kernel", Fix: "boot a kernel with the file system " + filesystem}
		} else if _, err := lookPath(tool); err != nil {
			a = Availability{Name: filesystem, Missing: "there is no " + tool, Fix: "apt-get install " + packages[tool]}
		}
		all = append(all, a)
	}
	for _, driver := range []struct{ name, sign, module, config string }{
		{"loop", "/dev/loop-control", "loop", "CONFIG_BLK_DEV_LOOP"},
		{"zram", zramAdd, "zram", "CONFIG_ZRAM"},
		{"md", "/proc/mdstat", "md-mod", "CONFIG_BLK_DEV_MD"},
		{"dm", "/dev/mapper/control", "dm-mod", "CONFIG_BLK_DEV_DM"},
		{"drbd", "/proc/drbd", "drbd", "CONFIG_BLK_DEV_DRBD"},
	} {
		a := Availability{Name: driver.name, Available: true}
		if _, err := os.Stat(driver.sign); err != nil {
			a.Available, a.Missing, a.Fix = false, "not in this kernel", "boot a kernel with "+driver.config
			if moduleReady(driver.module) {
				a.Missing, a.Fix = "its module is not loaded", "modprobe "+driver.module
			}
		}
		all = append(all, a)
	}
	return all
}
