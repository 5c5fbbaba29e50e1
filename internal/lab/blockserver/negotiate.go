package blockserver

import (
	"encoding/binary"
	"errors"
	"io"
)

// errGone ends a handshake that the client left in peace.
var errGone = errors.New("the client has left")

// export is what the handshake tells of the disk.
type export struct {
	name string
	size int64
	// preferred is the size of the requests that suit the disk, in bytes.
	preferred uint32
}

// negotiate does the handshake. Without an error, requests follow.
func (e export) negotiate(rw io.ReadWriter) error {
	hello := binary.BigEndian.AppendUint64(nil, magicInit)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := rw.Write(hello); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(rw, flags[:]); err != nil {
		return err
	}
	client := binary.BigEndian.Uint32(flags[:])
	if client&flagFixedNewstyle == 0 || client&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return protocolError("the client's flags are %#x: it must know the fixed newstyle handshake and nothing beyond no-zeroes", client)
	}
	for range maxOptions {
		option, data, err := readOption(rw)
		if err != nil {
			return err
		}
		done, err := e.answer(rw, option, data, client&flagNoZeroes != 0)
		if done || err != nil {
			return err
		}
	}
	return protocolError("the client sent %d options and chose no export", maxOptions)
}

func readOption(r io.Reader) (option uint32, data []byte, err error) {
	var header [16]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	if magic := binary.BigEndian.Uint64(header[0:]); magic != magicOption {
		return 0, nil, protocolError("an option begins with %#x, want %#x", magic, uint64(magicOption))
	}
	option = binary.BigEndian.Uint32(header[8:])
	n := binary.BigEndian.Uint32(header[12:])
	if n > maxOption {
		return 0, nil, protocolError("option %d has %d bytes, more than %d", option, n, maxOption)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return option, data, err
}

// answer answers one option; done says that requests follow.
func (e export) answer(w io.Writer, option uint32, data []byte, noZeroes bool) (done bool, err error) {
	switch option {
	case optExportName:
		if !e.serves(string(data)) {
			// The protocol has no reply for it but to hang up.
			return false, protocolError("there is no export %.80q, only %q", data, e.name)
		}
		b := binary.BigEndian.AppendUint64(nil, uint64(e.size))
		b = binary.BigEndian.AppendUint16(b, transmissionFlags)
		if !noZeroes {
			b = append(b, make([]byte, 124)...)
		}
		_, err = w.Write(b)
		return true, err
	case optAbort:
		if err := reply(w, option, repAck, nil); err != nil {
			return false, err
		}
		return false, errGone
	case optList:
		if len(data) > 0 {
			return false, reply(w, option, repErrInvalid, []byte("LIST has no data"))
		}
		name := append(binary.BigEndian.AppendUint32(nil, uint32(len(e.name))), e.name...)
		if err := reply(w, option, repServer, name); err != nil {
			return false, err
		}
		return false, reply(w, option, repAck, nil)
	case optInfo, optGo:
		return e.answerInfo(w, option, data)
	}
	return false, reply(w, option, repErrUnsup, []byte("this option is not supported"))
}

// serves reports whether a name means this export. The empty name is the default
// one.
func (e export) serves(name string) bool { return name == "" || name == e.name }

// answerInfo answers INFO, and GO, which enters transmission if the export is
// known.
func (e export) answerInfo(w io.Writer, option uint32, data []byte) (done bool, err error) {
	name, kinds, ok := parseInfo(data)
	if !ok {
		return false, reply(w, option, repErrInvalid, []byte("the lengths do not fit together"))
	}
	if !e.serves(name) {
		return false, reply(w, option, repErrUnknown, []byte("the export is "+e.name))
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(e.size))
	b = binary.BigEndian.AppendUint16(b, transmissionFlags)
	if err := reply(w, option, repInfo, b); err != nil {
		return false, err
	}
	told := map[uint16]bool{}
	for _, kind := range kinds {
		b := binary.BigEndian.AppendUint16(nil, kind)
		switch kind {
		case infoName:
			b = append(b, e.name...)
		case infoBlockSize:
			b = binary.BigEndian.AppendUint32(b, 1) // Less than a sector is read, changed and written.
			b = binary.BigEndian.AppendUint32(b, e.preferred)
			b = binary.BigEndian.AppendUint32(b, maxPayload)
		default:
			continue // Telling more than was asked for is allowed, and less too.
		}
		if told[kind] {
			continue
		}
		told[kind] = true
		if err := reply(w, option, repInfo, b); err != nil {
			return false, err
		}
	}
	return option == optGo, reply(w, option, repAck, nil)
}

// parseInfo reads the data of INFO and GO: a name and a list of kinds, each with
// its length before it.
func parseInfo(data []byte) (name string, kinds []uint16, ok bool) {
	if len(data) < 6 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n)+2 > uint64(len(data)) {
		return "", nil, false
	}
	name, data = string(data[:n]), data[n:]
	count := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if len(data) != 2*count {
		return "", nil, false
	}
	for ; len(data) > 0; data = data[2:] {
		kinds = append(kinds, binary.BigEndian.Uint16(data))
	}
	return name, kinds, true
}

// reply sends one reply to an option.
func reply(w io.Writer, option, kind uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}
