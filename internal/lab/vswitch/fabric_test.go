package vswitch

import (
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"
)

// address returns the Ethernet address of a test's station.
func address(n int) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0, 0, byte(n >> 8), byte(n)}
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ethernet returns a frame of 64 bytes that carries a number.
func ethernet(to, from net.HardwareAddr, tag uint32) []byte {
	frame := make([]byte, 64)
	copy(frame, to)
	copy(frame[6:], from)
	frame[12], frame[13] = 0x88, 0xb5 // the type for local experiments, IEEE 802
	binary.BigEndian.PutUint32(frame[14:], tag)
	return frame
}

func tagOf(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[14:18]) }

func newTestFabric(t *testing.T, ports ...string) *fabric {
	t.Helper()
	f := newFabric(1)
	for _, port := range ports {
		if err := f.add(port, nil); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// targets returns the ports that a frame goes to.
func targets(f *fabric, from string, frame []byte) string {
	out, fate := f.forward(from, frame)
	var to []string
	for _, forward := range out {
		to = append(to, forward.Link.To)
	}
	return [...]string{"", "malformed", "local"}[fate] + strings.Join(to, " ")
}

func TestLearning(t *testing.T) {
	f := newTestFabric(t, "c", "a", "b", "d")
	one, two, three := address(1), address(2), address(3)
	multicast := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	steps := []struct {
		port     string
		to, from net.HardwareAddr
		want     string
	}{
		{"a", two, one, "b c d"}, // unknown: flooded, and not back to a
		{"b", one, two, "a"},
		{"a", two, one, "b"},
		{"a", one, three, "local"}, // a second station behind a
		{"b", three, two, "a"},
		{"c", broadcast, address(9), "a b d"},
		{"c", multicast, address(9), "a b d"},
		{"d", one, one, "local"}, // station one has moved to d
		{"b", one, two, "d"},
		{"c", two, multicast, "b"}, // a group is no source to learn
		{"b", multicast, two, "a c d"},
		{"c", net.HardwareAddr{0, 0, 0, 0, 0, 0}, make(net.HardwareAddr, 6), "a b d"},
		{"b", make(net.HardwareAddr, 6), two, "a c d"}, // nor is nobody
	}
	for i, s := range steps {
		if got := targets(f, s.port, ethernet(s.to, s.from, 0)); got != s.want {
			t.Errorf("step %d: from %s to %s goes to %q, want %q", i, s.port, s.to, got, s.want)
		}
	}
	f.remove("d")
	if got := targets(f, "b", ethernet(one, two, 0)); got != "a c" {
		t.Errorf("a station behind a removed port: frame goes to %q, want a flood", got)
	}
	for _, n := range []int{0, minFrame - 1, MaxFrame + 1} {
		if got := targets(f, "b", make([]byte, n)); got != "malformed" {
			t.Errorf("a frame of %d bytes goes to %q", n, got)
		}
	}
	for _, n := range []int{minFrame, MaxFrame} {
		if got := targets(f, "b", make([]byte, n)); got != "a c" {
			t.Errorf("a frame of %d bytes goes to %q", n, got)
		}
	}
}

func TestOneGuestCannotFillTheTable(t *testing.T) {
	f := newTestFabric(t, "a", "b", "flood")
	f.forward("b", ethernet(broadcast, address(1), 0))
	for n := range 10_000 {
		f.forward("flood", ethernet(broadcast, address(1000+n), 0))
		if len(f.table.ports) > 1+maxAddresses || len(f.table.learned["flood"]) > maxAddresses {
			t.Fatalf("after %d addresses the table has %d", n+1, len(f.table.ports))
		}
	}
	if got := targets(f, "a", ethernet(address(1), address(2), 0)); got != "b" {
		t.Errorf("the address of another port was forgotten: %q", got)
	}
	if got := targets(f, "a", ethernet(address(10_999), address(2), 0)); got != "flood" {
		t.Errorf("the newest address is not known: %q", got)
	}
	if got := targets(f, "a", ethernet(address(1000), address(2), 0)); got != "b flood" {
		t.Errorf("the oldest address is still known: %q", got)
	}
}

func TestDeclaredAddressesStay(t *testing.T) {
	f := newTestFabric(t, "a", "b")
	f.forward("b", ethernet(broadcast, address(7), 0)) // learnt elsewhere before
	if err := f.add("c", []net.HardwareAddr{address(7)}); err != nil {
		t.Fatal(err)
	}
	if got := targets(f, "a", ethernet(address(7), address(1), 0)); got != "c" {
		t.Errorf("declared for c, sent to %q", got)
	}
	f.forward("b", ethernet(broadcast, address(7), 0)) // b claims it again
	if got := targets(f, "a", ethernet(address(7), address(1), 0)); got != "c" {
		t.Errorf("a claim moved a declared address to %q", got)
	}
	for name, bad := range map[string][]net.HardwareAddr{
		"taken": {address(7)}, "group": {broadcast}, "long": {make(net.HardwareAddr, 8)}, "many": slices.Repeat([]net.HardwareAddr{address(8)}, maxAddresses+1),
	} {
		if err := f.add("d", bad); err == nil {
			t.Errorf("%s: declared", name)
		}
	}
	f.remove("c")
	if err := f.add("d", []net.HardwareAddr{address(7)}); err != nil {
		t.Errorf("the port is removed and its address is not free: %v", err)
	}
}

func TestPortsAreChecked(t *testing.T) {
	f := newTestFabric(t, "a")
	for _, bad := range []string{"", "*", "a", "x/y", "..", "a b"} {
		if err := f.add(bad, nil); err == nil {
			t.Errorf("port %q was added", bad)
		}
	}
	for n := 1; n < MaxPorts; n++ {
		if err := f.add("p"+string(rune('A'+n/26))+string(rune('A'+n%26)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.add("onemore", nil); err == nil {
		t.Error("there is no bound of ports")
	}
	if len(f.links) != MaxPorts*(MaxPorts-1) {
		t.Errorf("%d links between %d ports", len(f.links), MaxPorts)
	}
}
