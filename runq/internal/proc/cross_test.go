package proc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A worker that stands still lets its boot socket fill up. Then messages to it
// fail within bootPatience, and a new worker starts nevertheless and has its link
// to the opener.
func TestFullBootSocket(t *testing.T) {
	g := newGroup(t)
	stuck, _, _ := startIdle(t, g, 1)
	if err := Signal(stuck.Pidfd(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitStopped(t, stuck.Pidfd())
	const limit = 10_000
	sent, err := 0, error(nil)
	start := time.Now()
	for ; sent < limit && err == nil; sent++ {
		start = time.Now()
		err = stuck.Boot.Send(Message{Kind: "filling", Data: make([]byte, 4<<10)})
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || sent < 2 {
		t.Fatalf("%v after %d messages", err, sent)
	}
	if took := time.Since(start); took < bootPatience/2 || took > patience {
		t.Fatalf("it waited %v", took)
	}
	t.Setenv(roleEnv, roleCount)
	w, link, err := g.Start(2)
	if !errors.Is(err, os.ErrDeadlineExceeded) || w == nil {
		t.Fatalf("start beside a worker that takes no link: %v", err)
	}
	defer link.Close()
	up := errors.New("it is up")
	got := make(chan error, 1)
	go func() { got <- link.Receive(func(Frame) error { return up }) }()
	if err := await(t, got, "the new worker's start"); err != up {
		t.Fatal(err)
	}
	if err := stuck.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, stuck.Done(), "the death")
	if err := stuck.Boot.Send(Message{Kind: "late"}); err == nil {
		t.Fatal("a dead worker takes messages")
	}
}

// What exceeds the bounds of a message is refused before anything is sent.
func TestMessageBounds(t *testing.T) {
	a, b := newBoots(t)
	if err := a.Send(Message{Data: make([]byte, maxMessageBytes)}); err == nil {
		t.Error("too many bytes were sent")
	}
	files := make([]*os.File, maxMessageFiles+1)
	for i := range files {
		files[i] = os.Stderr
	}
	if err := a.Send(Message{Files: files}); err == nil {
		t.Error("too many files were sent")
	}
	if err := a.Send(Message{Kind: "good", Files: files[1:]}); err != nil {
		t.Fatal(err)
	}
	m, err := b.Receive()
	if err != nil || m.Kind != "good" || len(m.Files) != maxMessageFiles {
		t.Fatalf("%v, %s with %d files", err, m.Kind, len(m.Files))
	}
	closeAll(m.Files)
}

func newBoots(t *testing.T) (a, b *Boot) {
	t.Helper()
	fa, fb, err := pair(unix.SOCK_SEQPACKET, "test")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = newBoot(fa); err != nil {
		t.Fatal(err)
	}
	if b, err = newBoot(fb); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// Frames around the size of the receiver's buffer and up to the largest arrive
// whole and in order.
func TestLargeFrames(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	a, b := newPair(t)
	const overhead = headerBytes + 3 // The length of such an item takes three bytes.
	var sizes []int
	for _, frame := range []int{readBufferBytes - 1, readBufferBytes, readBufferBytes + 1, 2*readBufferBytes + 7, 64, 1 << 20, MaxFrameBytes - headerBytes} {
		sizes = append(sizes, frame-overhead)
	}
	sizes[len(sizes)-1] = MaxFrameBytes - headerBytes - uvarintBytesLimit
	for range 8 {
		sizes = append(sizes, rnd.IntN(2*readBufferBytes))
	}
	items := make([][]byte, len(sizes))
	for i, size := range sizes {
		items[i] = make([]byte, size)
		for at := range items[i] {
			items[i][at] = byte(rnd.Uint32())
		}
	}
	got := make(chan error, 1)
	go func() {
		next := 0
		got <- b.Receive(func(f Frame) error {
			for item := range f.Items() {
				if !bytes.Equal(item, items[next]) {
					return fmt.Errorf("item %d of %d bytes came as other %d", next, len(items[next]), len(item))
				}
				next++
			}
			if next == len(items) {
				return io.EOF
			}
			return nil
		})
	}()
	var batch Batch
	for _, item := range items {
		batch.Reset(1)
		if err := batch.Append(item); err != nil {
			t.Fatal(err)
		}
		if err := a.SendWait(t.Context(), &batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := await(t, got, "the last frame"); err != io.EOF {
		t.Fatal(err)
	}
}

// Every check of Decode refuses what all others let pass. The checksum of each
// case is right, but for the one that is about it: sealed again, its bytes are
// accepted, so a link without a checksum would take them.
func TestEachCheckIsNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		damage   func([]byte) []byte
		unsealed bool
		says     string
	}{
		"checksum": {func(d []byte) []byte { d[len(d)-1] ^= 1; return d }, true, "wrong checksum"},
		"version":  {func(d []byte) []byte { d[8]++; return d }, false, "version 2"},
		"reserved": {func(d []byte) []byte { d[10] = 1; return d }, false, "version"},
		"count":    {func(d []byte) []byte { d[12]++; return d }, false, "it claims 3 items and has 2"},
		"item":     {func(d []byte) []byte { d[headerBytes] = 100; return d }, false, "item 0 is cut short"},
		"length":   {func(d []byte) []byte { return append(d, 0) }, false, "and has"},
		"uvarint": {func(d []byte) []byte {
			return append(d[:headerBytes], bytes.Repeat([]byte{0xff}, len(d)-headerBytes)...)
		}, false, "item 0 is cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			var batch Batch
			batch.Append([]byte("one"))
			batch.Append([]byte("two"))
			data := c.damage(bytes.Clone(batch.Bytes()))
			if !c.unsealed {
				reseal(data)
			}
			if _, err := Decode(data); !errors.Is(err, ErrFrame) || !bytes.Contains([]byte(err.Error()), []byte(c.says)) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if !c.unsealed {
				return
			}
			reseal(data)
			f, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			for item := range f.Items() {
				if s := string(item); s != "one" && s != "two" {
					return // Garbage that the checksum alone tells from data.
				}
			}
			t.Fatal("the control has no damage")
		})
	}
}

// reseal gives damaged bytes the checksum that fits them.
func reseal(data []byte) {
	binary.LittleEndian.PutUint32(data[4:], crc32.Checksum(data[8:], castagnoli))
}

// Items of 64 bytes in batches of 256 to a process of its own, which answers how
// many it has seen.
func BenchmarkLinkBetweenProcesses(b *testing.B) {
	b.Setenv(roleEnv, roleCount)
	g := NewGroup(SpawnOptions{Log: slog.New(slog.DiscardHandler)})
	b.Cleanup(func() { g.Close() })
	_, link, answers := startIdle(b, g, 1)
	const perBatch = 256
	item := make([]byte, 64)
	var batch Batch
	sent := 0
	for b.Loop() {
		batch.Reset(kindItems)
		for range perBatch {
			batch.Append(item)
		}
		if err := link.SendWait(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
		sent += perBatch
	}
	batch.Reset(kindAsk)
	if err := link.SendWait(b.Context(), &batch); err != nil {
		b.Fatal(err)
	}
	if got := await(b, answers, "the count"); got != strconv.Itoa(sent) {
		b.Fatalf("the worker saw %s items of %d", got, sent)
	}
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds()/1e6, "Mitems/s")
}
