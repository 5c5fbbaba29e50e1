package guest

import (
	"fmt"
	"strconv"
	"strings"
)

// The serial ports of a guest: the kernel's console, the line with the exit
// code, and what the program prints.
const (
	controlPort = "/dev/ttyS1"
	outputPort  = "/dev/ttyS2"
)

// JobFile is where the root file system holds the [Job], as JSON.
const JobFile = "coreplica.job"

// EnvName is set in every program of a guest, to "tcg" or "kvm". Under tcg no
// measured time means anything.
const EnvName = "COREPLICA_GUEST"

// Job is what the first process of a guest does.
type Job struct {
	// Nonce is in the line with the exit code.
	Nonce string `json:"nonce"`
	// Hostname of the guest.
	Hostname string `json:"hostname"`
	// Modules are loaded in this order.
	Modules []Module `json:"modules"`
	// Sysctl values are written below /proc/sys, by dotted name.
	Sysctl map[string]string `json:"sysctl,omitempty"`
	// Hosts are lines of /etc/hosts.
	Hosts []string `json:"hosts,omitempty"`
	// Addresses are set on network cards, by the cards' MAC addresses.
	Addresses map[string]string `json:"addresses,omitempty"`
	// Args is the program with its arguments; Env is added to its
	// environment, and Dir is where it starts. Without a program the guest
	// serves its agent until it is told to stop.
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	// Agent serves commands on a virtio port; see the agent's package.
	Agent bool `json:"agent,omitempty"`
}

// Module is a kernel module in the root file system.
type Module struct {
	File   string `json:"file"`
	Params string `json:"params,omitempty"`
}

// exitWord begins the line with the exit code.
const exitWord = "coreplica-exit"

// exitLine is what the guest prints last.
func exitLine(nonce string, code int) string {
	return fmt.Sprintf("%s %s %d\n", exitWord, nonce, code)
}

// ParseExit looks for the line with the exit code among what came from the
// guest's control port. A line with another number is none.
func ParseExit(text, nonce string) (code int, ok bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != exitWord || fields[1] != nonce || nonce == "" {
			continue
		}
		if n, err := strconv.Atoi(fields[2]); err == nil && n >= 0 && n <= 255 {
			return n, true
		}
	}
	return 0, false
}
