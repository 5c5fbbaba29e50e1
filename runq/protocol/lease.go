package protocol

import (
	"slices"
	"time"

	"github.com/coreplica/coreplica/replica/clock"
)

// tick looks at the control page, renews the lease and acts on those of others.
func (n *Node) tick(ev *Event) {
	if ev.Control != nil {
		n.look(ev.Control)
	}
	if n.life == exited {
		return
	}
	// Only after looking: who was fenced off must not seem alive.
	if n.now.Sub(n.renewed) >= n.cfg.Lease.Renewal() {
		n.renew()
	}
	n.watch()
	n.hurry()
	n.tend()
	if n.now.Sub(n.retried) >= n.cfg.Retry {
		n.retried = n.now
		n.retry()
	}
}

// look takes a reading of the control page.
func (n *Node) look(c *Control) {
	for i := range n.peers {
		if Core(i) != n.core {
			n.sawHeartbeat(Core(i), c.Heartbeats[i])
		}
	}
	for i := range n.views {
		w := UnpackArbiter(c.Arbiters[i])
		if int(w.Owner) >= n.cfg.Cores || int(w.ActiveOwner) >= n.cfg.Cores {
			continue // The page is damaged, which is for whoever opened the queue to say.
		}
		n.sawArbiter(Core(i), w)
		n.views[i].drawn = max(n.views[i].drawn, uint32(c.Incarnations[i]))
		// A swap that was asked for will tell by itself.
		if l := n.logs[i]; l != nil && l.stage != swapping && l.stage != handingOver && w.Epoch > l.epoch {
			n.superseded(l)
		}
	}
}

func (n *Node) sawHeartbeat(core Core, word uint64) {
	p, hb := &n.peers[core], UnpackHeartbeat(word)
	if hb.Incarnation == 0 || hb.Incarnation < p.incarnation {
		return
	}
	if hb.Incarnation > p.incarnation {
		// A birth proves the death of the life before.
		n.births = n.births || p.incarnation > 0
		*p = peer{incarnation: hb.Incarnation, lost: max(p.lost, p.incarnation), crashed: p.crashed}
	}
	before := p.watch
	p.watch.Observe(word, n.now)
	if p.watch != before {
		p.suspect = false
	}
}

// sawArbiter remembers who owns a log, and which life of it that can be at most.
func (n *Node) sawArbiter(log Core, w ArbiterWord) {
	v := &n.views[log]
	if v.known && w.Epoch < v.word.Epoch {
		return
	}
	ownerLife := v.ownerLife
	if !v.known || w.Epoch != v.word.Epoch {
		v.ownerLife = n.reignOf(v, w.Owner, w.Epoch)
	}
	if !v.known || w.ActiveEpoch != v.word.ActiveEpoch {
		switch {
		case v.known && w.ActiveEpoch == v.word.Epoch:
			v.activeLife = ownerLife // What was seen first is the lower bound.
		case w.ActiveEpoch == w.Epoch:
			v.activeLife = v.ownerLife
		default:
			v.activeLife = n.reignOf(v, w.ActiveOwner, w.ActiveEpoch)
		}
	}
	v.word, v.known = w, true
	if v.formerly && w.Phase == Active && n.logs[log] == nil {
		v.formerly = false
		n.emit(Effect{Kind: EffectFreeBelow, Log: log, Epoch: w.Epoch})
	}
}

// reignOf returns the latest life of a core that can own a log in an epoch. Of
// our own core, that is an earlier life but where this one swapped.
func (n *Node) reignOf(v *view, core Core, epoch uint32) uint32 {
	if core == n.core && (v.mine == 0 || epoch < v.mine) {
		return n.incarnation - 1
	}
	return n.lifeOf(core)
}

func (n *Node) lifeOf(core Core) uint32 {
	if core == n.core {
		return n.incarnation
	}
	if int(core) >= len(n.peers) {
		return 0
	}
	return n.peers[core].incarnation
}

// gone reports whether a life of a core is known to be over.
func (n *Node) gone(core Core, life uint32) bool {
	if core == n.core {
		return life < n.incarnation
	}
	p := &n.peers[core]
	return p.incarnation > life || p.incarnation == life && p.exited
}

// due returns since when a core seems dead, or reports that it does not. The
// lease adds its patience, a proof of death does not.
func (n *Node) due(core Core) (clock.Instant, bool) {
	p := &n.peers[core]
	switch {
	case p.incarnation == 0:
		return 0, false
	case p.exited || p.suspect:
		return p.since, true
	case p.watch.Silent(n.now) >= n.cfg.Lease.Patience():
		return n.now.Add(n.cfg.Lease.Patience() - p.watch.Silent(n.now)), true
	}
	return 0, false
}

// watch takes over what nobody else seems to serve.
func (n *Node) watch() {
	for i := range n.views {
		log, v := Core(i), &n.views[i]
		if n.logs[i] != nil || !v.known {
			continue
		}
		owner := v.word.Owner
		switch {
		case v.word.Phase == Vacant && log != n.core:
			n.watchOwner(log, v, log)
		case v.word.Phase == Vacant, owner == n.core:
			// It was handed to us, or an earlier life of ours owned it.
			n.takeOver(log)
		default:
			n.watchOwner(log, v, owner)
		}
	}
}

// watchOwner takes a log over whose owner seems dead. Each neighbour waits
// longer for every nearer one that seems alive.
func (n *Node) watchOwner(log Core, v *view, owner Core) {
	since, dead := n.due(owner)
	if dead {
		if n.spared() {
			return
		}
		nearer := 0
		for d := 1; d < ringDistance(owner, n.core, n.cfg.Cores); d++ {
			c := Core((int(owner) + d) % n.cfg.Cores)
			if _, dead := n.due(c); !dead && n.peers[c].incarnation > 0 && n.isAway(c) == n.isAway(n.core) {
				nearer++
			}
		}
		if n.now >= since.Add(n.cfg.Stagger*time.Duration(nearer)) {
			n.takeOver(log)
		}
		return
	}
	if log == n.core && !n.isAway(n.core) && v.word.Phase == Active && (v.asked == 0 || n.now.Sub(v.asked) >= n.cfg.Retry) {
		v.asked = max(n.now, 1)
		n.later(Effect{Kind: EffectSend, Log: log, Message: &Message{Kind: MessageHandBack, ToLog: log, FromLog: log, From: n.core}})
	}
}

// exitedPeer takes a proof of death.
func (n *Node) exitedPeer(ev *Event) {
	core, life := ev.Core, ev.Incarnation
	if core == n.core || int(core) >= n.cfg.Cores {
		return
	}
	p := &n.peers[core]
	if life > p.incarnation {
		*p = peer{incarnation: life, lost: p.lost, crashed: p.crashed}
	}
	if ev.Crashed {
		p.crashed = max(p.crashed, life)
	}
	if life == p.incarnation && !p.exited {
		p.exited, p.since = true, n.now
	}
	p.lost = max(p.lost, life)
	n.closed[Stream{core, life}] = true
	for _, l := range n.logs {
		if l == nil {
			continue
		}
		if l.rec != nil {
			n.mourn(l)
		}
		if l.stage == serving {
			n.release(l)
			n.checkMembers(l)
			n.emit(Effect{Kind: EffectFreeBelow, Log: l.id, Epoch: l.epoch})
		}
	}
	n.watch()
}

// suspectPeer takes a judgement that a core hangs.
func (n *Node) suspectPeer(core Core) {
	if core == n.core || int(core) >= n.cfg.Cores {
		return
	}
	if p := &n.peers[core]; !p.exited && !p.suspect {
		p.suspect, p.since = true, n.now
	}
	n.watch()
}

// tend looks after the logs that the node serves.
func (n *Node) tend() {
	for _, l := range n.logs {
		if l == nil {
			continue
		}
		if l.rec != nil {
			l.rec.blocked = false
		}
		if l.stage != serving {
			continue
		}
		if n.births {
			n.release(l)
		}
		n.checkMembers(l)
		n.leave(l)
	}
	n.births = false
}

// checkMembers asks for fresh regions when a copy is lost, when there can be more
// copies than there are, or when they can lie better.
func (n *Node) checkMembers(l *log) {
	for i, member := range l.members {
		if member != n.core && n.peers[member].lost >= l.lives[i] {
			l.wanted = true
		}
	}
	if len(l.members) < n.cfg.K && len(n.choose()) > len(l.members) || n.improves(l) {
		l.wanted = true
	}
}

// settleLeases is for how many leases copies stay where they are before they go
// to better hosts. A core that dies again and again would else be trusted with
// them each time.
const settleLeases = 8

// improves reports whether the copies of a log could lie better than they do: with
// cores that all seem alive, in more failure domains, or in as many and with cores
// that come earlier around the ring, which has those first that share least. It
// never spends the last epoch, and none on a log that is to be given away.
func (n *Node) improves(l *log) bool {
	if n.now.Sub(l.settled) < settleLeases*n.cfg.Lease.Length || l.giving != noCore || l.epoch+1 >= n.cfg.EpochLimit {
		return false
	}
	best := n.choose()
	for _, c := range best[1:] {
		if _, dead := n.due(c); dead {
			return false
		}
	}
	return len(best) == len(l.members) && slices.Compare(n.rank(best), n.rank(l.members)) < 0
}

// rank returns what tells how well copies at some cores lie: less is better.
func (n *Node) rank(hosts []Core) []int {
	domains := map[int]bool{}
	var distances []int
	for _, c := range hosts {
		domains[n.cfg.Domain[c]] = true
		distances = append(distances, ringDistance(n.core, c, n.cfg.Cores))
	}
	slices.Sort(distances)
	return append([]int{-len(domains)}, distances...)
}

// choose picks the cores that hold the copies of a log of ours: ourselves, then
// the nearest around the ring in other failure domains, those that seem alive
// first.
func (n *Node) choose() []Core {
	members := []Core{n.core}
	domains := map[int]bool{n.cfg.Domain[n.core]: true}
	pick := func(shared, silent bool) {
		for d := 1; d < min(ringBits, n.cfg.Cores) && len(members) < n.cfg.K; d++ {
			c := Core((int(n.core) + d) % n.cfg.Cores)
			p := &n.peers[c]
			_, dead := n.due(c)
			if p.incarnation == 0 || p.exited || p.lost >= p.incarnation || dead != silent ||
				!shared && domains[n.cfg.Domain[c]] || set(members).Has(int(c)) {
				continue
			}
			domains[n.cfg.Domain[c]] = true
			members = append(members, c)
		}
	}
	pick(false, false)
	pick(false, true)
	if n.cfg.AllowSharedDomain {
		pick(true, false)
		pick(true, true)
	}
	return members
}
