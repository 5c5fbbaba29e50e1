package protocol

import (
	"github.com/coreplica/coreplica/replica/clock"
	"github.com/coreplica/coreplica/replica/quorum"
)

// A core whose CPU is offline has not failed: its loop runs on the CPU of another
// core, where two logs would share what one failure takes. So it hands its logs
// over, in order and with no kill, to a core that has its CPU, and asks for its
// own one when the CPU is back.

// cpus takes which cores have no CPU of their own now.
func (n *Node) cpus(ev *Event) {
	n.away = quorum.Set(ev.Word)
	for l := range n.owned {
		n.leave(l)
	}
}

// Held returns until when the node's lease holds: others take its logs over no
// sooner. It is 0 when the node has ended.
func (n *Node) Held() clock.Instant {
	if n.life != alive {
		return 0
	}
	return n.held
}

func (n *Node) isAway(core Core) bool { return n.away.Has(int(core)) }

// present reports whether a core can serve logs of others: it seems alive, and on
// a CPU of its own.
func (n *Node) present(core Core) bool {
	_, dead := n.due(core)
	return core != n.core && n.peers[core].incarnation > 0 && !dead && !n.isAway(core)
}

// standIn returns who shall serve a log while our CPU is offline: its own core,
// or else the nearest neighbour that is present. Where there is none, or no epoch
// for a hand-over, it is noCore and we go on.
func (n *Node) standIn(l *log) Core {
	if !n.isAway(n.core) || n.mut&mutKeepLeft != 0 || l.epoch >= n.cfg.EpochLimit {
		return noCore
	}
	if n.present(l.id) {
		return l.id
	}
	for d := 1; d < n.cfg.Cores; d++ {
		if c := Core((int(n.core) + d) % n.cfg.Cores); n.present(c) {
			return c
		}
	}
	return noCore
}

// leave decides who a log that we serve is to be given to. Nothing of it is
// claimed from then on, and the hand-over comes when nothing is under way.
func (n *Node) leave(l *log) {
	if l.giving != noCore && n.present(l.giving) && (l.giving == l.id || n.isAway(n.core)) {
		return
	}
	l.giving = n.standIn(l)
}

// spared reports whether others are to take over what seems dead: our CPU is
// offline, and another core has one.
func (n *Node) spared() bool {
	if !n.isAway(n.core) {
		return false
	}
	for i := range n.peers {
		if n.present(Core(i)) {
			return true
		}
	}
	return false
}
