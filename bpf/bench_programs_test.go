package bpf

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

// BenchmarkProgram lets every program of the ledger, the vectors and the block
// probe run on what a busy machine does anyway, and reports the mean ns of each
// one's body as the kernel counts it (kernel.bpf_stats_enabled, which adds some
// 20 ns of its own). What the dispatch costs, BenchmarkEvent says.
func BenchmarkProgram(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.BTF, testkit.BPF)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	for _, form := range AttachTypes() {
		b.Run(string(form), func(b *testing.B) {
			l := openLedger(b, LedgerOptions{Forms: []AttachType{form}})
			if err := l.Start(os.Getpid(), 0); err != nil {
				b.Fatal(err)
			}
			block, err := OpenBlockIO(nil, LedgerOptions{Forms: []AttachType{form}})
			if err != nil {
				b.Fatal(err)
			}
			defer block.Close()
			for b.Loop() {
				keepBusy(b, 100*time.Millisecond)
			}
			for _, p := range []*probe{l.main, l.vectors, block.probe} {
				if p == nil {
					continue
				}
				for _, name := range slices.Sorted(maps.Keys(p.programs)) {
					reportProgram(b, name, p.programs[name])
				}
			}
		})
	}
}

func reportProgram(b *testing.B, name string, p *ebpf.Program) {
	s, err := p.Stats()
	if err != nil {
		b.Fatal(err)
	}
	if s.RunCount > 100 {
		b.ReportMetric(float64(s.Runtime)/float64(s.RunCount), name+"-ns")
	}
}

// keepBusy makes switches, timers, softirqs, works, system calls and block
// writes.
func keepBusy(b *testing.B, d time.Duration) {
	b.Helper()
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	udp, err := net.Dial("udp", "127.0.0.1:9") // Nobody answers; the softirq runs all the same.
	if err != nil {
		b.Fatal(err)
	}
	file, err := os.CreateTemp(b.TempDir(), "busy")
	if err != nil {
		b.Fatal(err)
	}
	end := time.Now().Add(d)
	for i := 0; time.Now().Before(end); i++ {
		_, _ = near.Write([]byte("x"))
		_, _ = udp.Write([]byte("x"))
		time.Sleep(50 * time.Microsecond)
		if i%16 == 0 {
			if _, err := file.WriteAt([]byte(fmt.Sprint(i)), int64(i)*512); err != nil {
				b.Fatal(err)
			}
			_ = file.Sync()
		}
	}
	for _, c := range []io.Closer{near, far, udp, file} {
		_ = c.Close()
	}
}
