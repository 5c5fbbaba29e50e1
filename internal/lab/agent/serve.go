package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/hashicorp/yamux"
	"golang.org/x/crypto/ssh"
)

// PortName is the name of the guest's virtio port.
const PortName = "coreplica.agent"

// What a client asks for instead of a program.
const (
	receive  = "@receive" // a path and a mode in octal; the file is standard input
	shutDown = "@shutdown"
)

// errShutDown ends [Serve].
var errShutDown = errors.New("told to shut down")

// Serve runs what clients on the connection ask for, until the connection ends or
// a client tells the guest to shut down, which is no error.
func Serve(conn io.ReadWriteCloser) error {
	session, err := yamux.Server(conn, muxConfig())
	if err != nil {
		return fmt.Errorf("serve commands: %w", err)
	}
	defer session.Close() // The connection is the guest's end.
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("serve commands: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return fmt.Errorf("serve commands: %w", err)
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	stop := make(chan struct{})
	var once sync.Once
	go func() {
		<-stop
		_ = session.Close() // Accept returns then.
	}()
	for {
		stream, err := session.Accept()
		select {
		case <-stop:
			return nil
		default:
		}
		if err != nil {
			once.Do(func() { close(stop) })
			return fmt.Errorf("serve commands: %w", err)
		}
		go func() {
			if errors.Is(serveStream(stream, config), errShutDown) {
				once.Do(func() { close(stop) })
			}
		}()
	}
}

// serveStream serves one SSH connection.
func serveStream(stream io.ReadWriteCloser, config *ssh.ServerConfig) error {
	defer stream.Close() // The other side sees the end.
	conn, channels, requests, err := ssh.NewServerConn(netConn{stream}, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	var wg sync.WaitGroup
	var down error
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "only sessions are served")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			continue // The client is gone.
		}
		wg.Go(func() {
			if err := serveSession(channel, requests); errors.Is(err, errShutDown) {
				down = err
				_ = conn.Close() // Ends the loop.
			}
		})
	}
	wg.Wait()
	return down
}

// serveSession runs one command.
func serveSession(channel ssh.Channel, requests <-chan *ssh.Request) error {
	defer channel.Close()
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		var payload struct{ Command string }
		var argv []string
		if err := ssh.Unmarshal(r.Payload, &payload); err != nil || json.Unmarshal([]byte(payload.Command), &argv) != nil || len(argv) == 0 {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		if argv[0] == shutDown {
			exit(channel, 0)
			return errShutDown
		}
		exit(channel, run(channel, requests, argv))
		return nil
	}
	return nil
}

// exit tells the exit code.
func exit(channel ssh.Channel, code int) {
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(code)}))
}

// The shell's exit codes for commands that do not start.
const (
	codeNotFound = 127
	codeNotRun   = 126
)

// run runs a command with the channel as its standard input and output.
func run(channel ssh.Channel, requests <-chan *ssh.Request, argv []string) int {
	if argv[0] == receive {
		if err := receiveFile(channel, argv[1:]); err != nil {
			fmt.Fprintln(channel.Stderr(), err)
			return 1
		}
		return 0
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The command may end before its input does, so nobody waits for the copy.
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(channel.Stderr(), err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return codeNotFound
		}
		return codeNotRun
	}
	go func() {
		_, _ = io.Copy(in, channel) // A command that reads no more ends it.
		_ = in.Close()
	}()
	go func() {
		for r := range requests {
			if r.Type == "signal" {
				forward(cmd.Process.Pid, r.Payload)
			}
			if r.WantReply {
				_ = r.Reply(false, nil)
			}
		}
		// The client is gone, and with it whoever waits for the command.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}()
	err = cmd.Wait()
	var failed *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &failed):
		fmt.Fprintln(channel.Stderr(), err)
		return codeNotRun
	}
	if status, ok := failed.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return failed.ExitCode()
}

var signals = map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT}

func forward(pid int, payload []byte) {
	var name struct{ Name string }
	if ssh.Unmarshal(payload, &name) == nil {
		if signal, ok := signals[name.Name]; ok {
			_ = syscall.Kill(-pid, signal)
		}
	}
}

// receiveFile writes standard input to a file, whole or not at all.
func receiveFile(in io.Reader, args []string) (err error) {
	if len(args) != 2 || !filepath.IsAbs(args[0]) {
		return fmt.Errorf("receive %q: want an absolute path and a mode", args)
	}
	mode, err := strconv.ParseUint(args[1], 8, 12)
	if err != nil {
		return fmt.Errorf("receive: mode: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(args[0]), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(args[0]), ".coreplica-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, in)
	if err = errors.Join(err, f.Chmod(os.FileMode(mode)), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), args[0])
}
