package blockserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreplica/coreplica/internal/testkit"
)

// dirName is in the path of all that these tests make.
const dirName = "coreplica-blockserver-test"

func TestMain(m *testing.M) { testkit.Main(m, testkit.Files(os.TempDir(), dirName)) }

// newServer serves a disk of a megabyte, unless the options say otherwise.
func newServer(t *testing.T, o Options) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", dirName) // t.TempDir is too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // TestMain looks whether it went.
	if o.SizeBytes == 0 {
		o.SizeBytes = 1 << 20
	}
	s, err := New(filepath.Join(dir, "image"), filepath.Join(dir, "nbd"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.socket); err == nil {
			t.Error("the socket is still there")
		}
	})
	return s
}

// image returns what the file holds now.
func image(t *testing.T, s *Server) []byte {
	t.Helper()
	b, err := os.ReadFile(s.disk.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// client is an NBD client of few words.
type client struct {
	t      testing.TB
	conn   net.Conn
	cookie uint64
}

// connect dials and reads the hello.
func connect(t *testing.T, s *Server) *client {
	t.Helper()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // Some tests close it before.
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn}
	want := append([]byte("NBDMAGICIHAVEOPT"), 0, flagFixedNewstyle|flagNoZeroes)
	if got := c.read(18); !bytes.Equal(got, want) {
		t.Fatalf("hello %x, want %x", got, want)
	}
	return c
}

// open connects and goes into transmission.
func open(t *testing.T, s *Server) *client {
	t.Helper()
	c := connect(t, s)
	c.flags(flagFixedNewstyle | flagNoZeroes)
	c.option(optGo, infoData("disk"))
	for {
		kind, data := c.reply(optGo)
		switch kind {
		case repAck:
			return c
		case repInfo:
		default:
			t.Fatalf("GO was answered with %#x %q", kind, data)
		}
	}
}

func (c *client) flags(flags uint32) { c.write(binary.BigEndian.AppendUint32(nil, flags)) }

func (c *client) option(option uint32, data []byte) {
	c.t.Helper()
	c.write(optionBytes(option, data))
}

func optionBytes(option uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func infoData(name string, kinds ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(kinds)))
	for _, kind := range kinds {
		b = binary.BigEndian.AppendUint16(b, kind)
	}
	return b
}

// reply reads one reply to an option.
func (c *client) reply(option uint32) (kind uint32, data []byte) {
	c.t.Helper()
	header := c.read(20)
	if magic := binary.BigEndian.Uint64(header); magic != magicReply {
		c.t.Fatalf("reply magic %#x", magic)
	}
	if got := binary.BigEndian.Uint32(header[8:]); got != option {
		c.t.Fatalf("reply to option %d, want %d", got, option)
	}
	return binary.BigEndian.Uint32(header[12:]), c.read(int(binary.BigEndian.Uint32(header[16:])))
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// hungUp checks that the server says no more.
func (c *client) hungUp() {
	c.t.Helper()
	if n, err := c.conn.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		c.t.Errorf("read %d bytes, %v: want the server to hang up", n, err)
	}
}

func requestBytesOf(r request) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, r.command)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	return binary.BigEndian.AppendUint32(b, r.length)
}

// try does one command. An error is that of the connection.
func (c *client) try(r request, payload []byte) (errno uint32, data []byte, err error) {
	c.cookie++
	r.cookie = c.cookie
	if _, err := c.conn.Write(append(requestBytesOf(r), payload...)); err != nil {
		return 0, nil, err
	}
	var header [responseBytes]byte
	if _, err := io.ReadFull(c.conn, header[:]); err != nil {
		return 0, nil, err
	}
	if magic := binary.BigEndian.Uint32(header[:]); magic != magicResponse {
		c.t.Errorf("response magic %#x", magic)
	}
	if got := binary.BigEndian.Uint64(header[8:]); got != r.cookie {
		c.t.Errorf("response to request %d, want %d", got, r.cookie)
	}
	errno = binary.BigEndian.Uint32(header[4:])
	if r.command == cmdRead && errno == errnoNone {
		data = make([]byte, r.length)
		_, err = io.ReadFull(c.conn, data)
	}
	return errno, data, err
}

// do does one command that must succeed.
func (c *client) do(command, flags uint16, offset, length int, payload []byte) []byte {
	c.t.Helper()
	errno, data, err := c.try(request{flags: flags, command: command, offset: uint64(offset), length: uint32(length)}, payload)
	if err != nil || errno != errnoNone {
		c.t.Fatalf("command %d at %d+%d: error %d, %v", command, offset, length, errno, err)
	}
	return data
}

// fill writes one byte all over a range.
func (c *client) fill(offset, length int, b byte, flags uint16) {
	c.t.Helper()
	c.do(cmdWrite, flags, offset, length, bytes.Repeat([]byte{b}, length))
}

func (c *client) flush() { c.t.Helper(); c.do(cmdFlush, 0, 0, 0, nil) }
