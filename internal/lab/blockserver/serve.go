package blockserver

import (
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// payloadStep is how much memory a write gets before its data comes: a client
// that announces much and sends nothing costs little. After that, the buffer at
// most doubles.
const payloadStep = 1 << 20

// serve talks with one client until it leaves. A client that says good-bye is no
// error.
func (s *Server) serve(conn net.Conn, boot uint64) error {
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	if err := s.export.negotiate(conn); err != nil {
		if errors.Is(err, errGone) {
			return nil
		}
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return s.transmit(conn, boot)
}

// transmit answers requests, one after the other.
func (s *Server) transmit(rw io.ReadWriter, boot uint64) error {
	var header [requestBytes]byte
	var payload, response []byte
	for {
		if _, err := io.ReadFull(rw, header[:]); err != nil {
			return err
		}
		r, err := parseRequest(&header)
		if err != nil {
			return err
		}
		if r.command == cmdDisc {
			return nil
		}
		payload = payload[:0]
		if r.command == cmdWrite {
			if payload, err = readPayload(rw, payload, int(r.length)); err != nil {
				return err
			}
		}
		errno := r.check(s.disk.size)
		data := 0
		if errno == errnoNone {
			if r.command == cmdRead {
				data = int(r.length)
			}
			response = slices.Grow(response[:0], responseBytes+data)[:responseBytes+data]
			err := s.execute(r, boot, payload, response[responseBytes:])
			if errors.Is(err, errPowerLost) {
				return err // And no answer.
			}
			if errno = errnoOf(err); errno != errnoNone {
				data = 0
				s.options.Logger.Warn("request failed", "command", r.command, "offset", r.offset, "length", r.length, "error", err)
			}
		}
		if errno != errnoNone {
			s.stats.failed.Add(1)
		}
		response = slices.Grow(response[:0], responseBytes+data)[:responseBytes+data]
		putResponse(response, errno, r.cookie)
		if _, err := rw.Write(response); err != nil {
			return err
		}
	}
}

// readPayload appends n bytes to the buffer.
func readPayload(r io.Reader, buffer []byte, n int) ([]byte, error) {
	for n > 0 {
		had := len(buffer)
		step := min(n, max(payloadStep, had)) // As much again as has come.
		buffer = slices.Grow(buffer, step)[:had+step]
		if _, err := io.ReadFull(r, buffer[had:]); err != nil {
			return buffer, err
		}
		n -= step
	}
	return buffer, nil
}

// execute does what a checked request asks for.
func (s *Server) execute(r request, boot uint64, payload, into []byte) error {
	offset, length, fua := int64(r.offset), int64(r.length), r.flags&cmdFlagFUA != 0
	switch r.command {
	case cmdRead:
		s.stats.reads.Add(1)
		return s.disk.read(boot, offset, into)
	case cmdWrite:
		s.stats.writes.Add(1)
		return s.disk.write(boot, offset, payload, fua)
	case cmdFlush:
		s.stats.flushes.Add(1)
		return s.disk.flush(boot)
	case cmdTrim:
		s.stats.trims.Add(1)
		return s.disk.trim(boot, offset, length, fua)
	default: // cmdWriteZeroes: check lets nothing else pass.
		s.stats.zeroes.Add(1)
		return s.disk.zero(boot, offset, length, fua, r.flags&cmdFlagNoHole == 0)
	}
}

func errnoOf(err error) uint32 {
	switch {
	case err == nil:
		return errnoNone
	case errors.Is(err, unix.ENOSPC):
		return errnoNoSpc
	}
	return errnoIO
}
