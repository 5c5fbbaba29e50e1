package blockserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
)

func TestExportName(t *testing.T) {
	s := newServer(t, Options{})
	for _, tt := range []struct {
		flags uint32
		zeros int
	}{{flagFixedNewstyle, 124}, {flagFixedNewstyle | flagNoZeroes, 0}} {
		for _, name := range []string{"disk", ""} {
			c := connect(t, s)
			c.flags(tt.flags)
			c.option(optExportName, []byte(name))
			want := binary.BigEndian.AppendUint64(nil, 1<<20)
			want = binary.BigEndian.AppendUint16(want, transmissionFlags)
			want = append(want, make([]byte, tt.zeros)...)
			if got := c.read(len(want)); !bytes.Equal(got, want) {
				t.Errorf("flags %d, name %q: %x, want %x", tt.flags, name, got, want)
			}
			c.fill(0, 100, 7, 0)
			c.write(requestBytesOf(request{command: cmdDisc}))
			c.hungUp()
		}
	}
	c := connect(t, s)
	c.flags(flagFixedNewstyle)
	c.option(optExportName, []byte("other"))
	c.hungUp()
}

func TestOptionsOfTheHandshake(t *testing.T) {
	c := connect(t, newServer(t, Options{}))
	c.flags(flagFixedNewstyle)
	expect := func(option, kind uint32, data []byte) {
		t.Helper()
		gotKind, gotData := c.reply(option)
		if gotKind != kind || data != nil && !bytes.Equal(gotData, data) {
			t.Errorf("option %d: reply %#x %x, want %#x %x", option, gotKind, gotData, kind, data)
		}
	}
	for _, unknown := range []uint32{0, 5, 8, 9, 10, 11, 1 << 31} {
		c.option(unknown, []byte("some data"))
		expect(unknown, repErrUnsup, nil)
	}
	c.option(optList, nil)
	expect(optList, repServer, []byte("\x00\x00\x00\x04disk"))
	expect(optList, repAck, []byte{})
	c.option(optList, []byte{1})
	expect(optList, repErrInvalid, nil)
	for _, bad := range [][]byte{nil, {0, 0, 0, 0}, {0, 0, 0, 9, 'd', 0, 0}, {0xff, 0xff, 0xff, 0xff, 0, 0}, append(infoData("disk"), 0), infoData("disk", 1, 2)[:12]} {
		c.option(optInfo, bad)
		expect(optInfo, repErrInvalid, nil)
	}
	c.option(optGo, infoData("other"))
	expect(optGo, repErrUnknown, nil)
	export := append(make([]byte, 2), 0, 0, 0, 0, 0, 0x10, 0, 0)
	export = binary.BigEndian.AppendUint16(export, transmissionFlags)
	c.option(optInfo, infoData("disk", infoBlockSize, infoName, infoName, 77))
	expect(optInfo, repInfo, export)
	expect(optInfo, repInfo, []byte{0, infoBlockSize, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0})
	expect(optInfo, repInfo, []byte("\x00\x01disk"))
	expect(optInfo, repAck, []byte{})
	c.option(optGo, infoData(""))
	expect(optGo, repInfo, export)
	expect(optGo, repAck, []byte{})
	c.flush()
}

func TestHandshakesThatEnd(t *testing.T) {
	s := newServer(t, Options{})
	for name, bytes := range map[string][]byte{
		"no fixed newstyle": {0, 0, 0, 0},
		"unknown flags":     {0, 0, 0, 5},
		"bad magic":         append([]byte{0, 0, 0, 1}, make([]byte, 16)...),
		"long option":       append([]byte{0, 0, 0, 1}, optionBytes(optGo, make([]byte, maxOption+1))[:16]...),
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s)
			c.write(bytes)
			c.hungUp()
		})
	}
	c := connect(t, s)
	c.flags(flagFixedNewstyle)
	c.option(optAbort, nil)
	if kind, _ := c.reply(optAbort); kind != repAck {
		t.Errorf("ABORT was answered with %#x", kind)
	}
	c.hungUp()
	c = connect(t, s)
	c.flags(flagFixedNewstyle)
	for range maxOptions {
		c.option(99, nil)
		c.reply(99)
	}
	c.hungUp()
}

func TestErrorsOfCommands(t *testing.T) {
	const size = 1 << 20
	c := open(t, newServer(t, Options{}))
	tests := []struct {
		name  string
		r     request
		errno uint32
	}{
		{"read to the end", request{command: cmdRead, offset: size - 512, length: 512}, errnoNone},
		{"read nothing at the end", request{command: cmdRead, offset: size}, errnoNone},
		{"read past the end", request{command: cmdRead, offset: size - 512, length: 513}, errnoInval},
		{"read far away", request{command: cmdRead, offset: 1<<64 - 1, length: 1}, errnoInval},
		{"read with overflow", request{command: cmdRead, offset: 1<<64 - 4, length: 8}, errnoInval},
		{"read too much", request{command: cmdRead, length: 1<<32 - 1}, errnoInval},
		{"write past the end", request{command: cmdWrite, offset: size - 1, length: 2}, errnoNoSpc},
		{"zero past the end", request{command: cmdWriteZeroes, offset: size - 1, length: 2}, errnoNoSpc},
		{"trim past the end", request{command: cmdTrim, offset: size - 1, length: 2}, errnoInval},
		{"trim all", request{command: cmdTrim, length: size}, errnoNone},
		{"flush a range", request{command: cmdFlush, length: 1}, errnoInval},
		{"no such command", request{command: 5}, errnoInval},
		{"block status", request{command: 7, length: 512}, errnoInval},
		{"unknown flag", request{command: cmdRead, flags: 1 << 2, length: 1}, errnoInval},
		{"no hole on a write", request{command: cmdWrite, flags: cmdFlagNoHole, length: 1}, errnoInval},
		{"fast zero", request{command: cmdWriteZeroes, flags: 1 << 4, length: 1}, errnoInval},
		{"no hole on zeroes", request{command: cmdWriteZeroes, flags: cmdFlagNoHole, length: 1}, errnoNone},
		{"fua on a read", request{command: cmdRead, flags: cmdFlagFUA, length: 1}, errnoNone},
	}
	for _, tt := range tests {
		var payload []byte
		if tt.r.command == cmdWrite {
			payload = make([]byte, tt.r.length)
		}
		errno, _, err := c.try(tt.r, payload)
		if err != nil || errno != tt.errno {
			t.Errorf("%s: error %d, %v, want %d", tt.name, errno, err, tt.errno)
		}
		c.flush() // The connection is still in step.
	}
	c.write(requestBytesOf(request{command: cmdWrite, length: maxPayload + 1}))
	c.hungUp()
}

func TestLongestRequests(t *testing.T) {
	c := open(t, newServer(t, Options{SizeBytes: maxPayload}))
	c.fill(0, maxPayload, 9, 0)
	if got := c.do(cmdRead, 0, 0, maxPayload, nil); bytes.Count(got, []byte{9}) != maxPayload {
		t.Error("the longest write does not read back")
	}
}

// stream is a connection whose client has said all it will say.
type stream struct {
	*bytes.Reader
	io.Writer
}

func (s stream) Write(b []byte) (int, error) { return s.Writer.Write(b) }

// limited fails when the server answers more than the client can have caused.
type limited struct{ left int }

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, errors.New("too much was answered")
	}
	return len(b), nil
}

// A request that comes after its disk lost power gets no answer: nobody may take
// it for done, or for failed.
func TestNoAnswerWithoutPower(t *testing.T) {
	d, err := openDisk(filepath.Join(t.TempDir(), "image"), Options{SizeBytes: 4096}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.file.Close() }()
	s := &Server{disk: d, options: Options{}.withDefaults()}
	if _, err := d.powerCut(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []request{{command: cmdRead, length: 1}, {command: cmdWrite}, {command: cmdFlush}, {command: cmdTrim, length: 512}, {command: cmdWriteZeroes, length: 512}} {
		var answer bytes.Buffer
		if err := s.transmit(stream{bytes.NewReader(requestBytesOf(r)), &answer}, 0); !errors.Is(err, errPowerLost) || answer.Len() != 0 {
			t.Errorf("command %d: %v and an answer of %d bytes", r.command, err, answer.Len())
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	flags := []byte{0, 0, 0, 3}
	f.Add(slices.Concat(flags, optionBytes(optGo, infoData("disk", infoBlockSize, infoName))))
	f.Add(slices.Concat(flags, optionBytes(optExportName, []byte("disk"))))
	f.Add(slices.Concat(flags, optionBytes(optList, nil), optionBytes(optInfo, infoData("x")), optionBytes(optAbort, nil)))
	f.Add(slices.Concat(flags, optionBytes(optGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0})))
	e := export{"disk", 1 << 20, preferredBytes}
	f.Fuzz(func(t *testing.T, data []byte) {
		out := &limited{18 + 200*(1+len(data)/16)}
		err := e.negotiate(stream{bytes.NewReader(data), out})
		var protocol *ProtocolError
		if err != nil && !errors.As(err, &protocol) && !errors.Is(err, errGone) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%T: %v", err, err)
		}
	})
}

func FuzzTransmit(f *testing.F) {
	f.Add(slices.Concat(requestBytesOf(request{command: cmdWrite, offset: 100, length: 3}), []byte("abc"), requestBytesOf(request{command: cmdRead, length: 600})))
	f.Add(slices.Concat(requestBytesOf(request{command: cmdTrim, length: 65536}), requestBytesOf(request{command: cmdWriteZeroes, flags: 3, offset: 5, length: 2000})))
	f.Add(slices.Concat(requestBytesOf(request{command: cmdWrite, length: maxPayload}), []byte("short")))
	f.Add(slices.Concat(requestBytesOf(request{command: cmdFlush}), requestBytesOf(request{command: cmdDisc})))
	d, err := openDisk(filepath.Join(f.TempDir(), "image"), Options{SizeBytes: 64 << 10, CacheBytes: 32 << 10}.withDefaults())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = d.file.Close() })
	s := &Server{disk: d, options: Options{}.withDefaults()}
	f.Fuzz(func(t *testing.T, data []byte) {
		// No answer is longer than the disk and its header.
		out := &limited{(1 + len(data)/requestBytes) * (responseBytes + 64<<10)}
		err := s.transmit(stream{bytes.NewReader(data), out}, 0)
		var protocol *ProtocolError
		if err != nil && !errors.As(err, &protocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%T: %v", err, err)
		}
		if used := d.cache.Bytes(); used > 32<<10 {
			t.Fatalf("the cache has %d bytes", used)
		}
		if info, err := d.file.Stat(); err != nil || info.Size() != 64<<10 {
			t.Fatalf("the image has %d bytes, %v", info.Size(), err)
		}
	})
}
