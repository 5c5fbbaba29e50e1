package doctor

import (
	"testing"
	"testing/fstest"
)

func TestParseRelease(t *testing.T) {
	tests := []struct {
		release      string
		major, minor int
	}{
		{"6.1.0-18-amd64", 6, 1}, {"5.15", 5, 15}, {"6.18.44-x", 6, 18}, {"7.0-rc1", 7, 0}, {"", 0, 0}, {"x.y", 0, 0}, {"6", 6, 0}, {"6.-3", 6, 0},
	}
	for _, tt := range tests {
		if major, minor := parseRelease(tt.release); major != tt.major || minor != tt.minor {
			t.Errorf("parseRelease(%q) = %d, %d; want %d, %d", tt.release, major, minor, tt.major, tt.minor)
		}
	}
}

func TestCountList(t *testing.T) {
	tests := map[string]int{"": 0, "0": 1, "0-3,8": 5, "0-1,4-5": 4, "3-1": 0, "a": 0, "0-": 0}
	for list, want := range tests {
		if got := countList(list); got != want {
			t.Errorf("countList(%q) = %d, want %d", list, got, want)
		}
	}
}

// The configuration is found in either place, and a damaged one is as good as
// none.
func TestConfig(t *testing.T) {
	tests := []struct {
		name, from string
		files      map[string]string
	}{
		{"packed", "/proc/config.gz", map[string]string{"proc/config.gz": packed("CONFIG_A=y\n"), "boot/config-6.1": "CONFIG_B=y\n"}},
		{"in /boot", "/boot/config-6.1", map[string]string{"boot/config-6.1": "CONFIG_A=y\n# CONFIG_B is not set\n"}},
		{"damaged, then in /boot", "/boot/config-6.1", map[string]string{"proc/config.gz": "no gzip", "boot/config-6.1": "CONFIG_A=y\n"}},
		{"nowhere", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/sys/kernel/osrelease": &fstest.MapFile{Data: []byte("6.1\n")}}
			for name, text := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			e := &examination{Machine: Machine{Root: root}}
			config, from := e.config()
			if from != tt.from || from != "" && (config["CONFIG_A"] != "y" || config["CONFIG_B"] != "") {
				t.Errorf("config from %q: %v", from, config)
			}
		})
	}
}

// Doctor reads what kernels and containers write, so no text may stop it.
func FuzzExamine(f *testing.F) {
	f.Add("proc/self/mounts", "nodev /sys/kernel/tracing tracefs rw 0 0\n")
	f.Add("proc/self/status", "CapEff:\tzz\n")
	f.Add("sys/devices/system/cpu/online", "0-,,-3")
	f.Add("lib/modules/6.1.0-18-amd64/modules.dep", "raid1.ko")
	f.Fuzz(func(t *testing.T, name, text string) {
		files := goodFiles()
		if _, known := files[name]; known || name == "lib/modules/6.1.0-18-amd64/modules.dep" {
			files[name] = text
		}
		if report := Examine(machine(files), ""); len(report.Checks) < 40 {
			t.Errorf("only %d checks with %s = %q", len(report.Checks), name, text)
		}
	})
}
