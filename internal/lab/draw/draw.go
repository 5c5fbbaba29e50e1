package draw

import (
	"hash/fnv"
	"math/bits"
)

// gamma is the increment of SplitMix64, the odd number next to 2^64 divided by
// the golden ratio. It keeps zero keys from staying zero.
const gamma = 0x9e3779b97f4a7c15

// Bits returns 64 bits that look random and depend on nothing but seed and
// keys, their order included.
func Bits(seed uint64, keys ...uint64) uint64 {
	h := mix(seed + gamma)
	for _, key := range keys {
		h = mix(h ^ mix(key+gamma))
	}
	return h
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Below maps the result of [Bits] to [0, n), each number equally likely but for
// a bias of at most n/2^64. Below(b, 0) is 0.
func Below(b, n uint64) uint64 {
	hi, _ := bits.Mul64(b, n)
	return hi
}

// Text returns a key for a text.
func Text(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // A hash never fails.
	return h.Sum64()
}
