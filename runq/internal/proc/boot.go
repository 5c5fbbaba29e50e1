package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMessageBytes and maxMessageFiles bound one Message.
	maxMessageBytes = 32 << 10
	maxMessageFiles = 64
	// bootPatience is how long a message may wait for a worker that does not
	// read. Its socket holds many messages, so such a worker stands still.
	bootPatience = time.Second
)

// Message goes over a Boot socket with open files.
type Message struct {
	Kind string `json:"kind"`
	// Peer and Life say whom the files are about.
	Peer int    `json:"peer"`
	Life uint64 `json:"life"`
	Data []byte `json:"data,omitempty"`
	// Files stay the sender's; what is received is the receiver's to close.
	Files []*os.File `json:"-"`
}

// Boot is the socket between opener and worker that carries files.
type Boot struct{ conn *net.UnixConn }

// newBoot takes the file over.
func newBoot(file *os.File) (*Boot, error) {
	conn, err := net.FileConn(file)
	err = errors.Join(err, file.Close())
	if err != nil {
		return nil, fmt.Errorf("use boot socket: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("use boot socket: it is no unix socket"), conn.Close())
	}
	return &Boot{unixConn}, nil
}

// Send sends a message. It waits at most a second for a worker that stands still.
func (b *Boot) Send(m Message) error {
	data, err := json.Marshal(m)
	if err == nil && (len(data) > maxMessageBytes || len(m.Files) > maxMessageFiles) {
		err = fmt.Errorf("%d bytes and %d files are more than %d and %d", len(data), len(m.Files), maxMessageBytes, maxMessageFiles)
	}
	if err != nil {
		return fmt.Errorf("send %s to worker: %w", m.Kind, err)
	}
	var fds []int
	for _, file := range m.Files {
		var copied *os.File
		if copied, err = dup(file); err != nil {
			break
		}
		defer copied.Close()
		err = control(copied, func(fd int) error { fds = append(fds, fd); return nil })
	}
	if err == nil {
		err = b.conn.SetWriteDeadline(time.Now().Add(bootPatience))
	}
	if err == nil {
		_, _, err = b.conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	}
	if err != nil {
		return fmt.Errorf("send %s to worker: %w", m.Kind, err)
	}
	return nil
}

// Receive waits for the next message, until Close or the other side's death.
func (b *Boot) Receive() (Message, error) {
	data, control := make([]byte, maxMessageBytes), make([]byte, unix.CmsgSpace(4*maxMessageFiles))
	n, controlBytes, flags, _, err := b.conn.ReadMsgUnix(data, control)
	if err != nil {
		return Message{}, fmt.Errorf("receive message: %w", err)
	}
	var m Message
	files, err := openRights(control[:controlBytes])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("it was cut short: raise the limit of open files")
	}
	if err == nil {
		err = json.Unmarshal(data[:n], &m)
	}
	if err != nil {
		closeAll(files)
		return Message{}, fmt.Errorf("receive message: %w", err)
	}
	m.Files = files
	return m, nil
}

func openRights(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			file, err := newFile(fd, "received")
			if err != nil {
				return files, err
			}
			files = append(files, file)
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // Nothing was written.
	}
}

// Close closes the socket and ends Receive.
func (b *Boot) Close() error { return b.conn.Close() }
