//go:build !amd64

package object

// vectors is empty: the irq_vectors trace events are x86's own.
func vectors() []Object { return nil }
