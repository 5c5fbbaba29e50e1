package load

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"pgregory.net/rapid"
)

// The recorder against the library's own histogram.
func TestRecorderMatchesTheLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.OneOf(rapid.Int64Range(0, 1<<13), rapid.Int64Range(0, maxLatencyNs))).Draw(t, "values")
		want := hdrhistogram.New(1, maxLatencyNs, figures)
		one, sum := newRecorder(), newRecorder()
		for _, v := range values {
			if err := want.RecordValue(v); err != nil {
				t.Fatal(err)
			}
			one.record(v, 1)
		}
		one.drainInto(sum)
		pairs := sum.drainPairs(nil)
		encoded, total, err := encodeLatencies(pairs)
		if err != nil || total != uint64(len(values)) {
			t.Fatalf("%d of %d, %v", total, len(values), err)
		}
		got, err := DecodeLatencies(encoded)
		if err != nil || !got.Equals(want) {
			t.Fatalf("another histogram came back: %v", err)
		}
		if left := append(one.drainPairs(nil), sum.drainPairs(nil)...); len(left) > 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestLatenciesOutOfRange(t *testing.T) {
	r := newRecorder()
	for _, v := range []int64{math.MinInt64, -1, 0, maxLatencyNs, math.MaxInt64} {
		r.record(v, 1)
	}
	if r.counts[0] != 3 || r.counts[bucketCount-1] != 2 {
		t.Errorf("%d at the low end, %d at the high one", r.counts[0], r.counts[bucketCount-1])
	}
}

func TestForeignHistogramsAreRefused(t *testing.T) {
	h := hdrhistogram.New(1, math.MaxInt64/4, 5)
	foreign, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	for want, data := range map[string][]byte{
		"not the load's": foreign,
		"more than any":  bytes.Repeat([]byte("A"), maxEncodedLatencies+1),
		"EOF":            []byte("HISTFAAA"[:4]),
		"illegal":        []byte("*"),
	} {
		if _, err := DecodeLatencies(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v, want a word about %q", data, err, want)
		}
	}
	for _, pairs := range [][]uint64{{1}, {uint64(bucketCount), 1}, {math.MaxUint64, 1}, {0, math.MaxUint64}, make([]uint64, 2*bucketCount+2)} {
		if _, _, err := encodeLatencies(pairs); err == nil {
			t.Errorf("%d counts are accepted", len(pairs))
		}
	}
}

func FuzzDecodeLatencies(f *testing.F) {
	r := newRecorder()
	for _, v := range []int64{1, 1000, 1 << 20, maxLatencyNs} {
		r.record(v, 3)
	}
	encoded, _, err := encodeLatencies(r.drainPairs(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte("HISTFAAAAA=="))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := DecodeLatencies(data)
		if err != nil {
			return
		}
		if h.LowestTrackableValue() != 1 || h.HighestTrackableValue() != maxLatencyNs {
			t.Errorf("a histogram from %d to %d", h.LowestTrackableValue(), h.HighestTrackableValue())
		}
		h.ValueAtQuantile(99)
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"run":{"leg":"x","writes":3,"for":1,"rate_per_second":0.5}}`))
	f.Add([]byte(`{"sync":"x"}`))
	f.Add([]byte(`{"open":{"x":{"targets":[["/a","/b"]],"file_bytes":4096,"size_bytes":512,"mode":"direct","pattern":"seq","uring":true,"batch":3}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeRequest(line)
		if err != nil {
			return
		}
		for _, s := range r.Open {
			if s.slots() == 0 || s.batch() < 1 || s.batch()*s.SizeBytes > MaxBufferBytes || len(s.Targets) == 0 {
				t.Errorf("%+v was accepted", s)
			}
		}
		if b := r.Run; b != nil {
			if b.Writes == 0 && b.For <= 0 {
				t.Errorf("%+v was accepted", b)
			}
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add([]byte(`{"threads":[1,2]}`))
	f.Add([]byte(`{"done":{"acknowledged":3,"elapsed_ns":5,"latencies":[7,3]}}`))
	f.Add([]byte(`{"failure":{"message":"x","errno":28,"write":{"op":"pwrite","wrote":3}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeReply(line)
		if err != nil {
			return
		}
		if err := r.Failure.unpack(); (err != nil) != (r.Failure != nil) || err != nil && err.Error() == "" && r.Failure.Message != "" {
			t.Errorf("%+v became %v", r.Failure, err)
		}
		if r.Done != nil {
			if result, err := r.Done.result(); err == nil {
				if h, err := DecodeLatencies(result.Latencies); err != nil || uint64(h.TotalCount()) != result.Acknowledged {
					t.Errorf("%s became %+v, %v", line, result, err)
				}
			}
		}
	})
}
