package replicated

import (
	"testing"
	"unsafe"
)

func TestTheDirectoryCounts(t *testing.T) {
	var lines [4][lineBytes]byte
	at := func(i int) unsafe.Pointer { return unsafe.Pointer(&lines[i][0]) }
	tests := []struct {
		name                string
		node, line          int
		write               bool
		transfers, upgrades uint64
	}{
		{"memory comes from nowhere", 0, 0, true, 0, 0},
		{"its writer reads", 0, 0, false, 0, 0},
		{"another node reads", 1, 0, false, 1, 0},
		{"and again", 1, 0, false, 0, 0},
		{"the reader writes", 1, 0, true, 0, 1},
		{"and again", 1, 0, true, 0, 0},
		{"the first writes what it lost", 0, 0, true, 1, 0},
		{"another line", 1, 2, false, 0, 0},
	}
	d := newDirectory()
	for _, tt := range tests {
		transfers, upgrades := d.counts()
		d.touch(tt.node, at(tt.line), tt.write)
		gotTransfers, gotUpgrades := d.counts()
		if gotTransfers-transfers != tt.transfers || gotUpgrades-upgrades != tt.upgrades {
			t.Errorf("%s: %d transfers and %d upgrades, want %d and %d", tt.name,
				gotTransfers-transfers, gotUpgrades-upgrades, tt.transfers, tt.upgrades)
		}
	}
}

// counted runs do and returns the transfers that it made.
func counted(x *kvRep, do func()) float64 {
	before := x.Stats().Transfers
	do()
	return float64(x.Stats().Transfers - before)
}

// A request of a ready-made map or of a small operation begins at a line, so that
// a replica fetches one line for it.
func TestRequestsBeginAtALine(t *testing.T) {
	for size := uintptr(33); size <= 128; size++ {
		if total := size + uintptr(fillFor(size)); (total <= 48 || total > 64) && (total <= 112 || total > 128) {
			t.Errorf("a request of %d bytes gets %d more", size, fillFor(size))
		}
	}
	words := fillFor(unsafe.Sizeof(request[*wordTable, wordOp, wordRes]{}))
	var kept []*request[*wordTable, wordOp, wordRes]
	for range 100 {
		req := newRequest[*wordTable, wordOp, wordRes](words)
		if uintptr(unsafe.Pointer(req))%lineBytes != 0 {
			t.Fatalf("a request lies at %p", req)
		}
		if shared := unsafe.Offsetof(req.res); shared > lineBytes {
			t.Fatalf("the shared part of a request has %d bytes", shared)
		}
		kept = append(kept, req)
	}
	_ = kept
}

func TestReadsMoveNoLineBetweenNodes(t *testing.T) {
	for _, nodes := range []int{1, 2, 4, 8} {
		x := newRep(t, nodes, Options{CountTransfers: true})
		handles := make([]*Handle[*kv, kvOp, uint64], nodes)
		for node := range handles {
			handles[node] = x.HandleOn(node)
			mustWrite(t, handles[node], 1, 1)
		}
		readAll := func() {
			for _, h := range handles {
				mustRead(t, h, 1)
			}
		}
		readAll() // The first read after a write fetches the completed tail.
		if got := counted(x, func() {
			for range 1000 {
				readAll()
			}
		}); got != 0 {
			t.Errorf("%d replicas: %g transfers in %d reads", nodes, got, 1000*nodes)
		}
		mustWrite(t, handles[0], 1, 1)
		if got := counted(x, readAll); nodes > 1 && got == 0 {
			t.Errorf("%d replicas: reads after a write move nothing: the count is blind", nodes)
		}
	}
}

// Replicas follow batch by batch, which is the dearest way. The completed tail,
// which a reader fetches to find out that there is something to follow, is the
// read's and not counted here.
func TestAWriteMovesFewLinesBetweenNodes(t *testing.T) {
	for _, nodes := range []int{2, 3, 4, 8} {
		for _, batch := range []int{1, 4, 16} {
			x := newRep(t, nodes, Options{CountTransfers: true, LogSize: 1024})
			handles := make([]*Handle[*kv, kvOp, uint64], nodes)
			for node := range handles {
				handles[node] = x.HandleOn(node)
			}
			const rounds = 200
			round := func() {
				for node := range handles {
					combineBatch(t, x, node, batch)
				}
			}
			round()
			got := counted(x, func() {
				for range rounds {
					round()
				}
			}) / float64(rounds*nodes*batch)
			most := float64(nodes) + float64(nodes+2)/float64(batch)
			t.Logf("%d replicas, batches of %d: %.2f transfers a write, at most %.2f", nodes, batch, got, most)
			if got > most {
				t.Errorf("%d replicas, batches of %d: %.2f transfers a write, more than %.2f", nodes, batch, got, most)
			}
			// Every other replica must at least have fetched the request.
			if least := float64(nodes - 1); got < least {
				t.Errorf("%d replicas, batches of %d: %.2f transfers a write, fewer than there must be: the count is blind", nodes, batch, got)
			}
		}
	}
}

// combineBatch lets as many writers of a node have their requests in its write
// slots, combines them at once, and lets the other replicas follow.
func combineBatch(t *testing.T, x *kvRep, node, batch int) {
	by := actor{node: node}
	r := x.members.Load().home[node]
	requests := make([]*request[*kv, kvOp, uint64], batch)
	for i := range requests {
		requests[i] = newRequest[*kv, kvOp, uint64](x.fill)
		requests[i].op = kvOp{key: uint64(i), delta: 1}
	}
	if !r.tryLock() {
		t.Fatal("the replica is locked")
	}
	for _, req := range requests {
		r.carried.add(req, 1)
	}
	x.combine(by, r, nil)
	for _, req := range requests {
		if _, err := x.answer(by, req, req.state.Load()); err != nil {
			t.Fatal(err)
		}
	}
	for other := range x.nodes {
		if other == node {
			continue
		}
		var w waiter
		if err := x.catchUp(actor{node: other}, x.members.Load().home[other], x.log.completed.Load(), &w); err != nil {
			t.Fatal(err)
		}
	}
}
