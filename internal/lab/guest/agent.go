package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreplica/coreplica/internal/lab/agent"
)

// agentEnv makes a process of a guest its agent. The first process cannot be:
// it reaps all children, and an agent must wait for its own.
const agentEnv = "COREPLICA_GUEST_AGENT"

// serveAgent serves commands until the guest is told to shut down.
func serveAgent() (code int) {
	err := os.Unsetenv(agentEnv) // What it runs is no agent.
	if err == nil {
		var port *os.File
		if port, err = openPort(); err == nil {
			err = errors.Join(agent.Serve(port), port.Close())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coreplica guest: agent:", err)
		return 255
	}
	return 0
}

// portPatience is how long the driver may take to show the port.
const portPatience = 30 * time.Second

// openPort finds the virtio port by its name.
func openPort() (*os.File, error) {
	for deadline := time.Now().Add(portPatience); ; time.Sleep(20 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err // The pattern is constant and good.
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil || strings.TrimSpace(string(text)) != agent.PortName {
				continue
			}
			device := filepath.Join("/dev", filepath.Base(filepath.Dir(name)))
			port, err := os.OpenFile(device, os.O_RDWR, 0)
			if errors.Is(err, fs.ErrNotExist) {
				break // Its node is still to come.
			}
			return port, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no virtio port is named %s", agent.PortName)
		}
	}
}
