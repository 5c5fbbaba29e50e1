package load

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The histogram's shape: nanoseconds, at least three figures, up to an hour. A
// write that took longer counts as an hour.
const (
	maxLatencyNs = 3_600_000_000_000
	figures      = 3

	// halfBits is the resolution: each octave above 2<<halfBits has
	// 1<<halfBits buckets. Three figures need 1024.
	halfBits = 10
	half     = 1 << halfBits
)

// bucketCount is one more than the bucket of maxLatencyNs.
var bucketCount = bucketOf(maxLatencyNs) + 1

// bucketOf is the HDR histogram's own index for a lowest value of 1 and three
// figures, so that counts can be carried over without loss.
func bucketOf(ns uint64) int {
	octave := bits.Len64(ns|(2*half-1)) - (halfBits + 1)
	return octave<<halfBits + int(ns>>octave)
}

// bucketLow is the lowest value of a bucket.
func bucketLow(bucket int) uint64 {
	if bucket < 2*half {
		return uint64(bucket)
	}
	octave := bucket>>halfBits - 1
	return uint64(bucket-octave<<halfBits) << octave
}

// recorder counts latencies on the hot path. It is an array and nothing else:
// the library's histogram is made from it in the parent, so that neither its
// compression nor the garbage of it costs the process under measurement.
type recorder struct{ counts []uint64 }

func newRecorder() *recorder { return &recorder{make([]uint64, bucketCount)} }

func (r *recorder) record(ns int64, n uint64) {
	r.counts[bucketOf(min(uint64(max(ns, 0)), maxLatencyNs))] += n
}

// drainInto adds up the counts in another recorder and leaves none here.
func (r *recorder) drainInto(sum *recorder) {
	for i, n := range r.counts {
		if n != 0 {
			sum.counts[i] += n
			r.counts[i] = 0
		}
	}
}

// drainPairs appends bucket, count, bucket, count, … and leaves none here.
func (r *recorder) drainPairs(pairs []uint64) []uint64 {
	for i, n := range r.counts {
		if n != 0 {
			pairs = append(pairs, uint64(i), n)
			r.counts[i] = 0
		}
	}
	return pairs
}

// errPairs is returned for counts that no recorder makes.
var errPairs = errors.New("the load's histogram makes no sense")

// encodeLatencies makes the compressed histogram from a recorder's pairs, and
// returns how many latencies it holds.
func encodeLatencies(pairs []uint64) (encoded []byte, total uint64, err error) {
	if len(pairs)%2 != 0 || len(pairs) > 2*bucketCount {
		return nil, 0, errPairs
	}
	h := hdrhistogram.New(1, maxLatencyNs, figures)
	for i := 0; i < len(pairs); i += 2 {
		bucket, n := pairs[i], pairs[i+1]
		if bucket >= uint64(bucketCount) || n > 1<<62-total {
			return nil, 0, errPairs
		}
		if err := h.RecordValues(int64(bucketLow(int(bucket))), int64(n)); err != nil {
			return nil, 0, fmt.Errorf("encode latencies: %w", err)
		}
		total += n
	}
	if encoded, err = h.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
		return nil, 0, fmt.Errorf("encode latencies: %w", err)
	}
	return encoded, total, nil
}

// maxEncodedLatencies bounds [DecodeLatencies]: all buckets in use, nine bytes
// each, not compressed at all, in base64.
const maxEncodedLatencies = 1 << 20

// DecodeLatencies reads [Result.Latencies]. It takes histograms of the load's
// own shape only, since a foreign one may claim any amount of memory.
func DecodeLatencies(encoded []byte) (*hdrhistogram.Histogram, error) {
	if len(encoded) > maxEncodedLatencies {
		return nil, fmt.Errorf("decode latencies: %d bytes, more than any histogram of the load", len(encoded))
	}
	if err := checkShape(encoded); err != nil {
		return nil, fmt.Errorf("decode latencies: %w", err)
	}
	h, err := hdrhistogram.Decode(encoded)
	if err != nil {
		return nil, fmt.Errorf("decode latencies: %w", err)
	}
	return h, nil
}

// checkShape reads the header inside the compressed part.
func checkShape(encoded []byte) error {
	const outer = 8 // cookie and length
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
	n, err := base64.StdEncoding.Decode(raw, encoded)
	if err != nil {
		return err
	}
	if n < outer {
		return io.ErrUnexpectedEOF
	}
	z, err := zlib.NewReader(bytes.NewReader(raw[outer:n]))
	if err != nil {
		return err
	}
	var header struct {
		Cookie, Payload, Offset, Figures int32
		Lowest, Highest                  int64
	}
	if err := errors.Join(binary.Read(z, binary.BigEndian, &header), z.Close()); err != nil {
		return err
	}
	if header.Figures != figures || header.Lowest != 1 || header.Highest != maxLatencyNs {
		return fmt.Errorf("a histogram of %d figures from %d to %d is not the load's", header.Figures, header.Lowest, header.Highest)
	}
	return nil
}
