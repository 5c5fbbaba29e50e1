package cleanup

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func member(magic uint32, uuid [16]byte) []byte {
	device := make([]byte, mdSuperOffset+4096)
	binary.LittleEndian.PutUint32(device[mdSuperOffset:], magic)
	copy(device[mdSuperOffset+mdUUIDOffset:], uuid[:])
	return device
}

func TestArrayUUID(t *testing.T) {
	want := arrayUUID("coreplica-1-0123456789abcdef", "mirror")
	if got, err := parseArrayUUID(bytes.NewReader(member(mdMagic, want))); err != nil || got != want {
		t.Errorf("a member reads %x, %v, want %x", got, err, want)
	}
	for what, device := range map[string][]byte{
		"another magic": member(mdMagic+1, want), "a short device": member(mdMagic, want)[:mdSuperOffset+32], "nothing": nil,
	} {
		if _, err := parseArrayUUID(bytes.NewReader(device)); err == nil {
			t.Errorf("%s is taken for a member", what)
		}
	}
	for _, other := range [][16]byte{arrayUUID("coreplica-1-0123456789abcdef", "baseline"), arrayUUID("coreplica-2-0123456789abcdef", "mirror")} {
		if other == want {
			t.Error("two arrays have one identity")
		}
	}
}
