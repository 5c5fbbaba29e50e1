package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main does the work of a guest's first process and never returns there. In any
// other process it returns at once. It belongs first into main and TestMain of
// the programs that start guests.
func Main() {
	if os.Getpid() != 1 {
		return
	}
	text, err := os.ReadFile("/" + JobFile)
	if err != nil {
		return // The first process of a container, or a machine's own init.
	}
	code := 255
	if err := os.Remove("/" + JobFile); err != nil {
		fmt.Fprintln(os.Stderr, "coreplica guest:", err)
	}
	var job Job
	if err := json.Unmarshal(text, &job); err != nil {
		fmt.Fprintln(os.Stderr, "coreplica guest:", err)
	} else if code, err = job.run(); err != nil {
		fmt.Fprintln(os.Stderr, "coreplica guest:", err)
	}
	finish(job.Nonce, code)
}

// finish tells the exit code and switches the guest off.
func finish(nonce string, code int) {
	unix.Sync()
	if port, err := openSerial(controlPort); err == nil {
		_, err = io.WriteString(port, exitLine(nonce, code))
		// Draining waits until the last byte has left.
		if err := errors.Join(err, unix.IoctlSetInt(int(port.Fd()), unix.TCSBRK, 1), port.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "coreplica guest: tell the exit code:", err)
		}
	} else {
		fmt.Fprintln(os.Stderr, "coreplica guest:", err)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "coreplica guest: power off:", err)
	}
	os.Exit(code) // The kernel panics when its first process ends, and so the guest ends.
}

// run prepares the guest and runs the program. An error of the guest's own
// counts as exit code 255.
func (j *Job) run() (code int, err error) {
	if err := mountAll(); err != nil {
		return 255, err
	}
	out, err := openSerial(outputPort)
	if err != nil {
		return 255, err
	}
	for _, m := range j.Modules {
		if err := load(m); err != nil {
			return 255, err
		}
	}
	if err := j.configure(); err != nil {
		return 255, err
	}
	if len(j.Args) == 0 {
		return 255, errors.New("the job names no program")
	}
	return j.exec(out)
}

// configure sets what belongs to the machine, not to the program.
func (j *Job) configure() error {
	if err := unix.Sethostname([]byte(j.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	for name, value := range j.Sysctl {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n" + strings.Join(append(j.Hosts, ""), "\n")
	files := map[string]string{"/etc/hosts": hosts, "/etc/hostname": j.Hostname + "\n", "/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\n"}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := up("lo", nil); err != nil {
		return err
	}
	for mac, address := range j.Addresses {
		if err := addressCard(mac, address); err != nil {
			return err
		}
	}
	return nil
}

// exec runs the program and takes care of processes that lost their parents, as
// process number 1 must.
func (j *Job) exec(out *os.File) (code int, err error) {
	if err := os.Setenv("PATH", "/bin:/usr/sbin:/sbin:/usr/bin"); err != nil {
		return 255, err
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Env = append([]string{"PATH=/bin:/usr/sbin:/sbin:/usr/bin", "HOME=/root", "TMPDIR=/tmp", "TERM=dumb"}, j.Env...)
	cmd.Dir = j.Dir
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return 255, fmt.Errorf("start the program: %w", err)
	}
	for {
		<-children
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
			if pid != cmd.Process.Pid {
				continue
			}
			if err := unix.IoctlSetInt(int(out.Fd()), unix.TCSBRK, 1); err != nil {
				return 255, fmt.Errorf("drain the output: %w", err)
			}
			if status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return status.ExitStatus(), nil
		}
	}
}

// mountAll mounts what programs expect of a machine that systemd has started.
func mountAll() error {
	for _, m := range []struct {
		kind, target, options string
		optional              bool
	}{
		{"proc", "/proc", "", false},
		{"sysfs", "/sys", "", false},
		{"devtmpfs", "/dev", "", false},
		{"devpts", "/dev/pts", "ptmxmode=0666", false},
		{"tmpfs", "/dev/shm", "", false},
		{"tmpfs", "/run", "mode=755", false},
		{"tmpfs", "/tmp", "", false},
		{"cgroup2", "/sys/fs/cgroup", "", true},
		{"tracefs", "/sys/kernel/tracing", "", true},
		{"bpf", "/sys/fs/bpf", "", true},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !m.optional {
			return fmt.Errorf("mount %s: %w", m.kind, err)
		}
		if err := unix.Mount(m.kind, m.target, m.kind, 0, m.options); err != nil && !m.optional {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// load loads a module. The kernel unpacks what is packed.
func load(m Module) (err error) {
	f, err := os.Open("/" + m.File)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	flags := 0
	if !strings.HasSuffix(m.File, ".ko") {
		const moduleInitCompressedFile = 4 // MODULE_INIT_COMPRESSED_FILE of linux/module.h
		flags = moduleInitCompressedFile
	}
	if err := unix.FinitModule(int(f.Fd()), m.Params, flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(m.File), err)
	}
	return nil
}

// openSerial opens a serial port for bytes as they are.
func openSerial(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s: %w", name, err), f.Close())
	}
	return f, nil
}

// addressCard gives an address, as in "10.0.0.1/24", to the card with a MAC.
func addressCard(mac, address string) error {
	cards, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list network cards: %w", err)
	}
	for _, card := range cards {
		if strings.EqualFold(card.HardwareAddr.String(), mac) {
			ip, network, err := net.ParseCIDR(address)
			if err != nil {
				return fmt.Errorf("address %s: %w", card.Name, err)
			}
			return up(card.Name, &net.IPNet{IP: ip, Mask: network.Mask})
		}
	}
	return fmt.Errorf("no network card has the address %s", mac)
}
