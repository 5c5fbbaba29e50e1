package blockserver

import (
	"encoding/binary"
	"fmt"
)

// The names and numbers are those of the NBD protocol document.
const (
	magicInit     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicReply    = 0x3e889045565a9    // of an option
	magicRequest  = 0x25609513
	magicResponse = 0x67446698
)

// Flags of the handshake, alike on both sides.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Options that a client sends in the handshake.
const (
	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7
)

// Replies to an option.
const (
	repAck        = 1
	repServer     = 2
	repInfo       = 3
	repErrUnsup   = 1<<31 + 1
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
)

// Kinds of information about an export.
const (
	infoExport    = 0
	infoName      = 1
	infoBlockSize = 3
)

// Transmission flags: what the server can do.
const (
	hasFlags        = 1 << 0
	sendFlush       = 1 << 2
	sendFUA         = 1 << 3
	sendTrim        = 1 << 5
	sendWriteZeroes = 1 << 6
	canMultiConn    = 1 << 8

	transmissionFlags = hasFlags | sendFlush | sendFUA | sendTrim | sendWriteZeroes | canMultiConn
)

// Commands.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
)

// Flags of a command.
const (
	cmdFlagFUA    = 1 << 0
	cmdFlagNoHole = 1 << 1
)

// Errors of a response.
const (
	errnoNone  = 0
	errnoIO    = 5
	errnoInval = 22
	errnoNoSpc = 28
)

const (
	// maxPayload is the most data of one request. Clients that have not asked
	// may take 32 MiB for granted.
	maxPayload = 32 << 20
	// maxOption bounds the data of an option: a name of 4096 bytes, the longest
	// that the protocol has, and all kinds of information.
	maxOption = 8 << 10
	// maxOptions bounds the options of a handshake, which takes a handful.
	maxOptions = 64
	// requestBytes and responseBytes are the sizes of the headers.
	requestBytes  = 28
	responseBytes = 16
)

// ProtocolError is what a client did against the protocol so that the connection
// had to end.
type ProtocolError struct{ Detail string }

func (e *ProtocolError) Error() string { return "NBD protocol: " + e.Detail }

func protocolError(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// request is the header of a command.
type request struct {
	flags, command uint16
	cookie, offset uint64
	length         uint32
}

// parseRequest reads a header. It fails when client and server are out of step,
// and when a write is too long to be read and forgotten: then the connection
// cannot go on.
func parseRequest(b *[requestBytes]byte) (request, error) {
	if magic := binary.BigEndian.Uint32(b[0:]); magic != magicRequest {
		return request{}, protocolError("a request begins with %#x, want %#x", magic, magicRequest)
	}
	r := request{
		flags:   binary.BigEndian.Uint16(b[4:]),
		command: binary.BigEndian.Uint16(b[6:]),
		cookie:  binary.BigEndian.Uint64(b[8:]),
		offset:  binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}
	if r.command == cmdWrite && r.length > maxPayload {
		return r, protocolError("a write has %d bytes, more than %d", r.length, maxPayload)
	}
	return r, nil
}

// check returns the error that a response to the request must have, whatever the
// disk holds.
func (r request) check(size int64) uint32 {
	allowed := uint16(cmdFlagFUA) // The protocol lets it stand on any command.
	if r.command == cmdWriteZeroes {
		allowed |= cmdFlagNoHole
	}
	if r.flags&^allowed != 0 {
		return errnoInval
	}
	outside := r.offset > uint64(size) || uint64(r.length) > uint64(size)-r.offset
	switch r.command {
	case cmdRead:
		if outside || r.length > maxPayload {
			return errnoInval
		}
	case cmdWrite, cmdWriteZeroes:
		if outside {
			return errnoNoSpc
		}
	case cmdTrim:
		if outside {
			return errnoInval
		}
	case cmdFlush:
		if r.offset != 0 || r.length != 0 {
			return errnoInval
		}
	default:
		return errnoInval
	}
	return errnoNone
}

// putResponse writes the header of a response.
func putResponse(b []byte, errno uint32, cookie uint64) {
	binary.BigEndian.PutUint32(b[0:], magicResponse)
	binary.BigEndian.PutUint32(b[4:], errno)
	binary.BigEndian.PutUint64(b[8:], cookie)
}
