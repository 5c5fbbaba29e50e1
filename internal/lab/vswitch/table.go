package vswitch

import (
	"fmt"
	"net"
	"slices"
)

// maxAddresses bounds the addresses per port. A guest has a few for itself and
// its containers; one that invents addresses pushes out its own and not those of
// others.
const maxAddresses = 64

// mac is an Ethernet address.
type mac [6]byte

// group reports whether the address means several stations: multicast, or
// broadcast.
func (m mac) group() bool { return m[0]&1 == 1 }

// table says behind which port an address is.
type table struct {
	ports map[mac]string
	// learned has the addresses of each port that frames taught, the oldest
	// first. Addresses that were declared are in ports alone: they stay.
	learned map[string][]mac
}

func newTable() table { return table{map[mac]string{}, map[string][]mac{}} }

// declare says that addresses are behind a port and will stay there.
func (t table) declare(port string, addresses []net.HardwareAddr) error {
	if len(addresses) > maxAddresses {
		return fmt.Errorf("port %s has %d addresses, more than %d: declare the ones that matter and let the switch learn the others", port, len(addresses), maxAddresses)
	}
	for _, a := range addresses {
		if len(a) != len(mac{}) || mac(a).group() {
			return fmt.Errorf("port %s: %v is no Ethernet address of one station", port, a)
		}
		if other, taken := t.ports[mac(a)]; taken && !slices.Contains(t.learned[other], mac(a)) {
			return fmt.Errorf("port %s: address %v is declared for port %s: give each guest an address of its own", port, a, other)
		}
	}
	for _, a := range addresses {
		t.forget(mac(a))
		t.ports[mac(a)] = port
	}
	return nil
}

// learn notes that a frame with a source address came from a port.
func (t table) learn(source mac, port string) {
	old, known := t.ports[source]
	if known && old == port || source.group() || source == (mac{}) {
		return
	}
	if known && !slices.Contains(t.learned[old], source) {
		return // It is declared.
	}
	t.forget(source)
	if list := t.learned[port]; len(list) >= maxAddresses {
		t.forget(list[0])
	}
	t.ports[source] = port
	t.learned[port] = append(t.learned[port], source)
}

// forget removes an address wherever it is.
func (t table) forget(address mac) {
	port := t.ports[address]
	delete(t.ports, address)
	if i := slices.Index(t.learned[port], address); i >= 0 {
		t.learned[port] = slices.Delete(t.learned[port], i, i+1)
	}
}

// removePort forgets all addresses of a port.
func (t table) removePort(port string) {
	for address, p := range t.ports {
		if p == port {
			delete(t.ports, address)
		}
	}
	delete(t.learned, port)
}
