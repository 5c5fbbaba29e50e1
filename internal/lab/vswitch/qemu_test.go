package vswitch

import (
	"os/exec"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

// QEMU's own dgram device between two switches: what goes in on one side comes
// out on the other, both ways. A hub inside QEMU stands for the guest.
func TestQEMUSpeaksToTheSwitch(t *testing.T) {
	testkit.Need(t, testkit.QEMU)
	left, right := newSwitch(t, Options{}), newSwitch(t, Options{})
	a, b := plugIn(t, left, "a", 1), plugIn(t, right, "b", 2)
	inner, err := left.AddPort("inner")
	if err != nil {
		t.Fatal(err)
	}
	outer, err := right.AddPort("outer")
	if err != nil {
		t.Fatal(err)
	}
	qemu := exec.Command("qemu-system-x86_64", "-machine", "none", "-accel", "tcg", "-nodefaults", "-nographic",
		"-netdev", inner.Netdev("l"), "-netdev", "hubport,id=hl,hubid=0,netdev=l",
		"-netdev", outer.Netdev("r"), "-netdev", "hubport,id=hr,hubid=0,netdev=r")
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = qemu.Process.Kill() // It may have ended, which the test has noticed then.
		_ = qemu.Wait()
	}()
	eventually(t, "QEMU carries a frame", func() bool {
		a.send(broadcast, 1)
		return b.received()[1] > 0
	})
	const n = 499
	for tag := uint32(100); tag < 100+n; tag++ {
		a.send(b.mac, tag)
		eventually(t, "b gets a frame", func() bool { return b.received()[tag] == 1 })
		b.send(a.mac, tag)
		eventually(t, "a gets a frame", func() bool { return a.received()[tag] == 1 })
	}
	if err := left.Partition([]string{"a"}, []string{"inner"}); err != nil {
		t.Fatal(err)
	}
	before := left.Stats().Total().Cut
	a.send(b.mac, 7)
	eventually(t, "the frame is cut", func() bool { return left.Stats().Total().Cut == before+1 })
	if err := left.Heal(); err != nil {
		t.Fatal(err)
	}
	a.send(b.mac, 8)
	eventually(t, "the network is healed", func() bool { return b.received()[8] == 1 })
	if b.received()[7] != 0 {
		t.Error("a frame passed the partition")
	}
}
