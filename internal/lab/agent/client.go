package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/crypto/ssh"
)

// muxConfig is the same on both sides. A translated guest may be slow to answer,
// so only the stream's end says that the other side is gone.
func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = time.Minute
	c.StreamOpenTimeout = 5 * time.Minute
	c.LogOutput = io.Discard
	return c
}

// Host is the host's end of a guest's port. It may be used by several goroutines.
type Host struct{ session *yamux.Session }

// NewHost begins to speak on the port's connection.
func NewHost(conn io.ReadWriteCloser) (*Host, error) {
	session, err := yamux.Client(conn, muxConfig())
	if err != nil {
		return nil, fmt.Errorf("reach the guest: %w", err)
	}
	return &Host{session: session}, nil
}

// Open opens a stream to the guest, for [Dial].
func (h *Host) Open() (net.Conn, error) {
	stream, err := h.session.Open()
	if err != nil {
		return nil, fmt.Errorf("reach the guest: %w", err)
	}
	return stream, nil
}

// Close ends the connection.
func (h *Host) Close() error { return h.session.Close() }

// Client runs commands in one guest. It may be used by several goroutines.
type Client struct{ ssh *ssh.Client }

// Dial speaks to the guest's agent on a stream. It owns the stream.
func Dial(ctx context.Context, stream net.Conn) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(stream, "", &ssh.ClientConfig{
		// The stream leads to the guest and nowhere else.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reach the guest: %w", orCause(ctx, err)), stream.Close())
	}
	return &Client{ssh: ssh.NewClient(conn, channels, requests)}, nil
}

func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Close ends the connection.
func (c *Client) Close() error { return c.ssh.Close() }

// Exec runs a command and returns its exit code, 128 and more for a signal. When
// the context ends the command is killed. Any of the streams may be nil.
func (c *Client) Exec(ctx context.Context, argv []string, in io.Reader, out, errOut io.Writer) (code int, err error) {
	session, err := c.ssh.NewSession()
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", argv[0], err)
	}
	defer session.Close() // It may be closed already.
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	command, err := json.Marshal(argv)
	if err != nil {
		return 0, err
	}
	session.Stdout, session.Stderr = out, errOut
	if in != nil {
		pipe, err := session.StdinPipe()
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", argv[0], err)
		}
		// The command may end before its input, a terminal say, does.
		go func() {
			_, _ = io.Copy(pipe, in)
			_ = pipe.Close()
		}()
	}
	err = session.Run(string(command))
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	}
	return 0, fmt.Errorf("run %s: %w: the guest went away", argv[0], err)
}

// Push copies a file into the guest, with its permissions.
func (c *Client) Push(ctx context.Context, host, guest string) (err error) {
	f, err := os.Open(host)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("push %s: not a regular file", host)
	}
	complaint := &limited{}
	code, err := c.Exec(ctx, []string{receive, guest, fmt.Sprintf("%o", info.Mode().Perm())}, f, nil, complaint)
	if err != nil {
		return fmt.Errorf("push %s: %w", host, err)
	}
	if code != 0 {
		return fmt.Errorf("push %s: %s", host, complaint.text)
	}
	return nil
}

// ShutDown tells the guest to end in good order.
func (c *Client) ShutDown(ctx context.Context) error {
	_, err := c.Exec(ctx, []string{shutDown}, nil, nil, nil)
	return err
}

// limited keeps the beginning of a complaint.
type limited struct{ text []byte }

func (l *limited) Write(p []byte) (int, error) {
	const most = 1024
	l.text = append(l.text, p[:min(len(p), most-len(l.text))]...)
	return len(p), nil
}

// netConn makes a net.Conn of a stream, which SSH wants for the addresses.
type netConn struct{ io.ReadWriteCloser }

func (netConn) LocalAddr() net.Addr              { return addr{} }
func (netConn) RemoteAddr() net.Addr             { return addr{} }
func (netConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (netConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (netConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

type addr struct{}

func (addr) Network() string { return "virtio" }
func (addr) String() string  { return PortName }
