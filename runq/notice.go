package runq

import "github.com/coreplica/coreplica/runq/protocol"

// noticeKind is what a worker tells whoever opened the queue.
type noticeKind uint8

const (
	// noteAnswer answers about id, and about the more next tasks of its stream;
	// code says how.
	noteAnswer noticeKind = iota + 1
	// noteMessage is for the owner of message.ToLog.
	noteMessage
	// noteReport says that id, or with a zero ID records of log, is lost.
	noteReport
	// noteReset and noteKill are about the process (core, incarnation).
	noteReset
	noteKill
	// noteUnkillable says that it did not go.
	noteUnkillable
	// noteBorn says that the worker lives, in this incarnation.
	noteBorn
	// noteExit says that the worker was fenced off and ends.
	noteExit
	// noteStep is a step of a takeover of log, for whoever watches.
	noteStep
	// noteMissed says that notices before this one were dropped.
	noteMissed
	// noteStuck says that an attempt of id is past its lease.
	noteStuck
)

// notice is one thing that a worker tells. Payload and message belong to the
// worker; they are valid until the call that hands them over returns.
type notice struct {
	kind        noticeKind
	code        protocol.Code
	step        HappeningKind
	changed     bool // The log was another life's before.
	attempt     uint16
	more        uint16
	log, core   protocol.Core
	incarnation uint32
	id          ID
	seq         uint64
	payload     []byte
	message     *protocol.Message
}

// joins lets an answer speak of the next task too, if n says the same of it.
func (last *notice) joins(n *notice) bool {
	if last.kind != noteAnswer || n.kind != noteAnswer || last.code != n.code || last.log != n.log || last.core != n.core || last.seq != n.seq ||
		last.attempt != n.attempt || len(last.payload)+len(n.payload) > 0 || last.id.Stream != n.id.Stream ||
		n.id.N != last.id.N+uint64(last.more)+1 || int(last.more)+int(n.more)+1 >= 1<<16 {
		return false
	}
	last.more += n.more + 1
	return true
}
