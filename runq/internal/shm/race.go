//go:build race

package shm

import (
	"sync/atomic"
	"unsafe"
)

// With the race detector words are stored and loaded one by one and atomically:
// it knows no memory that is checked after it was read.

func storeWords(dst, src []uint64) {
	for i := range src {
		atomic.StoreUint64(&dst[i], src[i])
	}
}

func loadWords(dst, src []uint64) {
	for i := range dst {
		dst[i] = atomic.LoadUint64(&src[i])
	}
}

func clearWords(dst []uint64) {
	for i := range dst {
		atomic.StoreUint64(&dst[i], 0)
	}
}

// storeBytes stores bytes at the start of words; the rest of the last word is
// zero.
func storeBytes(dst []uint64, src []byte) {
	words := make([]uint64, (len(src)+7)/8)
	copy(bytesOf(words), src)
	storeWords(dst, words)
}

func loadBytes(dst []byte, src []uint64) {
	words := make([]uint64, (len(dst)+7)/8)
	loadWords(words, src)
	copy(dst, bytesOf(words))
}

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
}
