//go:build !race

package shm

import "unsafe"

func storeWords(dst, src []uint64) { copy(dst, src) }

func loadWords(dst, src []uint64) { copy(dst, src) }

func clearWords(dst []uint64) { clear(dst) }

// storeBytes stores bytes at the start of words.
func storeBytes(dst []uint64, src []byte) { copy(bytesOf(dst), src) }

func loadBytes(dst []byte, src []uint64) { copy(dst, bytesOf(src)) }

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
}
