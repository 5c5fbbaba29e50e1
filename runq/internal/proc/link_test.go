package proc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"
)

func newPair(tb testing.TB) (a, b *Link) {
	tb.Helper()
	fa, fb, err := Pair()
	if err != nil {
		tb.Fatal(err)
	}
	a, b = NewLink(fa), NewLink(fb)
	tb.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// A peer that does not read makes sends drop, not wait, and submits wait.
func TestSlowPeer(t *testing.T) {
	a, b := newPair(t)
	var batch Batch
	batch.Append(make([]byte, 1<<20))
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err = a.SendWait(ctx, &batch)
		cancel()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("submits do not wait: %v", err)
	}
	if err := a.Send(&batch); !errors.Is(err, ErrLinkFull) || a.Dropped() != 1 {
		t.Fatalf("%v, dropped %d", err, a.Dropped())
	}
	got := make(chan error, 1)
	go func() { got <- b.Receive(func(Frame) error { return nil }) }()
	if err := a.SendWait(t.Context(), &batch); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := await(t, got, "the end"); err != io.EOF {
		t.Fatalf("the peer closed: %v", err)
	}
	if err := a.Send(&batch); !errors.Is(err, ErrLinkClosed) {
		t.Fatalf("sent on a closed link: %v", err)
	}
}

// Close ends a Receive and a writer that waits for the peer.
func TestCloseEndsAll(t *testing.T) {
	a, b := newPair(t)
	var batch Batch
	batch.Append(make([]byte, 3<<20))
	if err := a.Send(&batch); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got := make(chan error, 1)
	go func() { got <- b.Receive(func(Frame) error { return errors.New("a whole frame came") }) }()
	if err := await(t, got, "the end"); err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	c, _ := newPair(t)
	go func() { got <- c.Receive(func(Frame) error { return nil }) }()
	c.Close()
	if err := await(t, got, "the end of Receive"); !errors.Is(err, ErrLinkClosed) {
		t.Fatal(err)
	}
}

// Raw bytes that are no frame, or only a part of one.
func TestBadStreams(t *testing.T) {
	var batch Batch
	batch.Append([]byte("whole"))
	whole := bytes.Clone(batch.Bytes())
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-1] ^= 1
	oversize := binary.LittleEndian.AppendUint32(nil, MaxFrameBytes)
	for name, c := range map[string]struct {
		data   []byte
		want   error
		frames int
	}{
		"whole":    {append(bytes.Clone(whole), whole...), io.EOF, 2},
		"partial":  {whole[:len(whole)-1], io.ErrUnexpectedEOF, 0},
		"head cut": {whole[:2], io.ErrUnexpectedEOF, 0},
		"flipped":  {append(bytes.Clone(whole), flipped...), ErrFrame, 1},
		"oversize": {append(oversize, make([]byte, 64)...), ErrFrame, 0},
	} {
		t.Run(name, func(t *testing.T) {
			fa, fb, err := Pair()
			if err != nil {
				t.Fatal(err)
			}
			b := NewLink(fb)
			defer b.Close()
			fa.Write(c.data)
			fa.Close()
			frames := 0
			if err := b.Receive(func(Frame) error { frames++; return nil }); !errors.Is(err, c.want) || frames != c.frames {
				t.Fatalf("%v after %d frames, want %v after %d", err, frames, c.want, c.frames)
			}
		})
	}
}

func TestBatchBounds(t *testing.T) {
	var b Batch
	if err := b.Append(make([]byte, MaxFrameBytes)); !errors.Is(err, ErrFrameFull) {
		t.Fatal(err)
	}
	if err := b.Append(make([]byte, MaxFrameBytes-headerBytes-uvarintBytesLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(b.Bytes()); err != nil {
		t.Fatal(err)
	}
}

func TestCodecAllocatesNothing(t *testing.T) {
	var b Batch
	item := make([]byte, 64)
	n := 0
	if allocs := testing.AllocsPerRun(100, func() {
		b.Reset(1)
		for range 256 {
			b.Append(item)
		}
		f, err := Decode(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for got := range f.Items() {
			n += len(got)
		}
	}); allocs != 0 || n == 0 {
		t.Fatalf("%v allocations for %d bytes", allocs, n)
	}
}

// What Decode accepts, Items walks, and Batch builds again.
func FuzzDecode(f *testing.F) {
	var b Batch
	b.Reset(3)
	b.Append([]byte("a"))
	b.Append(nil)
	f.Add(bytes.Clone(b.Bytes()), true)
	f.Add([]byte("garbage that is no frame"), true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal && len(data) >= headerBytes { // Past the checksum, or nothing would ever get there.
			b := Batch{buf: bytes.Clone(data), kind: data[9], count: binary.LittleEndian.Uint32(data[12:])}
			data = b.Bytes()
			data[10], data[11] = 0, 0
			data = (&Batch{buf: data, kind: data[9], count: b.count}).Bytes()
		}
		frame, err := Decode(data)
		if err != nil {
			return
		}
		var again Batch
		again.Reset(frame.Kind)
		n := 0
		for item := range frame.Items() {
			n++
			if err := again.Append(item); err != nil {
				t.Skip() // Longer than the bound by its own headers.
			}
		}
		other, err := Decode(again.Bytes())
		if err != nil || n != frame.Len() || other.Len() != n {
			t.Fatalf("%d items walked, %d claimed, %v", n, frame.Len(), err)
		}
	})
}

// Items of 64 bytes in batches of 256, from Append to the receiver's loop.
func BenchmarkLink(b *testing.B) {
	a, to := newPair(b)
	const perBatch = 256
	done := make(chan error, 1)
	total := (b.N + perBatch - 1) / perBatch * perBatch
	go func() {
		seen := 0
		done <- to.Receive(func(f Frame) error {
			for range f.Items() {
				seen++
			}
			if seen == total {
				return io.EOF
			}
			return nil
		})
	}()
	item := make([]byte, 64)
	var batch Batch
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < total; sent += perBatch {
		batch.Reset(1)
		for range perBatch {
			batch.Append(item)
		}
		if err := a.SendWait(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != io.EOF {
		b.Fatal(err)
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds()/1e6, "Mitems/s")
}

// Half of a round trip of one item.
func BenchmarkLatency(b *testing.B) {
	a, to := newPair(b)
	go to.Receive(func(f Frame) error {
		var back Batch
		return to.Send(&back)
	})
	came := make(chan struct{}, 1)
	go a.Receive(func(Frame) error { came <- struct{}{}; return nil })
	var batch Batch
	batch.Append(make([]byte, 64))
	b.ResetTimer()
	for b.Loop() {
		if err := a.Send(&batch); err != nil {
			b.Fatal(err)
		}
		<-came
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2, "ns/one-way")
}
