package vswitch

import (
	"fmt"
	"net"
	"slices"

	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

const (
	// MaxFrame is the longest frame in bytes: what a guest sends that leaves
	// segmentation to its network card.
	MaxFrame = 64 << 10
	// minFrame is two addresses and a type. Padding to 60 bytes is the business
	// of a wire.
	minFrame = 14
	// MaxPorts bounds the ports: the links are its square, and a machine that
	// runs more guests than this is no lab.
	MaxPorts = 64
)

// Link is an ordered pair of ports.
type Link struct{ From, To string }

func (l Link) String() string { return l.From + ">" + l.To }

// Forward is what the switch decided about one frame on one link.
type Forward struct {
	Link     Link
	Decision faults.Decision
	// Event is the index of the frame in a [Recording].
	Event int
}

func (f Forward) String() string { return fmt.Sprintf("%s %s", f.Link, f.Decision) }

// fate is what becomes of a frame before any link sees it.
type fate int

const (
	forwarded fate = iota
	malformed      // shorter or longer than a frame can be
	local          // for a station behind the port it came from
)

// fabric is the switch without sockets and time: which frame goes where, and
// what happens to it on the way.
type fabric struct {
	seed  uint64
	rules faults.Rules
	ports []string // sorted, so that a flood has an order
	table table
	links map[Link]*fabricLink
}

type fabricLink struct {
	*faults.Link
	faults faults.Faults
}

func newFabric(seed uint64) *fabric {
	return &fabric{seed: seed, table: newTable(), links: map[Link]*fabricLink{}}
}

// check says why a port of this name cannot be added.
func (f *fabric) check(name string) error {
	if err := faults.CheckName(name); err != nil {
		return err
	}
	if slices.Contains(f.ports, name) {
		return fmt.Errorf("there is a port %s already: remove it first or take another name", name)
	}
	if len(f.ports) >= MaxPorts {
		return fmt.Errorf("there are %d ports already: remove one", MaxPorts)
	}
	return nil
}

func (f *fabric) add(name string, addresses []net.HardwareAddr) error {
	if err := f.check(name); err != nil {
		return err
	}
	if err := f.table.declare(name, addresses); err != nil {
		return err
	}
	for _, other := range f.ports {
		for _, l := range []Link{{name, other}, {other, name}} {
			f.links[l] = &fabricLink{faults.NewLink(f.seed, l.From, l.To), f.rules.For(l.From, l.To)}
		}
	}
	f.ports = append(f.ports, name)
	slices.Sort(f.ports)
	return nil
}

func (f *fabric) remove(name string) {
	f.ports = slices.DeleteFunc(f.ports, func(p string) bool { return p == name })
	f.table.removePort(name)
	for l := range f.links {
		if l.From == name || l.To == name {
			delete(f.links, l)
		}
	}
}

func (f *fabric) setRules(rules faults.Rules) {
	f.rules = rules
	for l, link := range f.links {
		link.faults = rules.For(l.From, l.To)
	}
}

// forward decides about a frame that came from a port, which exists.
func (f *fabric) forward(from string, frame []byte) ([]Forward, fate) {
	if len(frame) < minFrame || len(frame) > MaxFrame {
		return nil, malformed
	}
	to, source := mac(frame[0:6]), mac(frame[6:12])
	f.table.learn(source, from)
	if port, known := f.table.ports[to]; known && !to.group() {
		if port == from {
			return nil, local
		}
		return []Forward{f.decide(Link{from, port})}, forwarded
	}
	var out []Forward
	for _, port := range f.ports {
		if port != from {
			out = append(out, f.decide(Link{from, port}))
		}
	}
	return out, forwarded
}

func (f *fabric) decide(l Link) Forward {
	link := f.links[l]
	return Forward{Link: l, Decision: link.Decide(link.faults)}
}
